"""The one exception that a user is meant to read."""


class InputError(Exception):
    """The input is at fault, not the code.

    The message is one sentence for the user: what was wrong, what was given, what is allowed. The command
    line prints it and exits with code 2; every other exception is a bug and keeps its traceback. It is no
    ValueError, so that nothing between the check and the user takes it for its own.
    """

"""Text as records take it: without the passwords of addresses, and without bytes of file names that are no text."""

from __future__ import annotations

import re

from tl_core.images.files import as_utf8

# Between the user's name and the last @: whoever forgets to quote a / or an @ has a password all the same. The port of
# a host that cannot be a user's name is none.
_PASSWORD = re.compile(
    r"(?P<before>[a-zA-Z][\w+.-]*://(?![^\s/:@]*\.[^\s/:@]*:\d{1,5}[/?#]|localhost:\d{1,5}[/?#])[^\s/:@]*:)[^\s'\"]+(?=@)"
)
_NAMES = "passw|pwd|secret|token|signature|credential|api_?key|access_?key|odbc_connect"
_SECRET = re.compile(rf"(?P<before>(?:^|[?&;\s])[\w.%-]*(?:{_NAMES})[\w.%-]*=)[^\s&'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with the secrets of every address in it replaced: postgresql://ann:***@host/db?sslpassword=***.

    Bytes that are no UTF-8, which names of files may hold, are written out in digits.
    """
    shown = _SECRET.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>***", text))
    return as_utf8(shown)

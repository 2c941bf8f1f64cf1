"""What a run says, made from its records alone: a page, a table, the last words of a command."""

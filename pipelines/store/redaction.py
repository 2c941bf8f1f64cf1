"""Passwords do not belong in records: addresses are shown and logged without them."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?P<before>[a-zA-Z][\w+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)")


def redact(text: str) -> str:
    """The text with the password of every address in it replaced: postgresql://ann:***@host/db."""
    return _PASSWORD.sub(r"\g<before>***", text)

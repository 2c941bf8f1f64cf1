"""Image files whose pixels are whole although something beside them is damaged or too large."""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_FILLER = bytes([0x55, 0x2A] * 64)


def png_without_metadata(content: bytes) -> bytes | None:
    """Return a PNG file without its profiles and texts, or None for another file.

    Pillow refuses those of more than a megabyte, which photo editors write.
    """
    if not content.startswith(_PNG):
        return None
    kept, position = [_PNG], len(_PNG)
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if kind in _PNG_KEPT:
            kept.append(content[position:end])
        position = end
    return b"".join(kept)


def lacks_end(content: bytes) -> bool:
    """Return whether a file is a JPEG whose last scan has no end marker."""
    if not content.startswith(_JPEG) or content.endswith(_JPEG_END):
        return False
    return _JPEG_END not in content[max(content.rfind(_JPEG_SCAN), 0) :]


def ended_jpegs(content: bytes) -> tuple[bytes, bytes] | None:
    """Return a JPEG file with an end marker, and with filler before the marker, or None for another file.

    A decoder takes pixels that are missing from what follows: where both files give the same ones, none are.
    """
    if not content.startswith(_JPEG):
        return None
    start = content.rstrip(b"\0").removesuffix(b"\xff")
    return start + _JPEG_END, start + _FILLER + _JPEG_END

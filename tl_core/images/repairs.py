"""Image files whose pixels are whole although something beside them is damaged or too large."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_FILLERS = [
    b"\xaa" * 128,
    b"\xf0" * 128,
    *((hashlib.sha512(bytes([seed])).digest() * 2).replace(b"\xff", b"\x7f") for seed in range(6)),
]
_START_OF_FRAME, _PROGRESSIVE, _START_OF_SCAN = frozenset({0xC0, 0xC1, 0xC2}), 0xC2, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_COEFFICIENTS = 64


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


def ended_jpegs(content: bytes) -> list[bytes]:
    """Return a JPEG file with an end marker, and the same with fillers before the marker; nothing for another file.

    A decoder takes pixels that are missing from what follows: where all of these files give the same ones, none are.
    """
    if not content.startswith(_JPEG) or not _has_every_scan(content):
        return []
    start = content.rstrip(b"\0").removesuffix(b"\xff")
    return [start + filler + _JPEG_END for filler in (b"", *_FILLERS)]


def _has_every_scan(content: bytes) -> bool:
    """Return whether the scans of a progressive JPEG give every bit of every coefficient; a plain one has one scan."""
    missing: dict[tuple[int, int], int] = {}
    progressive = False
    for marker, body in _segments(content):
        if marker in _START_OF_FRAME and len(body) > 5:
            progressive = marker == _PROGRESSIVE
            components = body[6 : 6 + 3 * body[5] : 3]
            missing = {(component, k): 1 for component in components for k in range(_COEFFICIENTS)}
        if marker == _START_OF_SCAN and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            for component in body[1 : 1 + 2 * body[0] : 2]:
                missing |= {(component, k): bits & 15 for k in range(first, last + 1)}
    return not progressive or not any(missing.values())


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of a JPEG's segments; the data of a scan are passed over."""
    position = len(_JPEG)
    while (position := content.find(b"\xff", position)) >= 0 and position + 4 <= len(content):
        marker = content[position + 1]
        if marker in (0x00, 0xFF) or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[position + 2 : position + 4])
        yield marker, content[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)

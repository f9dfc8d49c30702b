"""A picture's file without what its pixels do not need: metadata that is broken, or too much.

A decoder that gives up on such metadata would leave a picture unscored that every viewer shows.
Nothing is decompressed here. Standard library only.
"""

from __future__ import annotations

import re
import struct

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
# Of a JPEG's application segments and comments, Adobe's alone says how pixels are stored.
ADOBE, ADOBE_SIZE = 0xEE, 14  # decoders pass over a shorter one
JPEG_METADATA = {*range(0xE0, 0xF0), 0xFE} - {ADOBE}
JPEG_SCAN = 0xDA
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # and the order of a file's bytes
# Names, dates, orientation, resolution, and blocks of EXIF, GPS, IPTC, XMP, Photoshop and ICC.
TIFF_METADATA = {
    269, 270, 271, 272, 274, 282, 283, 285, 286, 287, 296, 305, 306, 315, 316, 700, 33432, 33723,
    34377, 34665, 34675, 34853, 37724,
}  # fmt: skip
# The entry of an Exif item in the index of AVIF and HEIF, versions 2 and 3, up to the item's type.
EXIF_ITEM = re.compile(rb"(infe[\x02\x03].{7}(?:..)?)Exif", re.DOTALL)
ANCILLARY = 0x20  # the bit of a PNG chunk's first letter: decoders may pass over it


def pixels_only(content: bytes) -> bytes:
    """The file with the same pixels and less around them; unchanged where there is no more to
    leave out, or the format is one that is not known to need it."""
    if content.startswith(PNG):
        return _png(content)
    if content.startswith(JPEG):
        return _jpeg(content)
    if content[:4] in TIFF:
        return _tiff(content, TIFF[content[:4]])
    if content[4:8] == b"ftyp":
        # An item of AVIF or HEIF whose type is not known is passed over.
        return EXIF_ITEM.sub(rb"\1skip", content)
    return content


def _png(content: bytes) -> bytes:
    """Critical chunks alone (PNG specification, 5.4), whatever else the chunks are like."""
    kept, start = [content[: len(PNG)]], len(PNG)
    while start + 8 <= len(content):
        size, first = struct.unpack_from(">IB", content, start)
        if not first & ANCILLARY:
            kept.append(content[start : start + 12 + size])
        start += 12 + size
    return b"".join(kept)


def _jpeg(content: bytes) -> bytes:
    """The segments before the first scan that say how pixels are stored, and all from it on."""
    kept, start = [content[:2]], 2
    while start + 4 <= len(content) and content[start] == 0xFF:
        kind, size = struct.unpack_from(">BH", content, start + 1)
        if kind == JPEG_SCAN:
            break
        if kind == 0xFF:  # a byte that fills
            start += 1
            continue
        if kind not in JPEG_METADATA and (kind != ADOBE or size >= ADOBE_SIZE):
            kept.append(content[start : start + 2 + size])
        start += 2 + size
    return b"".join([*kept, content[start:]])


def _tiff(content: bytes, order: str) -> bytes:
    """The first directory without entries of metadata; what they point to stays where it is."""
    start = int.from_bytes(content[4:8], "little" if order == "<" else "big")
    if start + 2 > len(content):
        return content
    (count,) = struct.unpack_from(f"{order}H", content, start)
    end = start + 2 + 12 * count
    entries = [content[at : at + 12] for at in range(start + 2, min(end, len(content) - 11), 12)]
    kept = [e for e in entries if struct.unpack_from(f"{order}H", e)[0] not in TIFF_METADATA]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + content[end : end + 4]
    return content[:start] + directory + content[start + len(directory) :]

"""Fields of metadata in a picture's file: EXIF, XMP, IPTC and the text chunks of PNG.

`statements` reads them, inside of a child process with limits. Nothing here says what a field
means. Blocks are taken out of valid containers alone, within limits of size; what is broken becomes
a line of `Problems`, and never keeps the other blocks from being read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import ExifTags, Image, IptcImagePlugin, UnidentifiedImageError

from datasets._images import FORMATS, register_formats
from datasets._pixels import PNG

from ..runtime.text import reason
from .xmp import properties

LARGEST_BLOCK = 2 << 20  # bytes of one block, unpacked; ComfyUI's workflows have some 100,000
LARGEST_TEXT = 8 << 20  # bytes of all blocks of a picture
EXIF_FIELDS = ("ImageDescription", "Make", "Model", "Software", "Artist", "UserComment")
# Datasets of record 2 that name programs, services and captions (IPTC IIM 4.2, chapter 6).
IPTC_FIELDS = {
    5: "Title", 65: "Software", 80: "Artist", 110: "Credit", 115: "Source", 120: "Description",
}  # fmt: skip
PNG_XMP = "XML:com.adobe.xmp"
Problems = list[str]


@dataclass(frozen=True)
class Field:
    """A name, the text that stands under it, and where: `EXIF Make`, `PNG parameters`."""

    name: str
    text: str
    where: str


@dataclass(frozen=True)
class Block:
    """A piece of a file as it lies there. `kind`: exif, xmp or text; `name`: of a text."""

    kind: str
    content: bytes
    name: str = ""
    encoding: str = "utf-8"


def _unpacked(packed: bytes) -> bytes:
    """A zlib stream of at most LARGEST_BLOCK. Raises ValueError for more, or a broken one."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, LARGEST_BLOCK + 1)
    except zlib.error as error:
        raise ValueError(f"broken compression: {error}") from error
    if len(content) > LARGEST_BLOCK:
        raise ValueError(f"over {LARGEST_BLOCK:,} bytes when unpacked")
    if not stream.eof:
        raise ValueError("broken compression: it ends early")
    return content


def _png_block(kind: bytes, content: bytes) -> Block | None:
    """The block of a chunk (PNG specification, 11.3.3); None for a chunk without text. Raises
    ValueError."""
    if kind == b"eXIf":
        return Block("exif", content)
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return None
    name, _, rest = content.partition(b"\0")
    if kind == b"tEXt":
        text, encoding = rest, "latin-1"
    elif kind == b"zTXt":
        text, encoding = _unpacked(rest[1:]), "latin-1"
    else:
        *_, text = rest[2:].split(b"\0", 2)  # behind the language and the translated name
        text, encoding = _unpacked(text) if rest[:1] == b"\1" else text, "utf-8"
    title = name.decode("latin-1")
    return Block("xmp", text) if title == PNG_XMP else Block("text", text, title, encoding)


def _png_blocks(content: bytes, problems: Problems) -> Iterator[Block]:
    """Blocks of a PNG, wherever they stand. Pillow gives up on all of them for a bad one, and
    unpacks those behind the pixels with the pixels alone."""
    start = len(PNG)
    while start < len(content):
        size, kind = struct.unpack(">I4s", content[start : start + 8].ljust(8, b"\0"))
        body = content[start + 8 : start + 8 + size]
        name = kind.decode("latin-1")
        (checksum,) = struct.unpack(">I", content[start + 8 + size :][:4].ljust(4, b"\0"))
        if len(body) < size or checksum != zlib.crc32(kind + body):
            problems.append(f"PNG: the chunk {name} is damaged or cut off")
            return
        try:
            if size > LARGEST_BLOCK and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                raise ValueError(f"over {LARGEST_BLOCK:,} bytes")
            if block := _png_block(kind, body):
                yield block
        except ValueError as error:
            problems.append(f"PNG {name}: {error}")
        if kind == b"IEND":
            return
        start += 12 + size


def _webp_blocks(content: bytes, problems: Problems) -> Iterator[Block]:
    """Blocks of a WebP. Pillow would get memory for its pixels first."""
    kinds = {b"EXIF": "exif", b"XMP ": "xmp"}
    end = min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    start = 12
    while start + 8 <= end:
        name, size = struct.unpack_from("<4sI", content, start)
        if start + 8 + size > end:
            problems.append(f"WebP: the chunk {name.decode('latin-1')} is cut off")
            return
        if name in kinds:
            yield Block(kinds[name], content[start + 8 : start + 8 + size])
        start += 8 + size + size % 2


def _pillow_blocks(content: bytes, problems: Problems) -> Iterator[Block]:
    """Blocks of the other formats, as Pillow's readers of their headers find them."""
    register_formats()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            info, tiff = image.info, image.format == "TIFF"
            exif = image.getexif().tobytes() if tiff else info.get("exif")
            iptc = IptcImagePlugin.getiptcinfo(image) or {}
    except UnidentifiedImageError:  # whose text has an address that is another each time
        problems.append("metadata cannot be read: not a picture in any known format")
        return
    # Pillow raises almost any type on broken metadata.
    except Exception as error:
        problems.append(f"metadata cannot be read: {reason(error)}")
        return
    if exif:
        yield Block("exif", exif)
    for kind, name in (("xmp", ""), ("text", "comment")):
        if value := info.get(name or kind):
            yield Block(kind, value.encode() if isinstance(value, str) else value, name)
    for (record, dataset), values in iptc.items():
        for value in values if isinstance(values, list) else [values]:
            if record == 2 and dataset in IPTC_FIELDS:
                yield Block("iptc", value, IPTC_FIELDS[dataset])


def _blocks(content: bytes, problems: Problems) -> Iterator[Block]:
    if content.startswith(PNG):
        return _png_blocks(content, problems)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp_blocks(content, problems)
    return _pillow_blocks(content, problems)


def user_comment(value: bytes) -> str:
    """The text of EXIF's UserComment, whose first eight bytes name its encoding (Exif 3.0, 4.6.6).
    Writers do not agree on the order of UNICODE's bytes: that of Latin letters decides."""
    code, text = value[:8], value[8:]
    if code.startswith(b"UNICODE"):
        order = "be" if text[0::2].count(0) >= text[1::2].count(0) else "le"
        return text.decode(f"utf-16-{order}", "replace")
    known = code.rstrip(b"\0") in (b"", b"ASCII", b"JIS")
    return (text if known else value).decode("utf-8", "replace")


def _exif_fields(content: bytes) -> Iterator[Field]:
    """EXIF_FIELDS of a block. Raises whatever Pillow does on a broken one."""
    exif = Image.Exif()
    exif.load(content)
    tags = dict(exif) | exif.get_ifd(ExifTags.IFD.Exif)
    for name in EXIF_FIELDS:
        value = tags.get(ExifTags.Base[name])
        if isinstance(value, bytes):
            value = user_comment(value)
        if isinstance(value, str) and (text := value.strip("\0 ")):
            yield Field(name, text, f"EXIF {name}")


def _xmp_fields(content: bytes) -> Iterator[Field]:
    """Properties of an XMP packet. Raises ValueError."""
    for prefix, name, text in properties(content):
        yield Field(name, text, f"XMP {prefix}:{name}")


PARSERS: dict[str, Callable[[bytes], Iterator[Field]]] = {"exif": _exif_fields, "xmp": _xmp_fields}


def _fields_of(block: Block, container: str) -> list[Field]:
    """The fields of one block. Raises whatever its parser does."""
    if block.kind in PARSERS:
        return list(PARSERS[block.kind](block.content))
    place = "IPTC" if block.kind == "iptc" else container
    text = block.content.decode(block.encoding, "replace").strip("\0 ")
    return [Field(block.name, text, f"{place} {block.name}")] if text else []


def fields(content: bytes) -> tuple[list[Field], Problems]:
    """Fields of a picture's file in the order of the file, and what could not be read."""
    problems: Problems = []
    rows: list[Field] = []
    container = "PNG" if content.startswith(PNG) else "file"
    left = LARGEST_TEXT
    for block in _blocks(content, problems):
        if len(block.content) > min(LARGEST_BLOCK, left):
            problems.append(f"{block.kind} {block.name or 'block'}: too large, left out")
            continue
        left -= len(block.content)
        try:
            rows += _fields_of(block, container)
        # A reader of a broken block raises almost any type; the others still have something to say.
        except Exception as error:
            problems.append(f"{block.kind}: {reason(error)}")
    return rows, problems

"""What metadata in pictures' files says of their origin, of honest files and of hostile ones."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.credentials import reading
from engine.credentials.fields import fields
from engine.credentials.reading import as_lines, as_row, credentials
from engine.credentials.statements import LONGEST, MOST, statements

JOB = "Job ID: 01234567-89ab-cdef-0123-456789abcdef"
WEB_UI = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
SAID = "a cat Negative prompt: dog Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
GRAPH = json.dumps({"3": {"class_type": "KSampler", "inputs": {"ckpt_name": "sd.safetensors"}}})
WORKFLOW = json.dumps({"nodes": [], "links": []})
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
TYPE = "DigitalSourceType"
AIGC = json.dumps({"Label": "1", "ContentProducer": "somebody"})
NAMESPACES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:t="http://www.tc260.org.cn/ns/AIGC/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dcterms="http://purl.org/dc/terms/"'
)


def packet(attributes: str = "", inner: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMESPACES}>'
        f"<rdf:Description {attributes}>{inner}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def png(**texts: str | bytes) -> bytes:
    """A PNG with texts under names whose `_` stands for `-`; bytes are its XMP."""
    info = PngInfo()
    for name, text in texts.items():
        if isinstance(text, bytes):
            info.add_itxt("XML:com.adobe.xmp", text.decode())
        else:
            info.add_text(name.replace("sd_", "sd-"), text)
    return saved("PNG", pnginfo=info)


def saved(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    make_picture(1, fake=True).save(stream, kind, **options)
    return stream.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heic(exif: bytes = b"", xmp: bytes = b"") -> bytes:
    """A HEIC with an item of EXIF or of XMP beside its picture (ISO 14496-12, 8.11; 23008-12)."""
    plain = (Path(__file__).parent / "pictures" / "two_colours.heic").read_bytes()
    (size,) = struct.unpack_from(">I", plain, 28)
    meta, pixels = plain[36 : 28 + size], plain[28 + size :]
    # Its parts lie one behind the other: index and names of items, the picture's number, the rest.
    head, index, names, rest = meta[:37], meta[37:71], meta[71:106], meta[106:]
    about = b"Exif\0" if exif else b"mime\0application/rdf+xml\0"
    item = box(b"infe", bytes((2, 0, 0, 0, 0, 2, 0, 0)) + about[:4] + b"\0" + about[5:])
    names = box(b"iinf", names[8:12] + b"\0\2" + names[14:] + item)
    # The item describes the picture, number 1.
    described = box(b"iref", bytes(4) + box(b"cdsc", struct.pack(">HHH", 2, 1, 1)))
    grown = 18 + len(names) - 35 + len(described)
    # EXIF begins with the distance to its TIFF header, behind "Exif" and two zeros.
    content = struct.pack(">I", 6) + exif if exif else xmp
    place = len(plain) + grown + 8
    entries = struct.pack(">HHIHII", 1, 0, 417 + grown, 1, 0, 38)
    entries += struct.pack(">HHIHII", 2, 0, place, 1, 0, len(content))
    index = box(b"iloc", index[8:14] + b"\0\2" + entries)
    meta = box(b"meta", head + index + names + rest[:14] + described + rest[14:])
    return plain[:28] + meta + pixels + box(b"mdat", content)


def exif(**tags: str | bytes) -> bytes:
    block = Image.Exif()
    numbers = {"Make": 0x10F, "Model": 0x110, "Software": 0x131, "ImageDescription": 0x10E}
    for name, text in tags.items():
        if name == "UserComment":
            block.get_ifd(0x8769)[0x9286] = text
        else:
            block[numbers[name]] = text
    return block.tobytes()


def with_iptc(dataset: int, text: str) -> bytes:
    """A JPEG whose APP13 segment has one dataset of record 2."""
    row = struct.pack(">BBBH", 0x1C, 2, dataset, len(text)) + text.encode()
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(row)) + row
    segment = b"\xff\xed" + struct.pack(">H", len(block) + 2 + len(block) % 2)
    plain = saved("JPEG")
    return plain[:2] + segment + block + b"\0" * (len(block) % 2) + plain[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(content: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    return content[:33] + b"".join(chunks) + content[33:]


UNICODE, ASCII = b"UNICODE\0", b"ASCII\0\0\0"
COMMENT = {
    "be": UNICODE + WEB_UI.encode("utf-16-be"),
    "le": UNICODE + WEB_UI.encode("utf-16-le"),
    "ascii": ASCII + WEB_UI.encode(),
}
WEB_UI_SAYS = {("generator", "Stable Diffusion web UI"), ("settings", SAID)}
COMFY_SAYS = {("generator", "ComfyUI"), ("settings", "models sd.safetensors")}
TRAINED_SAYS = {("source_type", "trainedAlgorithmicMedia")}
LABEL_SAYS = {("label", "AIGC 1 (generated), by somebody")}
QUOTED = AIGC.replace('"', "&quot;")
DESCRIBED: dict[str, tuple[Callable[[], bytes], set[tuple[str, str]]]] = {
    "web UI, PNG": (lambda: png(parameters=WEB_UI), WEB_UI_SAYS),
    "web UI, JPEG": (lambda: saved("JPEG", exif=exif(UserComment=COMMENT["be"])), WEB_UI_SAYS),
    "web UI, WebP": (lambda: saved("WEBP", exif=exif(UserComment=COMMENT["le"])), WEB_UI_SAYS),
    "web UI, AVIF": (lambda: saved("AVIF", exif=exif(UserComment=COMMENT["ascii"])), WEB_UI_SAYS),
    "web UI, HEIC": (lambda: heic(exif=exif(UserComment=COMMENT["ascii"])), WEB_UI_SAYS),
    "source type, HEIC": (
        lambda: heic(xmp=packet(f'i:DigitalSourceType="{TRAINED}"')), TRAINED_SAYS,
    ),
    "source type, AVIF": (
        lambda: saved("AVIF", xmp=packet(f'i:DigitalSourceType="{TRAINED}"')), TRAINED_SAYS,
    ),
    "web UI, GIF": (lambda: saved("GIF", comment=WEB_UI.encode()), WEB_UI_SAYS),
    "ComfyUI, PNG": (lambda: png(prompt=GRAPH, workflow=WORKFLOW), COMFY_SAYS),
    "ComfyUI, WebP": (
        lambda: saved("WEBP", exif=exif(Model=f"prompt:{GRAPH}", Make=f"workflow:{WORKFLOW}")),
        COMFY_SAYS,
    ),
    "InvokeAI": (
        lambda: png(invokeai_metadata='{"app_version": "5.1", "model": {"name": "flux"}}'),
        {("generator", "InvokeAI 5.1"), ("settings", "models flux")},
    ),
    "InvokeAI, old": (lambda: png(sd_metadata="{}"), {("generator", "InvokeAI")}),
    "NovelAI": (
        lambda: png(Software="NovelAI", Source="NovelAI Diffusion V4.5 B9F340FD"),
        {("generator", "NovelAI"), ("generator", "NovelAI Diffusion V4.5 B9F340FD")},
    ),
    "Midjourney": (
        lambda: png(Description=f"a fox --v 7 {JOB}", Author="somebody"),
        {("generator", "Midjourney"), ("settings", f"a fox --v 7 {JOB}")},
    ),
    "DALL-E": (lambda: saved("TIFF", tiffinfo={305: "DALL-E 3"}), {("generator", "DALL-E 3")}),
    "Firefly": (
        lambda: saved("JPEG", xmp=packet('xmp:CreatorTool="Adobe Firefly"')),
        {("generator", "Adobe Firefly")},
    ),
    "credit in IPTC": (
        lambda: with_iptc(110, "Made with Google AI"),
        {("generator", "Made with Google AI")},
    ),
    "source type, attribute": (
        lambda: saved("WEBP", xmp=packet(f'i:DigitalSourceType="{TRAINED}"')),
        TRAINED_SAYS,
    ),
    "source type, element": (
        lambda: saved("JPEG", xmp=packet("", f"<i:{TYPE}>{TRAINED}</i:{TYPE}>")),
        TRAINED_SAYS,
    ),
    "source type, resource": (
        lambda: png(xmp=packet("", f'<i:DigitalSourceType rdf:resource="{TRAINED}"/>')),
        TRAINED_SAYS,
    ),
    "AIGC, XMP": (lambda: png(xmp=packet(f't:AIGC="{QUOTED}"')), LABEL_SAYS),
    "AIGC, PNG": (lambda: png(AIGC=AIGC), LABEL_SAYS),
    "AIGC, EXIF": (
        lambda: saved("JPEG", exif=exif(UserComment=ASCII + f'{{"AIGC": {AIGC}}}'.encode())),
        LABEL_SAYS,
    ),
    "camera": (
        lambda: saved("JPEG", exif=exif(Make="Canon", Model="EOS R5", Software="Firmware 1.8")),
        {("camera", "Canon"), ("camera", "EOS R5"), ("software", "Firmware 1.8")},
    ),
    "remote manifest": (
        lambda: saved("JPEG", xmp=packet('dcterms:provenance="https://a.example/m.c2pa"')),
        {("remote_manifest", "https://a.example/m.c2pa")},
    ),
    "nothing": (lambda: png(Comment="a prompt of mine", Title="A cat, by me"), set()),
}  # fmt: skip


def told(content: bytes) -> set[tuple[str, str]]:
    """Kinds and texts of what the metadata of a file that is not damaged says."""
    rows, problems = fields(content)
    assert problems == []
    return {(statement.kind, statement.text) for statement in statements(rows)}


@pytest.mark.parametrize("name", DESCRIBED)
def test_what_generators_and_cameras_write_is_told(name: str) -> None:
    content, expected = DESCRIBED[name]
    assert told(content()) == expected


def test_a_statement_names_its_place() -> None:
    rows, _ = fields(saved("JPEG", exif=exif(Make="Canon"), xmp=packet('xmp:CreatorTool="Any"')))
    assert [s.where for s in statements(rows)] == ["EXIF Make", "XMP xmp:CreatorTool"]
    assert {s.where for s in statements(fields(png(parameters="x"))[0])} == {"PNG parameters"}


# --- hostile files

ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
TOO_DEEP = "[" * 200_000
GOOD = chunk(b"tEXt", b"Software\0NovelAI")


def text(name: bytes, body: bytes) -> bytes:
    return chunk(b"tEXt", name + b"\0" + body)


def xmp_chunk(body: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + body)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zlib bomb": (
        lambda: chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))),
        "zTXt: over 2,097,152 bytes",
    ),
    "zlib bomb of XMP": (
        lambda: chunk(
            b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<" * (3 << 20))
        ),
        "iTXt: over 2,097,152 bytes",
    ),
    "cut zlib": (lambda: chunk(b"zTXt", b"a\0\0" + zlib.compress(b"abc")[:-2]), "ends early"),
    "no zlib": (lambda: chunk(b"zTXt", b"a\0\0abcdef"), "broken compression"),
    "oversized": (lambda: text(b"Comment", bytes(3 << 20)), "tEXt: over 2,097,152 bytes"),
    "many large ones": (lambda: text(b"Comment", b"a" * ((2 << 20) - 9)) * 5, "too large"),
    "XML entities": (lambda: xmp_chunk(ENTITIES), "DTD or entities"),
    "XML with a DTD": (lambda: xmp_chunk(b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>'), "DTD"),
    "no XML": (lambda: xmp_chunk(b"<x>"), "no well-formed XML"),
    "deep XML": (lambda: xmp_chunk(b"<x>" * 20_000), "no well-formed XML"),
    "broken EXIF": (lambda: chunk(b"eXIf", b"no TIFF"), "exif"),
    "deep JSON": (lambda: text(b"prompt", f'{{"a": {TOO_DEEP}'.encode()), ""),
    "deep JSON, AIGC": (lambda: text(b"invokeai_metadata", f'{{"a":{TOO_DEEP}'.encode()), ""),
    "no texts": (lambda: text(b"", b"") + text(b"parameters", b"") + chunk(b"iTXt", b"a\0"), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_block_costs_a_line_and_no_other_block(name: str) -> None:
    hostile, problem = HOSTILE[name]
    rows, problems = fields(with_chunks(saved("PNG"), hostile(), GOOD))
    assert ("generator", "NovelAI") in {(s.kind, s.text) for s in statements(rows)}
    assert (problem in problems[0]) if problem else problems == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_of_a_file_cut_anywhere_what_is_whole_is_told(kind: str) -> None:
    whole = saved(kind, **({"pnginfo": None} if kind == "PNG" else {"exif": exif(Make="Canon")}))
    for size in range(0, len(whole), max(1, len(whole) // 40)):
        rows, _ = fields(whole[:size])
        assert {(s.kind, s.text) for s in statements(rows)} <= {("camera", "Canon")}


def test_a_damaged_chunk_is_no_valid_container() -> None:
    damaged = bytearray(with_chunks(saved("PNG"), GOOD))
    damaged[33 + 10] ^= 1
    rows, (problem,) = fields(bytes(damaged))
    assert rows == []
    assert "tEXt is damaged" in problem


def test_texts_are_bounded_on_one_line_and_printable() -> None:
    hostile = "a\x1b[2J\u202e\n" + "x" * 10_000 + f" {JOB}"
    info = PngInfo()
    info.add_itxt("Description", hostile)
    for number in range(2 * MOST):
        info.add_text("Software", f"program {number}")
    told_of = credentials(saved("PNG", pnginfo=info))
    assert len(told_of.statements) == MOST
    for line in [*as_lines(told_of), *(s.text for s in told_of.statements)]:
        assert line.isprintable()
        assert len(line) < LONGEST + 100
    assert told_of.statements[1].text.startswith("a\\x1b[2J\\u202e x")


def dies(_: bytes) -> dict[str, Any]:
    import os

    os._exit(3)


def raises(_: bytes) -> dict[str, Any]:
    raise RecursionError("too\ndeep")


@pytest.mark.parametrize(("reader", "problem"), [(dies, "no answer"), (raises, "too deep")])
def test_whatever_a_file_does_to_its_reader_the_caller_goes_on(
    reader: Callable[..., Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_metadata", reader)
    told_of = credentials(png(parameters=WEB_UI))
    assert told_of.statements == ()
    assert problem in told_of.problems[0]
    assert as_row(told_of) == ("none", "", "")

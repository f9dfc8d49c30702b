"""Decoding: what is a picture, what one may take, and what it costs a run when it takes more."""

from __future__ import annotations

import io
import os
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from cli_runner import Cli, cli, weights
from conftest import ROOT, make_picture
from PIL import Image
from training import Parts, run

from datasets import Record, _images
from datasets._images import Draw, PictureDataset, Sample, decode, open_picture
from datasets._limits import Limits
from engine.runtime import workers
from engine.runtime.workers import Pool, Workers, in_turn

__all__ = ["cli", "weights"]  # fixtures

HEIC = ROOT / "tests" / "pictures" / "two_colours.heic"
SIZE = (48, 32)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(
        ">I", zlib.crc32(name + content)
    )  # fmt: skip


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    return b"".join([png[:33], *chunks, png[33:]])


def records_in(folder: Path, count: int) -> list[Record]:
    """Records of small PNGs, each with a marker in its bytes."""
    found = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        png = encoded(make_picture(number, fake=bool(number % 2)), "PNG")
        path.write_bytes(with_chunks(png, chunk(b"teSt", b"number %03d" % number)))
        found.append(Record(path.name, path))
    return found


def when_decoding(
    monkeypatch: pytest.MonkeyPatch, numbers: set[int], action: Callable[[], object]
) -> None:
    """Does `action` in the middle of decoding the pictures of these numbers."""
    plain = _images._decoded

    def decoded(content: bytes, decoding: str) -> Image.Image:
        if any(b"number %03d" % number in content for number in numbers):
            action()
        return plain(content, decoding)

    monkeypatch.setattr(_images, "_decoded", decoded)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spin() -> None:
    while True:
        pass


def as_array(image: Image.Image, _: object) -> np.ndarray:
    return np.asarray(image)


def mean(image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
    return torch.tensor([np.asarray(image).mean(), rng.random()])


def items(
    records: list[Record], workers: Workers, transform: Any = mean, batch_size: int = 4
) -> list[Sample]:
    dataset = PictureDataset(records, transform, limits=workers.limits)
    return [item for some in in_turn(dataset, batch_size, workers) for item in some]


def plain(found: list[Sample]) -> list[tuple[Any, ...]]:
    return [
        (i.index, i.error, i.width, i.height, None if i.value is None else i.value.tolist())
        for i in found
    ]


# --- what is a picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF",
                                  "PPM", "TGA", "MPO"])  # fmt: skip
def test_formats_of_cameras_and_generators_are_read(kind: str) -> None:
    picture = make_picture(0, fake=False, size=SIZE)
    several = {"save_all": True, "append_images": [picture]} if kind == "MPO" else {}
    found = decode(encoded(picture, kind, **several))
    assert (found.mode, found.size) == ("RGB", SIZE)
    assert np.abs(np.asarray(found, int) - np.asarray(picture, int)).mean() < 20


def test_heic_is_read_by_the_default_set_up(cli: Cli) -> None:
    pixels = np.asarray(open_picture(HEIC), int)
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels[:, :20].mean((0, 1)) - (200, 40, 40)).max() < 8
    assert np.abs(pixels[:, 28:].mean((0, 1)) - (30, 60, 200)).max() < 8
    [row] = cli("--json", "--input", HEIC).rows
    assert (row["error"], row["width"], row["height"]) == (None, *SIZE)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n"
PSD = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 32, 48, 8, 3) + bytes(14) + bytes(32 * 48 * 3)
FITS = b"".join(
    line.ljust(80).encode()
    for line in ("SIMPLE  =                    T", "BITPIX  =                    8",
                 "NAXIS   =                    2", "NAXIS1  =                   48",
                 "NAXIS2  =                   32", "END")
).ljust(2880) + bytes(2880)  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [EPS, PSD, FITS, encoded(make_picture(0, False, (64, 64)), "ICNS"),
     encoded(make_picture(0, False, SIZE), "PCX"), encoded(make_picture(0, False, SIZE), "SGI")],
    ids=["eps", "psd", "fits", "icns", "pcx", "sgi"],
)  # fmt: skip
def test_other_formats_are_no_pictures_whatever_their_name(
    cli: Cli, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("ran Ghostscript"))
    (tmp_path / "photo.jpg").write_bytes(content)
    [row] = cli("--json", "--workers", 0, "--input", tmp_path / "photo.jpg").rows
    assert row["error"] == "not a picture in any known format"


# --- broken metadata, or too much


def exif(orientation: bytes) -> bytes:
    """A TIFF header with an orientation of these 10 bytes: type, count, value."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12" + orientation + bytes(4)


NAN = exif(struct.pack(">HIf", 11, 1, float("nan")))
TEXT = zlib.compress(b"workflow" * (5 << 20))
BROKEN = {
    "no TIFF": b"no TIFF at all",
    "NaN": NAN,
    "cut": exif(struct.pack(">HIHH", 3, 1, 6, 0))[:14],
    "far away": exif(struct.pack(">HII", 5, 1 << 30, 1 << 31)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_broken_exif_is_no_reason_not_to_score(name: str, kind: str) -> None:
    picture = make_picture(1, fake=True, size=SIZE)
    given = encoded(picture, kind, exif=b"Exif\0\0" + exif(struct.pack(">HIHH", 3, 1, 1, 0)))
    good = exif(struct.pack(">HIHH", 3, 1, 1, 0))
    if kind == "PNG":
        content = with_chunks(encoded(picture, kind), chunk(b"eXIf", BROKEN[name]))
    elif kind == "TIFF":
        # Its own directory is what holds the orientation.
        at = given.find(b"\x12\x01\x03\0\x01\0\0\0\x01\0")
        wrong = b"\x12\x01" + struct.pack("<HIf", 11, 1, float("nan"))
        content = given[:at] + wrong + given[at + len(wrong) :] if at > 0 else given
    else:
        content = given.replace(good, BROKEN[name].ljust(len(good), b"\xff")[: len(good)])
        assert content != given
    assert decode(content).tobytes() == decode(encoded(picture, kind)).tobytes()


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"zTXt", b"workflow\0\0" + TEXT)],
        [chunk(b"iTXt", b"workflow\0\x01\0\0\0" + TEXT)],
        [chunk(b"iCCP", b"profile\0\0" + TEXT)],
        [chunk(b"tEXt", b"prompt\0" + b"x" * (1 << 20))] * 70,
        [chunk(b"pHYs", b"short")],
        [chunk(b"zTXt", b"a\0\0no zlib at all")],
    ],
    ids=["zTXt", "iTXt", "iCCP", "70 MB", "pHYs", "no zlib"],
)
def test_text_and_profiles_of_any_size_do_not_matter(chunks: list[bytes]) -> None:
    """A ComfyUI workflow is text of several MB."""
    picture = make_picture(1, fake=True, size=SIZE)
    assert decode(with_chunks(encoded(picture, "PNG"), *chunks)).tobytes() == picture.tobytes()


def test_broken_metadata_of_a_tiff_does_not_matter() -> None:
    picture = make_picture(1, fake=True, size=SIZE)
    known = {269: "name", 270: "text", 271: "maker", 305: "program", 700: b"xmp", 34675: b"icc"}
    exif = Image.Exif()
    exif.update(known | {274: 1})
    for compression in (None, "tiff_lzw"):
        tiff = encoded(picture, "TIFF", exif=exif, compression=compression)
        start = struct.unpack_from("<I", tiff, 4)[0] + 2
        for tag in (*known, 274):
            at = tiff.index(struct.pack("<H", tag), start)
            for kind, count, value in ((2, 9, 1 << 31), (5, 1 << 31, 8), (12, 1, 9), (99, 0, 0)):
                entry = struct.pack("<HHII", tag, kind, count, value)
                found = decode(tiff[:at] + entry + tiff[at + 12 :])
                assert found.tobytes() == picture.tobytes(), (tag, kind)


def test_broken_exif_of_an_avif_does_not_matter() -> None:
    """Its decoder refuses the file, not its pixels."""
    avif = encoded(make_picture(1, fake=True, size=SIZE), "AVIF", exif=exif(b"\0\x03" + bytes(8)))
    broken = avif.replace(b"MM\0*\0\0\0\x08", b"no TIFF.")
    assert broken != avif
    assert decode(broken).tobytes() == decode(avif).tobytes()


def test_broken_segments_of_a_jpeg_do_not_matter() -> None:
    jpeg = encoded(make_picture(1, fake=True, size=SIZE), "JPEG")
    for kind in (0xE1, 0xE2, 0xED):
        for start in (b"Exif\0\0", b"MPF\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0"):
            content = start + b"MM\0*\0\0\0\x08\0\x05\xb0\0\0\0\0"
            segment = struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content
            found = decode(jpeg[:2] + segment + jpeg[2:])
            assert found.tobytes() == decode(jpeg).tobytes(), (kind, start)
    short = b"\xff\xee\x00\x07Adobe"
    assert decode(jpeg[:2] + short + jpeg[2:]).tobytes() == decode(jpeg).tobytes()


# --- limits


def test_more_pixels_than_allowed_are_not_decoded(cli: Cli, tmp_path: Path) -> None:
    make_picture(0, fake=True, size=(200, 100)).save(tmp_path / "a.png")
    make_picture(0, fake=True, size=(100, 100)).save(tmp_path / "b.png")
    done = cli("--json", "--max_megapixels", 0.015, "--input", tmp_path)
    assert done.status == 1
    large, small = done.rows
    assert "0.015 megapixels" in large["error"] and "--max_megapixels" in large["error"]
    assert small["error"] is None
    assert cli("--input", tmp_path).status == 0


def canvas(kind: str) -> bytes:
    """A small file of 900 megapixels or more."""
    if kind == "GIF":
        size = struct.pack("<HH", 65_000, 65_000)
        image = b"," + bytes(4) + size + b"\0\x02\x02\x4c\x01\0;"
        return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + image
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")


@LINUX
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_too_much_memory_costs_one_picture(cli: Cli, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(canvas(kind))
    make_picture(0, fake=True).save(tmp_path / "b.png")
    flags = ("--json", "--workers", 1, "--picture_memory", 0.25, "--max_megapixels", 10_000)
    large, small = cli(*flags, "--input", tmp_path / "a", tmp_path / "b.png").rows
    assert "0.25 GiB (--picture_memory)" in large["error"]
    assert large["score"] is None
    assert small["error"] is None


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (die, "SIGKILL"),
        (spin, "--picture_seconds"),
        (os.abort, "SIGABRT"),
        (lambda: os._exit(7), "status 7"),
    ],
    ids=["killed", "endless", "aborts", "exits"],
)
def test_a_decoder_that_dies_costs_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object], reason: str
) -> None:
    records = records_in(tmp_path, 12)
    expected = plain(items(records, Workers(0)))
    when_decoding(monkeypatch, {0, 5, 6, 11}, action)
    found = items(records, Workers(2, Limits(seconds=0.3)))
    for number, (item, whole) in enumerate(zip(plain(found), expected, strict=True)):
        if number in (0, 5, 6, 11):
            assert reason in item[1] and item[2:] == (None, None, None)
        else:
            assert item == whole


@pytest.mark.parametrize("count", [1, 3])
def test_items_do_not_depend_on_processes(tmp_path: Path, count: int) -> None:
    records = records_in(tmp_path, 23)
    records[7].path.write_bytes(b"text")
    for transform in (mean, as_array):
        expected = plain(items(records, Workers(0), transform))
        assert plain(items(records, Workers(count), transform)) == expected


def test_a_killed_process_costs_a_row_and_the_run_goes_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    records_in(folder, 9)
    use = ("--json", "--workers", 1, "--input", folder)
    whole = {Path(row["path"]).name: row for row in cli(*use).rows}
    when_decoding(monkeypatch, {4}, die)
    done = cli(*use, "--output", tmp_path / "out")
    assert (done.status, len(done.rows)) == (1, 9)
    for row in done.rows:
        name = Path(row["path"]).name
        assert row["error"] is None or ("SIGKILL" in row["error"] and name == "004.png")
        if row["error"] is None:
            assert abs(row["logit"] - whole[name]["logit"]) < 1e-5
    again = cli(*use, "--output", tmp_path / "out", "--resume")
    assert (again.status, again.rows) == (1, [])


def test_training_counts_a_killed_process_as_a_bad_file(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = parts[0][3].path.read_bytes()
    decoded = _images._decoded
    monkeypatch.setattr(
        _images,
        "_decoded",
        lambda content, way: die() if content == bad else decoded(content, way),
    )
    run(tmp_path, parts, workers=2, max_bad=0.5)
    lines = (tmp_path / "bad_files.csv").read_text().splitlines()
    assert len(lines) == 2 and parts[0][3].key in lines[1] and "SIGKILL" in lines[1]


# --- processes


class OwnError(Exception):
    """An error that cannot be rebuilt from its message."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__(first)


@pytest.mark.parametrize("error", [ValueError("as asked for"), OwnError("as asked", "for")])
def test_an_error_of_the_program_is_raised_with_its_traceback(
    tmp_path: Path, error: Exception
) -> None:
    def fail(image: Image.Image, rng: object) -> object:
        raise error

    with pytest.raises((ValueError, RuntimeError), match="as asked") as caught:
        items(records_in(tmp_path, 3), Workers(1), fail)
    assert "in fail" in str(caught.value) + "".join(getattr(caught.value, "__notes__", []))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 5
    while pids & children() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not pids & children()


def test_processes_live_from_epoch_to_epoch_and_end_with_their_pool(tmp_path: Path) -> None:
    records = records_in(tmp_path, 8)
    before = children()
    pool = Pool(PictureDataset(records, mean), Workers(2))
    epochs = []
    for epoch in range(2):
        draws = [[Draw(i, epoch), Draw(i, epoch, 1)] for i in range(8)]
        assert [item.index for some in pool.batches(draws) for item in some] == [
            i for i in range(8) for _ in range(2)
        ]
        epochs.append(children() - before)
    assert 0 < len(epochs[0]) <= 2 and epochs[0] <= epochs[1]
    pool.close()
    assert gone(epochs[1])


@pytest.mark.parametrize(("decoded", "count"), [(True, 1), (False, 3)])
def test_a_process_more_is_started_where_pictures_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: bool, count: int
) -> None:
    monkeypatch.setattr(workers.Future, "done", lambda _: decoded)
    before = children()
    pool = Pool(PictureDataset(records_in(tmp_path, 9), mean), Workers(3))
    assert [item.index for [item] in pool.batches([i] for i in range(9))] == [*range(9)]
    assert len(children() - before) == count
    pool.close()


def test_processes_are_forked_by_the_thread_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread would fork while the network computes, with locks held."""
    start, threads = workers.CONTEXT.Process.start, []
    monkeypatch.setattr(
        workers.CONTEXT.Process,
        "start",
        lambda process: (threads.append(threading.current_thread()), start(process)),
    )
    items(records_in(tmp_path, 9), Workers(3))
    assert 0 < len(threads) <= 3 and set(threads) == {threading.current_thread()}


def test_processes_end_when_nobody_asks_for_the_rest(tmp_path: Path) -> None:
    before, threads = children(), threading.active_count()
    dataset = PictureDataset(records_in(tmp_path, 40), mean)
    turns = in_turn(dataset, 2, Workers(2))
    next(turns)
    assert children() - before
    del turns
    assert threading.active_count() == threads  # one that is left aborts the interpreter's end
    assert gone(children() - before)

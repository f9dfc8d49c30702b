"""Every kind of bad or unusual picture: a row with its error or the right score, never a crash."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, cli, weights
from conftest import make_picture, read_csv
from PIL import Image

from datasets._images import UnreadablePicture, open_picture

__all__ = ["cli", "weights"]  # fixtures

SIZE = (90, 70)
NAMES = (
    b"two words.png",
    "ünï-文字-🙂.png".encode(),
    b"line\nbreak.png",
    b"carriage\rreturn.png",
    b"quote\"s and 'more'.png",
    b"comma,semicolon;tab\t.png",
    b"-leading dash.png",
    b" leading space.png",
    b"100% {x} $HOME \\n.png",
    b"\x1b[31mred.png",
    b"not utf-8 \xff\xfe.png",
)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(size: tuple[int, int], depth: int, colour: int, rows: list[bytes]) -> bytes:
    """A PNG made by hand. `colour`: 0 gray, 2 RGB; `rows`: the samples of each line."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def truncations(data: bytes) -> list[bytes]:
    """Cut within the signature, the headers and the pixels, in the middle and near the end."""
    return [data[:n] for n in (3, 20, 60, len(data) // 2, len(data) - 60)]


BOMBS = {
    "png": png((20_000, 20_000), 8, 2, [bytes(60)]),
    "gif": struct.pack("<6sHHBBB6x", b"GIF89a", 65_000, 65_000, 0x80, 0, 0)
    + struct.pack("<cHHHHB", b",", 0, 0, 65_000, 65_000, 0)
    + b"\x02\x02\x4c\x01\0;",
    "bmp": b"BM" + struct.pack("<IIIIIIHHIIIIII", 99, 0, 54, 40, 20_000, 20_000, 1, 24, *[0] * 6),
}


# What the error of a file says, by the beginning of its name.
REASONS = {
    "text": "not a picture", "empty": "empty", "bomb": "too large", "missing": "no such file",
}  # fmt: skip


def bad_files() -> dict[str, bytes]:
    picture = make_picture(0, fake=False, size=SIZE)
    files = {"text.jpg": b"this is no picture\n" * 50, "empty.png": b""}
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        for number, data in enumerate(truncations(encoded(picture, kind))):
            files[f"cut{number}.{suffix}"] = data
    return files | {f"bomb.{suffix}": data for suffix, data in BOMBS.items()}


# --- pictures that cannot be read


@pytest.mark.parametrize("workers", [0, 1])
def test_each_bad_file_has_a_row_and_the_good_ones_their_scores(
    cli: Cli, tmp_path: Path, workers: int
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    bad = bad_files()
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    for number in range(3):
        make_picture(number, fake=False).save(folder / f"good{number}.png")
    missing = [folder / "missing.jpg", folder / f"{'long' * 100}.jpg", folder / "text.jpg/x.jpg"]

    done = cli("--json", "--workers", workers, "--input", folder, *missing)

    assert done.status == 1
    assert done.err == ""
    rows = {row["path"]: row for row in done.rows}
    wanted = [folder / name for name in (*bad, *(f"good{n}.png" for n in range(3)))]
    assert len(done.rows) == len(rows)
    assert rows.keys() == {str(path) for path in (*wanted, *missing)}
    for path, row in rows.items():
        values = [row[key] for key in ("score", "logit", "label", "width", "height")]
        if Path(path).name.startswith("good"):
            assert row["error"] is None
            assert None not in values
        else:
            assert values == [None] * 5
            assert 5 < len(row["error"]) <= 200 and "\n" not in row["error"]
            stem = Path(path).name.split(".")[0].rstrip("0123456789")
            assert REASONS.get(stem, "") in row["error"]
    assert done.log == [f"{len(bad) + 3} of {len(rows)} pictures could not be read"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_picture_gives_an_error_or_all_its_pixels(tmp_path: Path, kind: str) -> None:
    data = encoded(make_picture(1, fake=True, size=SIZE), kind)
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = np.asarray(open_picture(path))
    errors = 0
    for length in [*range(1, len(data), 41), *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:length])
        try:
            assert np.array_equal(np.asarray(open_picture(path)), whole), length
        except UnreadablePicture:
            errors += 1
    assert errors > len(data) // 41


def peak_memory() -> int:
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", BOMBS)
def test_a_decompression_bomb_takes_neither_time_nor_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(BOMBS[kind])
    # The peak so far must not hide the growth: as much memory as is in use now counts.
    reset = Path("/proc/self/clear_refs")
    if reset.exists() and os.access(reset, os.W_OK):
        reset.write_text("5")
    before, start = peak_memory(), time.perf_counter()
    with pytest.raises(UnreadablePicture, match="too large"):
        open_picture(path)
    assert time.perf_counter() - start < 2
    assert peak_memory() - before < 200e6


def test_bad_pictures_of_an_evaluation_are_rows_and_enter_no_metric(cli: Cli, tree: Path) -> None:
    first = tree / "real" / "000.jpg"
    first.write_bytes(first.read_bytes()[:100])
    (tree / "fake" / "gan" / "001.png").write_bytes(b"")
    (tree / "real" / "line\nbreak.png").write_bytes(b"text")

    output = tree.parent / "eval"
    done = cli("--phase", "eval", "--data", tree, "--output", output)

    assert done.status == 1
    assert "3 of 25 pictures could not be read" in done.log
    rows = {row["key"]: row for row in read_csv(output / "scores.csv")}
    assert len(rows) == 25
    bad = {"real/000.jpg", "fake/gan/001.png", "real/line\nbreak.png"}
    assert {key for key, row in rows.items() if row["error"]} == bad
    assert {key for key, row in rows.items() if not row["logit"]} == bad
    for row in (row for row in rows.values() if row["error"]):
        assert f"1: {row['error']} ({row['key']})" in done.log
    assert any("12.0 % of the pictures could not be read" in line for line in done.log)
    cells = json.loads((output / "result.json").read_text())[""]
    assert cells["gan"]["size"] == 11 + 5
    counts = json.loads((output / "run.json").read_text())["counts"]
    assert (counts["pictures"], counts["unreadable"]) == (25, 3)
    assert "real/000.jpg" in (output / "report.md").read_text("utf-8")


# --- pictures that are unusual


def written(path: Path, content: Image.Image | bytes, **options: object) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, **options)
    return path


def assert_scored_alike(cli: Cli, folder: Path, pairs: dict[str, tuple[Path, Image.Image]]) -> None:
    """Each file has the logit and the size of its picture saved as plain 8-bit RGB PNG."""
    other = written(folder / "other.png", make_picture(99, fake=True))
    files = []
    for name, (path, upright) in pairs.items():
        assert upright.mode == "RGB"
        files += [path, written(folder / f"{name}.plain.png", upright)]
    # One at a time: the last digit of a logit may depend on what shares the batch.
    done = cli("--json", "--batch_size", 1, "--input", *files, other)
    assert done.status == 0, done.out
    *rows, unlike = done.rows
    for name, row, plain in zip(pairs, rows[::2], rows[1::2], strict=True):
        for key in ("logit", "width", "height"):
            assert row[key] == plain[key], (name, key)
        assert row["logit"] != unlike["logit"]


def test_every_depth_and_colour_model_is_seen_as_8_bit_rgb(cli: Cli, tmp_path: Path) -> None:
    picture = make_picture(2, fake=True, size=SIZE)
    pixels = np.asarray(picture)
    gray = picture.convert("L")
    wide = (np.asarray(gray).astype(np.uint16) << 8) + 77
    wide_rgb = (pixels.astype(np.uint16) << 8) + 77
    palette = picture.quantize(200)
    alpha = Image.fromarray(np.tile(np.arange(SIZE[0], dtype=np.uint8), (SIZE[1], 1)))
    both = picture.copy()
    both.putalpha(alpha)
    bit = gray.convert("1")
    files = {
        "gray16": (Image.fromarray(wide), gray.convert("RGB")),
        "rgb16": (png(SIZE, 16, 2, [row.astype(">u2").tobytes() for row in wide_rgb]), picture),
        "alpha": (both, picture),
        "gray_alpha": (Image.merge("LA", (gray, alpha)), gray.convert("RGB")),
        "bit": (bit, Image.fromarray(np.asarray(bit).astype(np.uint8) * 255).convert("RGB")),
    }
    pairs = {
        name: (written(tmp_path / f"{name}.png", content), plain)
        for name, (content, plain) in files.items()
    }
    colours = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    clear = written(tmp_path / "palette.png", palette, transparency=bytes(range(200)))
    assert Image.open(clear).info["transparency"]
    pairs["palette"] = (clear, Image.fromarray(colours))
    assert_scored_alike(cli, tmp_path, pairs)


def test_gray_and_cmyk_jpegs_keep_their_colours(cli: Cli, tmp_path: Path) -> None:
    picture = make_picture(3, fake=False, size=SIZE)
    for mode in ("L", "CMYK"):
        path = written(tmp_path / f"{mode}.jpg", picture.convert(mode), quality=98)
        assert Image.open(path).mode == mode
        expected = np.asarray(picture.convert("L").convert("RGB") if mode == "L" else picture)
        difference = np.asarray(open_picture(path)).astype(int) - expected
        assert abs(difference).mean() < 6, mode
    done = cli("--json", "--input", tmp_path)
    assert done.status == 0
    assert [(row["width"], row["height"]) for row in done.rows] == [SIZE, SIZE]


def test_the_first_frame_of_an_animation_counts(cli: Cli, tmp_path: Path) -> None:
    frames = [make_picture(seed, fake=False, size=SIZE).quantize(64) for seed in range(3)]
    gif = written(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    plain = [frame.convert("RGB") for frame in frames]
    webp = tmp_path / "a.webp"
    plain[0].save(webp, save_all=True, append_images=plain[1:], lossless=True, exact=True)
    assert Image.open(gif).n_frames == Image.open(webp).n_frames == 3
    assert_scored_alike(cli, tmp_path, {"gif": (gif, plain[0]), "webp": (webp, plain[0])})


def test_a_picture_turned_by_exif_is_scored_upright(cli: Cli, tmp_path: Path) -> None:
    turns = Image.Transpose
    upright = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    picture = make_picture(5, fake=True, size=SIZE)
    pairs = {}
    for orientation, turn in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = written(tmp_path / f"{orientation}.jpg", picture, exif=exif, quality=90)
        stored = Image.open(path)
        assert stored.size == SIZE
        pairs[str(orientation)] = (path, stored.transpose(turn))
    assert {plain.size for _, plain in pairs.values()} == {SIZE, SIZE[::-1]}
    assert_scored_alike(cli, tmp_path, pairs)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 2)])
def test_tiny_and_narrow_pictures_have_a_score(
    cli: Cli, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size, (200, 30, 90)).save(tmp_path / "a.png")
    done = cli("--json", "--input", tmp_path)
    assert done.status == 0
    [row] = done.rows
    assert 0 <= row["score"] <= 1
    assert (row["width"], row["height"]) == size


# --- names


@pytest.fixture
def named(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with oddly named pictures, every other one broken, and their paths in order."""
    folder = tmp_path / "named"
    folder.mkdir()
    picture = encoded(make_picture(0, fake=False), "PNG")
    paths = []
    for number, name in enumerate(NAMES):
        path = folder / os.fsdecode(name)
        try:
            path.write_bytes(picture if number % 2 else b"broken")
        except OSError:
            continue  # some file systems refuse some names
        paths.append(str(path))
    return folder, sorted(paths, key=lambda path: Path(path).name)


def test_odd_names_come_back_as_they_are(cli: Cli, named: tuple[Path, list[str]]) -> None:
    """Of a folder, one by one, on standard input unless they have line ends, and in the table."""
    folder, paths = named
    output = folder.parent / "out"
    done = cli("--json", "--input", folder, "--output", output)
    assert done.status == 1
    assert [row["path"] for row in done.rows] == paths
    assert [row["path"] for row in done.rows if row["error"]] == [
        path for path in paths if Path(path).read_bytes() == b"broken"
    ]
    assert [row["path"] for row in cli("--json", "--input", *paths).rows] == paths
    short = [path for path in paths if not {"\n", "\r"} & set(path)]
    lines = "\n".join(short).encode("utf-8", "surrogateescape")
    assert [row["path"] for row in cli("--json", "--input", "-", stdin=lines).rows] == short
    table = output / "predictions.csv"
    first = table.read_bytes()
    assert [row["path"] for row in read_csv(table)] == paths
    again = cli("--input", folder, "--output", output, "--resume")
    assert (again.status, again.out) == (1, "")
    assert table.read_bytes() == first


def test_odd_names_take_one_harmless_line_each(cli: Cli, named: tuple[Path, list[str]]) -> None:
    folder, paths = named
    done = cli("--input", folder)
    assert done.status == 1
    lines = done.out.split("\n")
    assert len(lines) == len(paths) + 1
    assert all(line.isprintable() for line in lines)
    for path, line in zip(paths, lines[:-1], strict=True):
        assert (line.split()[:2] == ["-", "error"]) == (Path(path).read_bytes() == b"broken")
        assert path in line or not path.isprintable()


def test_a_name_with_a_leading_dash(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_picture(0, fake=False).save(tmp_path / "-x.png")
    monkeypatch.chdir(tmp_path)
    for argument in (["--input=-x.png"], ["--input", "./-x.png"]):
        done = cli("--json", *argument)
        assert done.status == 0
        assert done.rows[0]["error"] is None

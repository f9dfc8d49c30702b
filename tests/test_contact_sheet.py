"""Thumbnails, sheets of them, and the page that a data set's sheets make."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, in_process, script
from conftest import make_picture
from PIL import Image
from trees import write_tree

from datasets import Label, Record
from engine.reporting import thumbnails
from engine.reporting.thumbnails import Tile, sheet, sheet_size
from engine.runtime.workers import Workers
from scripts import contact_sheet

RED = (255, 0, 0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(script(capsys, "contact_sheet.py: ", contact_sheet.main))


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.getcolors(image.width * image.height)}


# --- thumbnails


@pytest.mark.parametrize(
    ("size", "inside"),
    [
        ((64, 64), (0, 0, 32, 32)),
        ((128, 64), (0, 8, 32, 24)),
        ((4, 8), (8, 0, 24, 32)),
        ((5000, 3), (0, 16, 32, 17)),
        ((1, 900), (16, 0, 17, 32)),
        ((1, 1), (0, 0, 32, 32)),
    ],
)
def test_a_thumbnail_shows_all_of_a_picture(
    size: tuple[int, int], inside: tuple[int, int, int, int]
) -> None:
    small = thumbnails.thumbnail(Image.new("RGB", size, RED), 32)
    assert (small.mode, small.size) == ("RGB", (32, 32))
    shown = np.all(np.asarray(small) == RED, axis=-1)
    left, top, right, bottom = inside
    assert shown[top:bottom, left:right].all()
    shown[top:bottom, left:right] = False
    assert not shown.any()
    assert colours(small) <= {RED, thumbnails.PADDING}


def test_a_thumbnail_is_upright_and_rgb() -> None:
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        assert thumbnails.thumbnail(Image.new(mode, (20, 10)), 16).mode == "RGB"
    picture = Image.new("RGB", (40, 20), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    small = thumbnails.thumbnail(Image.open(buffer), 16)
    assert small.getpixel((8, 0)) == RED
    assert small.getpixel((0, 8)) == thumbnails.PADDING


def test_a_record_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    make_picture(0, fake=True).save(tmp_path / "a.png")
    records = [Record(name, tmp_path / name) for name in ("a.png", "b.png")]
    there, missing = thumbnails.thumbnails(records, 32, Workers(1))
    assert (there.width, there.height, there.value.size) == (72, 64, (32, 32))
    assert missing.value is None and "no such file" in missing.error


# --- sheets


@pytest.mark.parametrize(
    ("count", "columns", "expected"),
    [(1, 4, (1, 1)), (4, 4, (4, 1)), (5, 4, (4, 2)), (9, 1, (1, 9)), (40, 8, (8, 5))],
)
def test_a_sheet_has_rows_of_columns(count: int, columns: int, expected: tuple[int, int]) -> None:
    size, gap = 48, thumbnails.GAP
    drawn = sheet([Tile(Image.new("RGB", (9, 9), RED), "a.png")] * count, columns, size)
    assert drawn.size == sheet_size(count, columns, size)
    across, down = expected
    assert drawn.size == (
        gap + across * (size + gap), gap + down * (size + 2 * thumbnails.LINE + gap)
    )  # fmt: skip
    assert np.all(np.asarray(drawn) == RED, axis=-1).sum() == count * size * size
    with pytest.raises(ValueError, match="at least one tile"):
        sheet([], columns, size)


def lettering(tile: Tile, size: int = 64) -> np.ndarray:
    """Where the sheet of one tile has ink below the picture: the caption's line, the note's."""
    top = thumbnails.GAP + size
    below = np.asarray(sheet([tile], 1, size).convert("L"))[top : top + 2 * thumbnails.LINE]
    return (below < 200).reshape(2, thumbnails.LINE, -1)


@pytest.mark.parametrize("text", ["W" * 300, "i", "中.png", "a\nb", os.fsdecode(b"\xff.png")])
def test_captions_and_notes_stay_below_their_tile(text: str) -> None:
    picture, gap = Image.new("RGB", (9, 9), RED), thumbnails.GAP
    lines = lettering(Tile(picture, text, text))
    assert lines[0].any() and lines[1].any()
    assert not lines[:, :, :gap].any() and not lines[:, :, -gap:].any()
    assert not lettering(Tile(picture, text))[1].any()


def test_what_the_font_lacks_and_the_ends_of_long_names_are_told_apart() -> None:
    picture = Image.new("RGB", (9, 9), RED)
    for first, other in (("中.png", "国.png"), ("x" * 90 + "1.png", "x" * 90 + "2.png")):
        assert (lettering(Tile(picture, first), 160) != lettering(Tile(picture, other), 160)).any()
    composed, decomposed = (lettering(Tile(picture, text)) for text in ("\xe9", "e\u0301"))
    assert (composed == decomposed).all()


def test_a_picture_that_cannot_be_read_is_marked() -> None:
    size, gap = 64, thumbnails.GAP
    drawn = sheet([Tile(None, ""), Tile(None, "")], 2, size)
    first, between = (
        drawn.crop((gap, gap, gap + size, gap + size)),
        drawn.crop((gap + size, 0, 2 * gap + size, drawn.height)),
    )
    assert (192, 57, 43) in colours(first)
    assert colours(between) == {(255, 255, 255)}


# --- the choice of pictures


def records(count: int) -> list[Record]:
    return [Record(f"{number:04}.png", Path("x"), Label.REAL) for number in range(count)]


def test_pictures_are_drawn_from_all_over_the_set() -> None:
    held = records(1003)
    chosen = contact_sheet.drawn(held, 40, 0, "gan")
    places = [held.index(record) for record in chosen]
    assert [place * 40 // 1003 for place in places] == list(range(40))
    assert chosen == contact_sheet.drawn(held, 40, 0, "gan")
    assert chosen != contact_sheet.drawn(held, 40, 1, "gan")
    assert chosen != contact_sheet.drawn(held, 40, 0, "ldm")
    for count in (1, 39, 40):  # small sets are shown whole
        assert contact_sheet.drawn(records(count), 40, 0, "") == records(count)


def test_sheets_have_files_of_their_own() -> None:
    names = ["GAN", "gan", "a/b", "a?b", "中", "国", "", "..", "x" * 300, "com@model-1.5"]
    groups = [contact_sheet.Group(0, name) for name in names]
    files = contact_sheet.file_names([*groups, contact_sheet.Group(1, "gan")])
    assert len({file.casefold() for file in files.values()}) == len(names) + 1
    assert all(re.fullmatch(r"(fake|real)[\w.@+-]{,90}\.jpg", file) for file in files.values())
    assert files[groups[-1]] == "fake_com@model-1.5.jpg"


# --- the command line


class Page(HTMLParser):
    """What a page shows: pictures, marked tiles, texts, and the addresses it names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.titles: list[str] = []
        self.marked = 0
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.sources += [found["src"]] if "src" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.ids += [found["id"]] if "id" in found else []
        self.titles += [found["title"]] if tag == "figure" else []
        self.marked += found.get("class") == "unreadable"

    def handle_data(self, data: str) -> None:
        self.text += data


def pixels_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def test_every_generator_and_source_has_a_sheet(cli: Cli, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheets"
    done = cli("--data", tree, "--output", out, "--count", 5, "--columns", 2, "--size", 40)
    assert (done.status, done.out) == (0, f"{out / 'index.html'}\n")
    sheets = ["fake_diffusion.jpg", "fake_gan.jpg", "real.jpg"]
    assert {path.name for path in out.iterdir()} == {*sheets, "index.html"}
    for name in sheets:
        assert pixels_of(out / name) == sheet_size(5, 2, 40)
    text = (out / "index.html").read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", text)
    page = Page(out / "index.html")
    assert len(page.sources) == 15
    for source in page.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (40, 40)
    assert [link for link in page.links if not link.startswith("#")] == sheets
    assert [link[1:] for link in page.links if link.startswith("#")] == page.ids
    for said in ("diffusion synthetic, 5 of 6 pictures", "real real, 5 of 12", "72 x 64"):
        assert said in page.text


def test_the_same_seed_gives_the_same_files(cli: Cli, tree: Path, tmp_path: Path) -> None:
    def files(name: str, *more: object) -> dict[str, bytes]:
        flags = ("--data", tree, "--output", tmp_path / name, "--count", 3, "--size", 32)
        assert cli(*flags, *more).status == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    first = files("a")
    assert first == files("b", "--workers", 2)
    assert first != files("c", "--seed", 1)


def test_unreadable_pictures_are_marked(cli: Cli, tree: Path, tmp_path: Path) -> None:
    (tree / "fake/gan/000.jpg").write_bytes(b"no picture")
    (tree / "fake/gan/001.png").write_bytes(b"")
    (tree / "fake/gan/002.jpg").write_bytes((tree / "fake/gan/002.jpg").read_bytes()[:900])
    (tree / "fake/gan/zz.jpg").symlink_to(tree / "nowhere.jpg")
    out = tmp_path / "o"
    done = cli("--data", tree, "--output", out, "--size", 40)
    assert (done.status, done.out) == (1, f"{out / 'index.html'}\n")
    assert done.err.startswith("contact_sheet.py: 4 pictures could not be read: fake/gan/000.jpg (")
    page = Page(out / "index.html")
    assert page.marked == 4
    assert len(page.sources) == 24 - 3
    for text in ("000.jpg", "not a picture in any known format", "the file is empty"):
        assert text in page.text
    with Image.open(out / "fake_gan.jpg") as image:
        assert image.size == sheet_size(7, 8, 40)
        alarm = np.abs(np.asarray(image, np.int32) - (192, 57, 43)).max(axis=-1) < 40
    assert alarm[:, : 10 + 3 * 50].any(axis=0).sum() > 100


def test_odd_names_are_shown_and_harmless(cli: Cli, tmp_path: Path) -> None:
    names = ["<img src=x>.png", 'q"uo&te.png', "two\nlines.png", "ünï中.png", "x" * 240 + ".png"]
    folder = tmp_path / "set/fake/<b> gen"
    folder.mkdir(parents=True)
    for number, name in enumerate([*names, os.fsdecode(b"\xff.png")]):
        make_picture(number, fake=True).save(folder / name, "PNG")
    done = cli("--data", tmp_path / "set", "--output", tmp_path / "o", "--size", 32)
    assert done.status == 0, done.err
    page = Page(tmp_path / "o/index.html")
    shown = {*names, "\\udcff.png"} - {"two\nlines.png"} | {"two\\nlines.png"}
    assert set(page.titles) == {f"fake/<b> gen/{name}" for name in shown}
    assert all(name in page.text for name in shown)
    assert len(page.sources) == 6
    assert "<b> gen synthetic, 6 of 6" in page.text
    assert (tmp_path / "o/fake_b_gen.jpg").is_file()


def write_csv(root: Path, tree: Path) -> Path:
    rows = [f"{tree.name}/real/{n:03}.{s},0,,s{n % 2}" for n, s in ((0, "jpg"), (1, "png"))]
    rows += [f"{tree.name}/fake/gan/000.jpg,1,gan,", f"{tree.name}/real/002.jpg,,,"]
    (root / "set.csv").write_text("\n".join(["image,class,generator,source", *rows]))
    return root / "set.csv"


def test_other_data(cli: Cli, tree: Path, tmp_path: Path) -> None:
    for data, expected in (
        (write_csv(tmp_path, tree), {"fake_gan", "pictures_tree", "real_s0", "real_s1"}),
        (tree / "fake", {"pictures_diffusion", "pictures_gan"}),
    ):
        done = cli("--data", data, "--output", tmp_path / "o", "--size", 32)
        assert done.status == 0, done.err
        assert {path.stem for path in (tmp_path / "o").glob("*.jpg")} == expected
        assert (tmp_path / "o/index.html").is_file()
        shutil.rmtree(tmp_path / "o")


def test_files_are_replaced_only_when_asked(cli: Cli, tree: Path, tmp_path: Path) -> None:
    flags = ("--data", tree, "--output", tmp_path / "o", "--count", 1, "--size", 32)
    for name in ("index.html", "real.jpg"):
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / name).write_text("mine")
        assert f"{name}: already there: use --overwrite" in cli(*flags).complaint
        assert [path.read_text() for path in (tmp_path / "o").iterdir()] == ["mine"]
        assert cli(*flags, "--overwrite").status == 0
        assert (tmp_path / "o" / name).read_bytes() != b"mine"
        shutil.rmtree(tmp_path / "o")


def test_wrong_flags_are_named(cli: Cli, tree: Path, tmp_path: Path) -> None:
    for flags, named in (
        ("--count 0", "--count"),
        ("--size 2000", "--size"),
        ("--columns -1", "--columns"),
        ("--count 1000 --size 1024", "64 megapixels"),
        ("--count 1000 --columns 1 --size 100", "65500 pixels a side"),
        ("--seed -1", "--seed"),
        ("--benchmark genimage", "--benchmark"),
        ("--data_root .", "--benchmark too"),
    ):
        complaint = cli("--data", tree, "--output", tmp_path / "o", *flags.split()).complaint
        assert named in complaint
        assert not (tmp_path / "o").exists()


def test_data_that_are_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for data in (tmp_path / "nowhere", tmp_path / "empty"):
        assert str(data) in cli("--data", data, "--output", tmp_path / "o").complaint
    complaint = cli("--data", tmp_path, "--output", tmp_path / "file").complaint
    assert "--output: expected a folder" in complaint
    assert not (tmp_path / "o").exists()


# --- benchmarks


def test_a_benchmark_has_a_sheet_per_generator(cli: Cli, tmp_path: Path) -> None:
    tree, output = write_tree("cospy_bench", tmp_path / "bench"), tmp_path / "sheets"
    done = cli("--benchmark", "cospy_bench", "--data_root", tree.root, "--output", output)
    assert done.status == 0, done.err
    names = {path.name for path in output.iterdir()} - {"index.html"}
    generators = {p.parent.name for p in (tree.root / "synthetic").rglob("*") if p.is_file()}
    sources = {p.name for p in (tree.root / "synthetic").iterdir()}
    assert names == {f"fake_{g}.jpg" for g in generators} | {f"real_{s}.jpg" for s in sources}
    few = tmp_path / "few"
    words = ("--benchmark", "cospy_bench", "--data_root", tree.root, "--sources", "cc3m")
    assert cli(*words, "--output", few).status == 0
    assert {p.name for p in few.glob("real*")} == {"real_cc3m.jpg"}

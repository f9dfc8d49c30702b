"""The manifest of the training pictures, and the script that rebuilds them from git clones."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from cli_runner import Cli, script
from conftest import make_picture
from PIL import Image

from scripts import build_pictures
from scripts.build_pictures import COLUMNS, MANIFEST, MISSING, TABLE, look, read_manifest

REPOSITORY = "someone/photos"
SHEET = (2 * 66 + 2, 2 * 66 + 2)  # 2 x 2 tiles of 64 px, 2 px around each


def commit(clone: Path, **files: bytes | None) -> None:
    """Adds files, or deletes those that are None, in a commit."""
    for name, content in files.items():
        path = clone / f"{name}.png"
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    for words in (("add", "-A"), (*who, "commit", "-q", "-m", "pictures")):
        subprocess.run(["git", "-C", clone, *words], check=True)


def png(image: Image.Image, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **more)
    return buffer.getvalue()


def jpeg(image: Image.Image, quality: int, subsampling: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of one repository: a wide photograph, a turned one, a sheet, and one that its last
    commit deleted."""
    folder = tmp_path_factory.mktemp("clones")
    clone = folder / REPOSITORY
    clone.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", clone], check=True)
    turned = Image.Exif()
    turned[274] = 6  # EXIF's orientation: the stored picture is turned clockwise to be shown
    sheet = Image.new("RGB", SHEET)
    for number in range(4):
        place = 2 + 66 * (number % 2), 2 + 66 * (number // 2)
        sheet.paste(make_picture(number, fake=True, size=(64, 64)), place)
    commit(
        clone,
        wide=png(make_picture(10, fake=False, size=(900, 820))),
        turned=png(make_picture(11, fake=False, size=(400, 200)), exif=turned),
        sheet=png(sheet),
        gone=png(make_picture(12, fake=False, size=(60, 50))),
        pointer=b"version https://git-lfs.github.com/spec/v1\n",
    )
    commit(clone, gone=None)
    return folder


def row(name: str, content: bytes, size: tuple[int, int], **more: str) -> dict[str, str]:
    """A row of a manifest for the picture that `content` is as a JPEG."""
    return dict.fromkeys(COLUMNS, "") | {
        "image": f"train/real/{name}.jpg", "class": "0", "split": "train", "source": REPOSITORY,
        "path": f"{name}.png", "width": str(size[0]), "height": str(size[1]), "scale": "1",
        "rule": "352", "sha256": hashlib.sha256(content).hexdigest()[:16],
        "look": f"{look(content):016x}",
    } | more  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """What the clone gives, computed from its pictures by the rule."""
    wide = make_picture(10, fake=False, size=(900, 820))
    turned = make_picture(11, fake=False, size=(400, 200)).transpose(Image.Transpose.ROTATE_270)
    small = wide.resize((450, 410), Image.Resampling.LANCZOS)
    tile = make_picture(2, fake=True, size=(64, 64))
    return [
        row("wide", jpeg(wide.crop((274, 234, 626, 586)), 90, "4:2:0"), (900, 820)),
        row("wide", jpeg(small.crop((49, 29, 401, 381)), 90, "4:2:0"), (900, 820),
            image="train/real/wide_small.jpg", scale="0.5"),
        row("turned", jpeg(turned.crop((0, 40, 200, 360)), 95, "4:4:4"), (200, 400), rule="320"),
        row("tile", jpeg(tile, 90, "4:2:0"), (64, 64), path="sheet.png#tile0,1",
            image="train/fake/gan/tile.jpg", generator="gan", **{"class": "1"}),
        row("gone", jpeg(make_picture(12, fake=False, size=(60, 50)), 90, "4:2:0"), (60, 50)),
    ]  # fmt: skip


@pytest.fixture
def build(clones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The script with a manifest of the rows that it is given first."""
    run = script(capsys, "build_pictures.py: ", build_pictures.main)

    def with_rows(rows: list[dict[str, str]], *words: object) -> object:
        manifest = tmp_path / "manifest.csv"
        with manifest.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return run("--clones", clones, "--manifest", manifest, *words)

    return with_rows


def test_pictures_come_out_as_they_were(build: Cli, rows, tmp_path: Path) -> None:
    """Byte for byte; a picture of other bytes counts by its look; nothing is done twice."""
    output = tmp_path / "out"
    rows[3]["sha256"] = 16 * "0"  # as if another libjpeg had written it
    done = build(rows, "--output", output)
    assert (done.status, done.out) == (0, f"{output / TABLE}\n"), done.err
    assert "4 the same bytes" in done.err and "1 alike" in done.err
    written = {path: path.stat().st_mtime_ns for path in output.rglob("*.jpg")}
    assert len(written) == 5
    (output / rows[0]["image"]).unlink()
    assert build(rows, "--output", output).status == 0
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*.jpg")}
    assert [path for path in written if written[path] != after[path]] == [output / rows[0]["image"]]
    with (output / TABLE).open() as stream:
        assert list(csv.DictReader(stream)) == rows


def test_what_lacks_is_told_and_left_out(build: Cli, rows, tmp_path: Path) -> None:
    gone = [
        rows[0] | {"image": "a.jpg", "path": "never.png"},
        rows[0] | {"image": "b.jpg", "source": "someone/else"},
        rows[0] | {"image": "c.jpg", "width": "901"},
        rows[0] | {"image": "d.jpg", "path": "gone.png", "width": "60", "height": "50"},
        rows[0] | {"image": "e.jpg", "path": "pointer.png"},
        rows[3] | {"image": "f.jpg", "path": "sheet.png#r5c0"},
    ]  # fmt: skip
    output = tmp_path / "out"
    assert build([*gone, rows[0]], "--output", output).status == 1
    with (output / MISSING).open() as stream:
        reasons = {line["image"]: line["reason"] for line in csv.DictReader(stream)}
    for name, part in zip(
        "abcdef", ("not in", "no clone", "901 x 820", "another", "git-lfs", "tile"), strict=True
    ):
        assert part in reasons.pop(f"{name}.jpg")
    assert not reasons
    assert [path.name for path in output.rglob("*.jpg")] == ["wide.jpg"]
    with (output / TABLE).open() as stream:
        assert [line["image"] for line in csv.DictReader(stream)] == [rows[0]["image"]]


def test_commands_for_the_clones_that_are_not_there(build: Cli, rows, clones: Path) -> None:
    done = build([rows[0], rows[0] | {"source": "someone/else"}], "--list")
    assert done.status == 0
    [line] = done.out.splitlines()
    assert line.startswith("git clone ")
    assert line.endswith(f"https://github.com/someone/else {clones / 'someone' / 'else'}")


@pytest.mark.parametrize(
    "change", [{"image": "../a.jpg"}, {"source": "--upload-pack=x/y"}, {"rule": "1"}]
)
def test_a_manifest_that_would_write_elsewhere(build: Cli, rows, change, tmp_path: Path) -> None:
    assert "manifest.csv" in build([rows[0] | change], "--output", tmp_path / "out").complaint


def test_the_manifest_of_the_shipped_detector() -> None:
    """Its counts are the card's, and no generator or source is on both sides."""
    rows = read_manifest(MANIFEST)
    counts = defaultdict(int)
    sides, terms = defaultdict(set), defaultdict(set)
    for line in rows:
        counts[line["split"], line["class"]] += 1
        sides[line["generator"] or f"real {line['source']}"].add(line["split"])
        terms[line["licence"]].add(line["permissive"])
    assert counts == {("train", "0"): 2244, ("train", "1"): 2077, ("val", "0"): 1121,
                      ("val", "1"): 993}  # fmt: skip
    assert len({line["image"] for line in rows}) == len(rows)
    assert all(len(splits) == 1 for splits in sides.values())
    assert all(len(marks) == 1 for marks in terms.values())
    assert {"MIT": {"1"}, "none stated": {"0"}, "CC-BY-NC-4.0": {"0"}}.items() <= terms.items()

"""How pictures are decoded: upright, or as the published programs do it (data.decoding)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, script, weights, write_weights
from cli_runner import plain_cli as cli
from conftest import ROOT, make_picture, make_tree, read_csv
from PIL import Image

from datasets._images import PictureDataset, decode
from datasets._limits import DECODINGS, PUBLISHED, UPRIGHT
from engine.cli import machine, parser
from engine.phases.compare import compare
from scripts import augment_csv, contact_sheet

__all__ = ["cli", "weights"]  # fixtures

CLIPPED = "data.decoding=published"
SIZE = (48, 32)


def turned() -> Image.Exif:
    """EXIF that says: turn by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def deep(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bit, from 0 to 1020: most of it is beyond 8 bit."""
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three pictures by which the two ways differ, or might, and one that only one reads."""
    folder = tmp_path_factory.mktemp("pictures")
    picture = make_picture(1, fake=True, size=SIZE)
    picture.save(folder / "turned.png", exif=turned())
    deep(picture).save(folder / "deep.png")
    red = picture.convert("RGBA")
    red.paste((255, 0, 0, 0), (0, 0, 24, 32))
    red.save(folder / "clear.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.float32)).save(folder / "real.tif")
    return folder


def plain(path: Path) -> Image.Image:
    """What the published programs see."""
    with Image.open(path) as image:
        return image.convert("RGB")


# --- the pixels


@pytest.mark.parametrize("name", ["turned.png", "deep.png", "clear.png", "real.tif"])
def test_published_decoding_is_pillows_conversion(pictures: Path, name: str) -> None:
    path = pictures / name
    found = decode(path.read_bytes(), decoding=PUBLISHED)
    assert (found.mode, found.size) == ("RGB", SIZE)
    assert found.tobytes() == plain(path).tobytes()


def test_upright_decoding_turns_and_scales(pictures: Path) -> None:
    path = pictures / "turned.png"
    expected = plain(path).transpose(Image.Transpose.ROTATE_270)
    assert decode(path.read_bytes()).tobytes() == expected.tobytes()
    path = pictures / "deep.png"
    values = np.asarray(Image.open(path))
    assert values.max() > 255 and np.asarray(plain(path)).max() == 255
    found = np.asarray(decode(path.read_bytes()))
    assert (found == (values >> 8)[..., None]).all()


@pytest.mark.parametrize("decoding", DECODINGS)
def test_transparency_is_dropped_and_not_blended(pictures: Path, decoding: str) -> None:
    path = pictures / "clear.png"
    found = decode(path.read_bytes(), decoding=decoding)
    assert found.getpixel((0, 0)) == (255, 0, 0)
    assert found.tobytes() == plain(path).tobytes()


# --- scores


@pytest.fixture
def labelled(pictures: Path, tmp_path: Path) -> Path:
    """A turned and a deep picture of each class, and what the published programs see of them."""
    for number, folder in enumerate(("real", "fake/gan")):
        place = tmp_path / "set" / folder
        place.mkdir(parents=True)
        picture = make_picture(number, fake=bool(number), size=SIZE)
        picture.save(place / "turned.png", exif=turned())
        deep(picture).save(place / "deep.png")
        for name in ("turned", "deep"):
            plain(place / f"{name}.png").save(place / f"{name}_seen.png")
    return tmp_path / "set"


def scores(folder: Path) -> dict[str, dict[str, str]]:
    return {row["key"]: row for row in read_csv(folder / "scores.csv")}


def test_an_evaluation_scores_what_it_says_and_the_cache_mixes_nothing(
    cli: Cli, labelled: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def evaluated(name: str, *more: object) -> dict[str, dict[str, str]]:
        done = cli("--phase", "eval", "--weights", weights, "--data", labelled, "--output",
                   tmp_path / name, "--cache", tmp_path / "cache", *more)  # fmt: skip
        assert done.status == 0, done
        lines = [line for line in done.log if "data.decoding=published" in line]
        assert len(lines) == (name == PUBLISHED)
        return scores(tmp_path / name)

    upright, published = evaluated(UPRIGHT), evaluated(PUBLISHED, "--set", CLIPPED)
    for folder in ("real", "fake/gan"):
        for name in ("turned", "deep"):
            key, seen = f"{folder}/{name}.png", f"{folder}/{name}_seen.png"
            assert published[key]["logit"] == published[seen]["logit"] == upright[seen]["logit"]
            assert upright[key]["logit"] != published[key]["logit"]
        turns = [rows[f"{folder}/turned.png"] for rows in (upright, published)]
        assert [(row["width"], row["height"]) for row in turns] == [("32", "48"), ("48", "32")]
    infos = [json.loads((tmp_path / name / "run.json").read_text()) for name in DECODINGS]
    assert [info["decoding"] for info in infos] == [UPRIGHT, PUBLISHED]
    assert [info["counts"]["reused"] for info in infos] == [0, 0]
    compare([tmp_path / name for name in DECODINGS], None)
    assert "The runs differ in decoding: upright upright; published published." in caplog.messages


@pytest.mark.parametrize("phase", ["eval", "test"])
def test_another_decoding_cannot_resume(
    cli: Cli, labelled: Path, weights: Path, tmp_path: Path, phase: str
) -> None:
    given = ("--data", labelled) if phase == "eval" else ("--input", labelled)
    words = ("--phase", phase, "--weights", weights, *given, "--output", tmp_path / "o")
    assert cli(*words, "--set", CLIPPED).status == 0
    assert "decoding" in cli(*words, "--resume").complaint
    assert cli(*words, "--resume", "--set", CLIPPED).status == 0


def test_a_picture_of_the_users_own_is_upright_unless_asked(
    cli: Cli, pictures: Path, weights: Path
) -> None:
    words = ("--weights", weights, "--json", "--input", pictures / "turned.png")
    sizes = [(row["width"], row["height"]) for row in cli(*words).rows]
    assert sizes == [SIZE[::-1]]
    done = cli(*words, "--set", CLIPPED)
    assert [(row["width"], row["height"]) for row in done.rows] == [SIZE]
    assert any(CLIPPED in line for line in done.log)


# --- training


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("ssp", (), PUBLISHED),
        ("ssp", ("--set", "data.decoding=upright"), UPRIGHT),
        ("default", (), UPRIGHT),
        ("default", ("--set", "train.augment=false", CLIPPED), PUBLISHED),
    ],
)
def test_training_and_its_validation_see_what_the_recipe_says(
    cli: Cli, pictures: Path, tmp_path: Path, name: str, words: tuple[str, ...], expected: str
) -> None:
    tree = make_tree(tmp_path / "set", 4)
    # Pixels of floating point have no range for one way, and are clipped by the other.
    for split, folder in (("train", "real"), ("val", "fake/gan")):
        (tree / folder / f"{split}.tif").write_bytes((pictures / "real.tif").read_bytes())
    rows = ["image,class,split"]
    for number, path in enumerate(sorted(tree.rglob("*.*"))):
        split = path.stem if path.suffix == ".tif" else ("train", "val")[number % 2]
        key = path.relative_to(tree).as_posix()
        rows.append(f"{key},{int(key.startswith('fake'))},{split}")
    (tree / "set.csv").write_text("\n".join(rows) + "\n")
    tiny = write_weights(tmp_path / "tiny.safetensors", name)
    done = cli("--phase", "train", "--detector", name, "--weights", tiny, "--data",
               tree / "set.csv", "--output", tmp_path / "run", "--epochs", 2, "--batch_size", 4,
               *words)  # fmt: skip
    assert done.status == 0, done
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["decoding"] == info["workers"]["decoding"] == expected
    read = expected == PUBLISHED
    assert (tmp_path / "run/bad_files.csv").exists() != read
    found = scores(tmp_path / "run/validation")["fake/gan/val.tif"]
    assert bool(found["score"]) == read and bool(found["error"]) != read
    assert any("validation: 1 of" in line for line in done.log) != read


RECIPES = sorted({*(ROOT / "configs").glob("*.yaml")} - {ROOT / "configs" / "generators.yaml"})


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_published_recipes_decode_as_published(path: Path) -> None:
    ours = {"classifier", "default", "ensemble", "fake2m", "sources"}
    # Baselines whose published trainings are not here, or that are fitted to a user's pictures.
    ours |= {"commfor", "dda", "fewshot", "ladeda", "trainingfree"}
    expected = "\n  train_decoding: published\n" in path.read_text()
    assert expected == (path.stem not in ours)


def test_one_way_of_decoding_reaches_the_workers() -> None:
    args = parser.parser().parse_args([])
    assert [machine.workers(args, 1, name).decoding for name in DECODINGS] == list(DECODINGS)
    assert PictureDataset([], lambda image, _: image).decoding == UPRIGHT


# --- contact sheets


@pytest.mark.parametrize(("words", "unreadable"), [((), 1), (("--set", CLIPPED), 0)])
def test_a_contact_sheet_shows_what_a_detector_sees(
    capsys: pytest.CaptureFixture[str],
    pictures: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    unreadable: int,
) -> None:
    run = script(capsys, "contact_sheet.py: ", contact_sheet.main)
    done = run("--data", pictures, "--output", tmp_path / "o", "--size", 40, *words)
    assert done.status == unreadable
    page = (tmp_path / "o/index.html").read_text()
    assert ("32 x 48" in page) == bool(unreadable)
    refused = run("--data", pictures, "--output", tmp_path / "p", "--set", "train.lr=1")
    assert "--set" in refused.complaint


# --- offline augmentation


def test_augmented_views_are_of_pixels_as_training_sees_them(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    run = script(capsys, "augment_csv.py: ", augment_csv.main)
    file = pictures / "set.csv"
    file.write_text("image,class,split\ndeep.png,0,val\nreal.tif,1,val\n")
    words = (file, "--output", tmp_path / "o")
    assert run(*words).status == 0
    assert json.loads((tmp_path / "o/run.json").read_text())["decoding"] == PUBLISHED
    assert "decoding" in run(*words, "--resume", "--set", "data.decoding=upright").complaint
    # Of floating point only one way makes pixels.
    assert run(*words, "--overwrite", "--set", "data.decoding=upright").status == 1
    assert "real.tif" in (tmp_path / "o/bad_files.csv").read_text()

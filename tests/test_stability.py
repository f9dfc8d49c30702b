"""--stability: a verdict has to hold when the picture is re-encoded; and notes on pictures unlike
those that the detectors were tested on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, cli, write_weights
from conftest import ROOT, make_picture, make_tree, read_csv
from PIL import Image, ImageDraw, ImageFont

from datasets import _images, _notes, folder
from datasets._images import open_picture
from detectors._default_options import DefaultOptions
from engine.runtime.device import open_device
from engine.runtime.workers import Workers
from engine.scoring import answer, degradations
from engine.scoring.answer import RECODINGS, Answer
from engine.scoring.loop import ScoringOptions, answers, score
from engine.scoring.table import ScoreRow
from engine.scoring.torch_backend import TorchBackend
from engine.scoring.verdict_rule import VerdictRule

__all__ = ["cli"]  # a fixture

BAND = (0.4, 0.6)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both branches: a recoding moves what they see together across the band."""
    options = DefaultOptions(crop=48, views=1, size="tiny")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_weights(path, options=options, band=BAND)


def word(score: float) -> str:
    if BAND[0] <= score <= BAND[1]:
        return "uncertain"
    return "synthetic" if score > 0.5 else "real"


def test_each_verdict_is_held_against_four_recodings(cli: Cli, tree: Path, tmp_path: Path) -> None:
    """Whose scores are those of phase eval's degradations."""
    assert RECODINGS == ("jpeg:85", "jpeg:70", "webp:80", "resize:0.7+jpeg:90")
    output = tmp_path / "eval"
    done = cli("--phase", "eval", "--data", tree, "--output", output, "--degrade", *RECODINGS)
    assert done.status == 0, done
    scores = read_csv(output / "scores.csv")
    expected = {(row["key"], row["degradation"]): float(row["score"]) for row in scores}

    plain = cli("--json", "--input", tree).rows
    rows = cli("--json", "--stability", "--input", tree).rows
    flipped = 0
    for row, usual in zip(rows, plain, strict=True):
        assert list(row) == [*usual, "stability"]
        assert row["score"] == pytest.approx(usual["score"], abs=1e-5)
        found = row["stability"]
        key = str(Path(row["path"]).relative_to(tree))
        wanted = {name: expected[key, name] for name in RECODINGS}
        assert found["scores"] == pytest.approx(wanted, abs=1e-5)
        held = sum(word(value) == usual["label"] for value in found["scores"].values())
        assert (found["held"], found["of"]) == (held, 4)
        assert row["label"] == (usual["label"] if held == 4 else "uncertain")
        flipped += row["label"] != usual["label"]
    assert 0 < flipped < len(rows)


def test_stability_in_lines_tables_and_resumed_runs(cli: Cli, tree: Path, tmp_path: Path) -> None:
    missing = tree / "missing.png"
    use = ("--stability", "--input", tree, missing)
    rows = cli("--json", *use).rows
    assert rows[-1]["stability"] is None
    spoken = {"synthetic": "AI-Generated", "real": "Real", "uncertain": "Uncertain"}
    output = tmp_path / "out"
    done = cli(*use, "--output", output)
    for row, line in zip(rows[:-1], done.out.splitlines(), strict=False):
        held = f"(holds {row['stability']['held']} of 4; under 224 px)"
        assert line.split(maxsplit=3)[1:] == [spoken[row["label"]], row["path"], held]
    table = output / "predictions.csv"
    *cells, last = read_csv(table)
    assert list(last)[5:] == ["notes", "held", "of", *RECODINGS]
    assert [last[name] for name in ("held", "of", *RECODINGS)] == [""] * 6
    for row, cell in zip(rows, cells, strict=False):
        assert (cell["label"], cell["held"], cell["of"]) == (
            row["label"], str(row["stability"]["held"]), "4",
        )  # fmt: skip
        assert [float(cell[name]) for name in RECODINGS] == [*row["stability"]["scores"].values()]
    assert json.loads((output / "run.json").read_text())["stability"] == list(RECODINGS)

    whole = table.read_bytes()
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:9]))
    assert cli(*use, "--output", output, "--resume").status == 1
    assert table.read_bytes() == whole
    refused = cli("--input", tree, missing, "--output", output, "--resume").complaint
    assert "stability" in refused


def test_stability_at_the_prompt(cli: Cli, pictures: list[Path]) -> None:
    [row] = cli("--json", "--stability", "--input", pictures[0]).rows
    done = cli("--stability", stdin=f"{pictures[0]}\n".encode())
    assert done.out.endswith(f"  (holds {row['stability']['held']} of 4; under 224 px)\n")
    plain = cli(stdin=f"{pictures[0]}\n".encode())
    assert "(" not in plain.out and any("under 224 px" in line for line in plain.log)


def test_pictures_are_decoded_once_and_batches_change_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import tiny

    records, model, device = folder.records(tree)[:7], tiny("default"), open_device("cpu", "fp32")
    views = answer.recodings()
    decoded: list[bytes] = []
    usual = _images.decode

    def counted(content: bytes, *rest: object) -> Image.Image:
        decoded.append(content)
        return usual(content, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(_images, "decode", counted)
    batches = list(answers(TorchBackend(model, device), records, ScoringOptions(16, views=views)))
    assert (len(decoded), [len(batch) for batch in batches]) == (7, [3, 3, 1])
    expected = [told for batch in batches for told in batch]
    for size, count in ((1, 0), (35, 0), (16, 1)):
        found = answers(
            TorchBackend(model, device), records, ScoringOptions(size, Workers(count), views=views)
        )
        for told, same in zip((t for batch in found for t in batch), expected, strict=True):
            rows, others = ([t.row.logit, *(v.logit for v in t.views)] for t in (told, same))
            assert rows == pytest.approx(others, abs=1e-5)
    [alone] = score(
        TorchBackend(model, device),
        records,
        ScoringOptions(16, degradation=degradations.parse("webp:80")),
    )
    assert [t.views[2].logit for t in expected] == pytest.approx(
        [row.logit for row in alone], abs=1e-5
    )


def row(score: float | None, degradation: str = "none", error: str = "") -> ScoreRow:
    logit = None if score is None else float(np.log(score / (1 - score)))
    return ScoreRow("a", "", "", None, logit, score, error, degradation, 16, 16)


@pytest.mark.parametrize(
    ("band", "own", "views", "label", "held"),
    [
        (BAND, 0.9, (0.7, 0.8, 0.9, 0.99), "synthetic", (4, 4)),
        (BAND, 0.9, (0.7, 0.8, 0.9, 0.55), "uncertain", (3, 4)),  # from a verdict into the band
        (None, 0.9, (0.7, 0.8, 0.9, 0.55), "synthetic", (4, 4)),
        (None, 0.9, (0.1, 0.8, 0.9, 0.55), "uncertain", (3, 4)),  # to the other verdict
        (BAND, 0.1, (0.2, 0.2, 0.7, 0.9), "uncertain", (2, 4)),
        (BAND, 0.5, (0.2, 0.5, 0.5, 0.9), "uncertain", (2, 4)),  # nothing is surer than it was
        (BAND, 0.9, (0.9, 0.9, None, 0.8), "synthetic", (3, 3)),  # WebP holds 16,383 px a side
        (BAND, None, (), None, (0, 0)),
    ],
)
def test_what_counts_as_a_flip(
    band: tuple[float, float] | None,
    own: float | None,
    views: tuple[float | None, ...],
    label: str | None,
    held: tuple[int, int],
) -> None:
    rule = VerdictRule(0.5, band)
    told = Answer(row(own), tuple(row(v, n) for v, n in zip(views, RECODINGS, strict=False)))
    assert (told.label(rule), told.held(rule)) == (label, held)


def test_a_view_that_an_encoder_cannot_hold_costs_itself_alone(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    make_picture(0, fake=False, size=(16_400, 64)).save(path)
    done = cli("--json", "--stability", "--input", path)
    assert done.status == 0
    found = done.rows[0]["stability"]
    assert found["of"] == 3 and found["scores"]["webp:80"] is None


# --- notes


def page(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (640, 480), (252, 252, 252))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    for y in range(30, 440, 26):
        words = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 9))) for _ in range(9)]
        draw.text((40, y), " ".join(words), (20, 20, 20), font)
    return image


def window(rng: np.random.Generator) -> Image.Image:
    image = page(rng)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 640, 40), (40, 90, 160))
    draw.rectangle((0, 40, 130, 480), (225, 230, 240))
    image.paste(make_picture(3, fake=False, size=(180, 140)), (400, 250))
    return image


def sketch(rng: np.random.Generator) -> Image.Image:
    """Grey strokes on grainy paper, which no pixel of is like the next."""
    image = Image.new("L", (1000, 800), 244)
    draw = ImageDraw.Draw(image)
    for _ in range(25):
        x, y = rng.uniform(0, 700, 2)
        draw.arc((x, y, x + rng.uniform(60, 400), y + rng.uniform(60, 400)), 0, 280, 50, 5)
    pixels = np.asarray(image.resize((500, 400), Image.Resampling.LANCZOS)).astype(float)
    pixels += rng.normal(0, 2, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("quality", [None, 90, 70])
@pytest.mark.parametrize("seed", range(3))
def test_notes_of_drawn_pictures(seed: int, quality: int | None) -> None:
    def seen(image: Image.Image) -> tuple[str, ...]:
        chain = degradations.parse("none" if quality is None else f"jpeg:{quality}")
        return _notes.notes(chain(image, np.random.default_rng(0)) if chain else image)

    rng = np.random.default_rng(seed)
    assert _notes.DOCUMENT in seen(page(rng))
    assert seen(window(rng)) == (_notes.DOCUMENT,)
    assert _notes.DRAWING in seen(sketch(rng))
    assert seen(make_picture(seed, fake=True, size=(300, 224))) == ()
    assert seen(make_picture(seed, fake=False, size=(223, 400))) == (_notes.SMALL,)


def test_notes_of_photographs_tiny_and_plain_pictures() -> None:
    for path in sorted((ROOT / "data" / "examples").rglob("*.*")):
        assert _notes.notes(open_picture(path)) == (), path
    for size in ((1, 1), (2, 900), (3, 3), (65, 3)):
        assert _notes.notes(make_picture(0, fake=False, size=size)) == (_notes.SMALL,)
    assert _notes.notes(Image.new("RGB", (300, 300), "white")) == ()


def test_a_note_changes_no_score(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    page(np.random.default_rng(0)).save(path)
    [row] = cli("--json", "--input", path).rows
    assert "document" in row["notes"]
    make_tree(tmp_path / "tree", count=1)
    (tmp_path / "tree" / "real" / "page.png").write_bytes(path.read_bytes())
    output = tmp_path / "out"
    cli("--phase", "eval", "--data", tmp_path / "tree", "--output", output)
    scores = {each["key"]: float(each["score"]) for each in read_csv(output / "scores.csv")}
    assert row["score"] == pytest.approx(scores["real/page.png"], abs=1e-5)

"""The library: the same rows as the command line, from whatever a picture comes in."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Cli, cli, plain_cli, weights, write_weights  # noqa: F401
from conftest import make_picture
from models import tiny
from PIL import Image, ImageOps

import detectors
from datasets._limits import Limits
from detectors._errors import WeightsError
from detectors._options import describe_options
from engine.api import Explanation, Machine, Row, Scorer, load
from engine.config import ConfigError
from engine.weights.cards import Card
from engine.weights.files import save_weights

HERE = Machine(workers=0)
SMALL = Limits(megapixels=0.001)


@pytest.fixture(scope="module")
def scorer(weights: Path) -> Scorer:  # noqa: F811
    return load(weights=weights, device="cpu", machine=HERE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pictures of several modes, one turned by EXIF, and a file that is none."""
    monkeypatch.chdir(tmp_path)
    turned = Image.Exif()
    turned[0x0112] = 6
    make_picture(0, fake=False).save("0.png")
    make_picture(1, fake=True).save("1.jpg", exif=turned)
    make_picture(2, fake=False).convert("LA").save("2.png")
    make_picture(3, fake=True).convert("P").save("3.gif")
    Path("4.png").write_bytes(b"none")
    return [f"{number}.{kind}" for number, kind in enumerate(("png", "jpg", "png", "gif", "png"))]


def test_rows_are_those_of_the_command_line(
    scorer: Scorer,
    cli: Cli,  # noqa: F811
    files: list[str],
) -> None:
    expected = cli("--json", "--input", *files).rows
    rows = scorer.score(files)
    assert [row.as_dict() for row in rows] == expected
    assert [json.loads(json.dumps(row.as_dict())) for row in scorer.stream(iter(files))] == expected
    assert [bool(row.error) for row in rows] == [False] * 4 + [True]
    stable = [row.as_dict() for row in scorer.stable().score(files)]
    assert stable == cli("--json", "--stability", "--input", *files).rows


def test_pictures_in_memory_have_the_scores_of_their_files(
    scorer: Scorer, files: list[str]
) -> None:
    rows = scorer.score(files)
    assert scorer.score([(name, Path(name).read_bytes()) for name in files]) == rows
    opened = [(name, Image.open(name)) for name in files[:4]]
    assert scorer.score(opened) == rows[:4]
    turned = ImageOps.exif_transpose(Image.open(files[1]))
    assert scorer.score(turned).logit == pytest.approx(rows[1].logit, rel=1e-5)
    assert [row.path for row in scorer.stream([turned, Path(files[0])])] == ["[0]", files[0]]
    single = scorer.score(Path(files[0]).read_bytes())
    assert isinstance(single, Row) and single.path == "[0]"
    assert single.logit == pytest.approx(rows[0].logit, rel=1e-5)


def test_what_cannot_be_read_is_a_row(scorer: Scorer, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    make_picture(0, fake=False, size=(200, 200)).save(buffer, "PNG")
    cut = Image.open(io.BytesIO(buffer.getvalue()[:5000]))
    floats = Image.new("F", (64, 64))
    rows = scorer.score([tmp_path, tmp_path / "none.png", b"", cut, floats])
    assert all(row.error and row.score is row.logit is row.label is None for row in rows)
    small = load(weights=scorer.loaded.path, device="cpu", machine=Machine(limits=SMALL))
    assert small.score(make_picture(0, fake=False)).error
    with pytest.raises(TypeError, match="found int"):
        scorer.score([3])  # type: ignore[list-item]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_taken_as_it_is_scored(scorer: Scorer, workers: int) -> None:
    """Whatever its length, no more pictures are held than the processes have before them."""
    taken = 0

    def endless() -> Iterator[tuple[str, Image.Image]]:
        nonlocal taken
        while True:
            taken += 1
            yield f"{taken}.png", make_picture(taken % 3, fake=False)

    rows = scorer.stream(endless(), batch_size=4, workers=workers)
    first = [next(rows) for _ in range(12)]
    assert [row.path for row in first] == [f"{number}.png" for number in range(1, 13)]
    assert len({row.logit for row in first}) == 3
    assert taken <= 12 + 4 * (2 * workers + 1)
    rows.close()


def test_large_pictures_in_memory_pass_to_busy_processes(scorer: Scorer) -> None:
    """More bytes than a connection holds, both ways."""
    large = make_picture(0, fake=True, size=(900, 800))
    rows = list(scorer.stream([large] * 12, batch_size=2, workers=2))
    assert len({row.logit for row in rows}) == 1 and not rows[0].error


def test_an_explanation_has_the_row_and_a_drawing(scorer: Scorer, files: list[str]) -> None:
    explanation = scorer.explain(files[0])
    assert isinstance(explanation, Explanation)
    assert explanation.row == scorer.score(files[0]) and explanation.picture is not None
    assert scorer.explain(files[4]).picture is None


def test_what_is_asked_for_must_exist(scorer: Scorer, tmp_path: Path) -> None:
    path = scorer.loaded.path
    with pytest.raises(ConfigError, match=r"ensemble.*nonsense"):
        load("nonsense")
    with pytest.raises(WeightsError, match=r"expected weights of spai; found those of default"):
        load("spai", path)
    with pytest.raises(ConfigError, match="blocs"):
        load(weights=path, options={"blocs": 1})
    with pytest.raises(ConfigError, match="prevalence"):
        load(weights=path, prevalence=1)
    with pytest.raises(ConfigError, match="own_threshold"):
        load(weights=path, threshold=tmp_path / "none.yaml")
    assert (
        load(str(path), threshold=0.25, device="cpu").score(make_picture(0, False)).threshold
        == 0.25
    )


# --- every detector


def weights_of(name: str, folder: Path) -> tuple[Path | None, dict[str, object]]:
    """Weights of a detector's tiny variant, and the options that they take; those of an ensemble
    are its members'."""
    if name in detectors.combined():
        parts = [write_weights(folder / f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
        return None, {"members": ["default"] * 2, "weights": [str(path) for path in parts]}
    model = tiny(name)
    path = folder / f"{name}.safetensors"
    save_weights(path, model.state_dict(), Card(name, describe_options(model.options)))
    return path, {}


@pytest.mark.parametrize("name", detectors.available())
def test_every_detector_scores_alike_by_all_ways(
    name: str,
    plain_cli: Cli,  # noqa: F811
    files: list[str],
    tmp_path: Path,
) -> None:
    path, options = weights_of(name, tmp_path)
    words = [word for key, value in options.items() for word in ("--set", f"{name}.{key}={value}")]
    words += ["--weights", str(path)] if path else []
    expected = plain_cli("--json", "--detector", name, *words, "--input", *files).rows
    scorer = load(name, path, device="cpu", options=options, machine=HERE)
    rows = scorer.score(files)
    assert [row.as_dict() for row in rows] == expected
    assert [row.error is None for row in rows] == [True] * 4 + [False]
    assert list(scorer.stream(iter(files))) == rows
    in_memory = [(name, Path(name).read_bytes()) for name in files]
    assert scorer.score(in_memory) == rows
    alone = [scorer.score(name) for name in files[:4]]
    # Sums in another order; the last digits of a logit depend on what shares its batch.
    assert [row.logit for row in alone] == pytest.approx(
        [row.logit for row in rows[:4]], rel=1e-5, abs=1e-5
    )

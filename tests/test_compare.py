"""Runs side by side: the same pictures, exact differences, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from report_cases import GOLDEN, KEPT_COMPARISON, write_comparison

from engine.config import ConfigError
from engine.evaluation import cells, comparison, estimates, metrics
from engine.evaluation.cells import Pairing
from engine.evaluation.comparison import Comparison
from engine.phases import compare
from engine.reporting import drawing
from engine.runtime.table_writer import TableWriter
from engine.scoring.table import COLUMNS, ScoreRow

Rows = Sequence[ScoreRow]


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples and empty plots, which are most of the time."""
    monkeypatch.setattr(drawing, "png", lambda figure: b"a figure")
    if "kept" not in request.node.name:
        monkeypatch.setattr(comparison, "RESAMPLES", 50)


def test_a_comparison_is_as_kept(tmp_path: Path) -> None:
    write_comparison(tmp_path)
    for name in KEPT_COMPARISON:
        assert (tmp_path / name).read_text() == (GOLDEN / "comparison" / name).read_text()


def row(label: int, logit: float | None, generator: str, key: str, source: str = "s") -> ScoreRow:
    score = None if logit is None else 1 / (1 + math.exp(-logit))
    error = "broken" if logit is None else ""
    return ScoreRow(key, source, generator, label, logit, score, error, "none", 8, 8)


def table(n: int = 30, sources: Sequence[str] = ("s",)) -> list[ScoreRow]:
    rng = np.random.default_rng(0)
    rows = []
    for source in sources:
        rows += [row(0, rng.normal(-1), "", f"{source}/r{i}", source) for i in range(n)]
        for generator in ("glide", "sd"):
            rows += [
                row(1, rng.normal(1), generator, f"{source}/{generator}{i}", source)
                for i in range(n)
            ]
    return rows


def moved(rows: Rows, noise: float = 1.0, degradation: str = "none") -> list[ScoreRow]:
    rng = np.random.default_rng(1)
    return [
        replace(each, logit=(each.logit or 0.0) + rng.normal(0, noise), degradation=degradation)
        for each in rows
    ]


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a run's folder: its name, its rows, and what its run.json says."""

    def write(name: str, rows: Rows, detector: str = "default", **info: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with TableWriter(folder / "scores.csv", COLUMNS, ("key", "degradation"), False) as out:
            out.append(astuple(each) for each in rows)
        content = {
            "threshold": 0.5,
            "counts": {},
            "config": {"detector": detector},
            "weights": {"file": "w.safetensors"},
        }
        (folder / "run.json").write_text(json.dumps(content | info))
        return folder

    return write


def measured(*folders: Path) -> Comparison:
    runs = [comparison.read_run(folder) for folder in folders]
    return comparison.measure(runs, comparison.common(runs))


def test_identical_runs_do_not_differ_at_all(save: Save) -> None:
    found = measured(save("a", table()), save("b", table()))
    groups = [*found.pooled.values(), *found.cells.values()]
    assert len(groups) == 3
    for group in groups:
        for difference in group.differences[0].values():
            assert tuple(difference.estimate) == (0.0, 0.0, 0.0)
            assert difference.p_value == 1.0


def test_values_and_differences_are_those_of_the_metrics(save: Save) -> None:
    first, other = table(), moved(table())
    # The order of a table says nothing.
    found = measured(save("a", first, threshold=0.4), save("b", other[::-1], threshold=0.7))
    group = found.pooled["none"]
    labels, logits = cells.labels_logits(first)
    _, others = cells.labels_logits(other)
    ours = metrics.evaluate(labels, logits, 0.4, 0)
    theirs = metrics.evaluate(labels, others, 0.7, 0)
    assert set(group.differences[0]) == set(estimates.METRICS)
    for name, difference in group.differences[0].items():
        assert group.measured[0][name].value == ours[name].value
        assert group.measured[1][name].value == pytest.approx(theirs[name].value, abs=1e-12)
        gap = theirs[name].value - ours[name].value
        assert difference.estimate.value == pytest.approx(gap, abs=1e-12)
        assert difference.estimate.low <= gap + 1e-12 and gap <= difference.estimate.high + 1e-12
    cell = found.cells["s", "sd"].differences[0]
    part = [place for place, each in enumerate(first) if each.generator in ("", "sd")]
    gap = metrics.auroc(labels[part], others[part]) - metrics.auroc(labels[part], logits[part])
    assert cell[estimates.AUROC].estimate.value == pytest.approx(gap, abs=1e-12)


def test_only_common_pictures_count(save: Save, tmp_path: Path) -> None:
    whole = table()
    lacking = [*whole[5:], row(1, 0.0, "glide", "new"), row(1, None, "sd", "unreadable")]
    broken = [replace(whole[-1], logit=None, score=None, error="x")]
    a, b = save("a", [*whole[:-1], *broken]), save("b", lacking)
    found = measured(a, b)
    wanted = {each.key for each in whole[5:-1]}
    assert {each.key for each in found.shared.rows} == wanted
    summary = compare.compare([a, b], tmp_path / "out")
    assert f"{len(wanted)} pictures in common; a has 5 more; b has 2 more" in summary
    text = (tmp_path / "out" / "compare.md").read_text()
    assert f"| a | {a} | 89 | 1 | 5 | 0.5 |" in text
    assert f"| b | {b} | 86 | 1 | 2 | 0.5 |" in text


def test_three_runs_are_each_compared_with_the_first(save: Save) -> None:
    folders = [save(name, moved(table(), noise)) for name, noise in (("a", 0), ("b", 1), ("c", 2))]
    group = measured(*folders).pooled["none"]
    values = [each[estimates.AUROC].value for each in group.measured]
    gaps = [each[estimates.AUROC].estimate.value for each in group.differences]
    assert gaps == [pytest.approx(value - values[0]) for value in values[1:]]


def test_fakes_alone_are_compared_by_their_detection_rate(save: Save, tmp_path: Path) -> None:
    fakes = [each for each in table() if each.label]
    folders = [save("a", fakes), save("b", moved(fakes), threshold=0.8)]
    found = measured(*folders)
    assert set(found.pooled["none"].differences[0]) == {estimates.DETECTION_RATE}
    summary = compare.compare(folders, tmp_path / "out")
    assert "detection rate" in summary and "AUROC" not in summary
    assert not (tmp_path / "out" / "compare_roc.png").exists()
    assert (tmp_path / "out" / "compare_generators_2.png").exists()


def test_degradations_are_kept_apart(save: Save, tmp_path: Path) -> None:
    blurred = moved(table(), 3.0, "blur:2")
    a = save("a", [*blurred, *table()], degradations=["none", "blur:2"])
    b = save("b", [*moved(table(), 0.5), *moved(blurred, 0.5, "blur:2")])
    found = measured(a, b)
    assert list(found.pooled) == ["none", "blur:2"] and found.base == "none"
    labels, logits = cells.labels_logits(table())
    auroc = found.pooled["none"].measured[0][estimates.AUROC].value
    assert auroc == pytest.approx(metrics.auroc(labels, logits))
    assert len(found.cells["s", "sd"].measured) == 2
    assert found.cells["s", "sd"].measured[0].n_synthetic == 30
    text = compare.compare([a, b], tmp_path / "out")
    assert "\nblur:2" in text
    assert "## Degradations" in (tmp_path / "out" / "compare.md").read_text()


def test_cells_are_those_of_the_common_protocol(save: Save) -> None:
    rows = table(sources=("a", "b"))
    rows = [replace(each, source="" if each.label else each.source) for each in rows]
    asked = {"benchmark": "spai", "protocol": "published"}
    crossed = measured(save("x", rows, **asked), save("y", moved(rows), **asked))
    assert set(crossed.cells) == {(s, g) for s in ("a", "b") for g in ("glide", "sd")}
    own = measured(save("x", rows, **asked), save("y", moved(rows)))
    assert set(own.cells) == {("", "glide"), ("", "sd")}
    gone = {"benchmark": "no such", "protocol": "published"}
    runs = [comparison.read_run(save(name, rows, **gone)) for name in "xy"]
    assert comparison.pairing(runs) == Pairing()


def test_what_differs_is_said(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [replace(each, digest="1") for each in table()]
    others = [replace(each, digest="2") if each.label else each for each in rows]
    a = save("a", rows, benchmark="genimage", protocol="published")
    b = save("b", others, benchmark="genimage", protocol="matched")
    content = json.loads((b / "run.json").read_text())
    del content["counts"]
    (b / "run.json").write_text(json.dumps(content))
    compare.compare([a, b], tmp_path / "out")
    text = (tmp_path / "out" / "compare.md").read_text()
    for said in (
        "The runs differ in protocol: a published; b matched.",
        "60 files of b have the names, but not the content of the others.",
        "b did not finish",
    ):
        assert f"> **Warning:** {said}" in text
        assert any(said in message for message in caplog.messages)
    assert "differ in benchmark" not in text and "not corrected" in text
    compare.compare([a, a], tmp_path / "out")
    assert "Warning" not in (tmp_path / "out" / "compare.md").read_text()


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/mine", "runs/other"], ["mine", "other"]),
        (["runs/spai/eval_val", "runs/ssp/eval_val"], ["spai", "ssp"]),
        (["x/a/v", "y/a/v", "x/b/v"], ["x/a", "y/a", "x/b"]),
        (["runs", "runs/val"], ["runs", "runs/val"]),
        (["x/a", "x/a"], ["1: a", "2: a"]),
    ],
)
def test_runs_are_named_by_what_tells_their_folders_apart(
    folders: list[str], names: list[str]
) -> None:
    assert comparison.names([Path(folder) for folder in folders]) == names


def test_files_hold_their_plots_and_escape_names(save: Save, tmp_path: Path) -> None:
    nasty = [replace(each, generator=each.generator and f"{each.generator}<b>|\n$") for each in
             table()]  # fmt: skip
    folders = [save("<i>$a", nasty), save("b|\n", moved(nasty))]
    out = tmp_path / "new" / "out"
    compare.compare(folders, out)
    assert {path.name for path in out.iterdir()} == {
        "compare.md", "compare.html", "compare_roc.png", "compare_generators_2.png",
    }  # fmt: skip
    page = (out / "compare.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "<b>" not in page and "<i>" not in page and "://" not in page
    (out / "compare_generators_3.png").write_bytes(b"of an earlier comparison")
    compare.compare(folders, out)
    assert not (out / "compare_generators_3.png").exists()


def test_without_matplotlib_the_tables_remain(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    compare.compare([save("a", table()), save("b", table())], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.md", "compare.html"}
    assert "matplotlib is not installed" in (tmp_path / "out" / "compare.html").read_text()


def test_what_is_no_run_is_refused_in_one_line(save: Save, tmp_path: Path) -> None:
    good = save("good", table())
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "run.json: No such file": empty,
        "run.json: Not a directory": good / "run.json",
        "a damaged run.json": save("damaged", table()),
        "no threshold": save("threshold", table(), threshold="high"),
        "found no threshold": save("range", table(), threshold=7),
        "scores.csv: No such file": save("unscored", table()),
        "expected the columns": save("columns", table()),
        "scores.csv, line 92: expected 11 values": save("torn", table()),
        "expected the label 0 or 1, found '3'": save("labels", [replace(table()[0], label=3)]),
    }
    (tmp_path / "damaged" / "run.json").write_text("{")
    (tmp_path / "unscored" / "scores.csv").unlink()
    (tmp_path / "columns" / "scores.csv").write_text("a,b\n")
    torn = tmp_path / "torn" / "scores.csv"
    torn.write_text(torn.read_text() + "key,s,glide,1,-0.")
    for said, folder in cases.items():
        with pytest.raises(ConfigError, match=said) as caught:
            compare.compare([good, folder], tmp_path / "out")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_compared_are_refused(save: Save, tmp_path: Path) -> None:
    a = save("a", table())
    with pytest.raises(ConfigError, match="two runs or more; found 1"):
        compare.compare([a])
    others = save("b", [replace(each, key=f"x{each.key}") for each in table()])
    with pytest.raises(ConfigError, match=r"none in common: 's/r0' in .*'xs/r0' in"):
        compare.compare([a, others])
    with pytest.raises(ConfigError, match="'none' in"):
        compare.compare([a, save("c", [])])
    swapped = [replace(table()[0], label=1), *table()[1:]]
    with pytest.raises(ConfigError, match=r"found 1 that differ, such as 's/r0', real only in"):
        compare.compare([a, save("d", swapped)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a folder; found a file"):
        compare.compare([a, a], tmp_path / "file")

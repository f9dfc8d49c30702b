"""The report's files, what they say, and what they must not say."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from engine.evaluation import metrics
from engine.evaluation.analysis import Analysis, View, analyse, averages, means, worst_errors
from engine.evaluation.benchmark_file import Facts, Part, Published, Reported
from engine.evaluation.cells import Cell, Pairing
from engine.evaluation.estimates import Estimate, Metrics
from engine.evaluation.reported import OTHER_PICTURES, Beside, Comparable
from engine.reporting import drawing, plots, report, results
from engine.reporting.plots import heat_metric, heatmap
from engine.reporting.report import WIDE
from engine.reporting.tables import metric_name, percent, points
from engine.reporting.training_curves import draw_curves
from engine.scoring.table import ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUN: dict[str, object] = {
    "command": "main.py --phase eval",
    "weights": {"sha256": "ab12"},
    "timings": [1.5, 2],
}
NASTY = "<b>|\n"


def row(label: int | None, logit: float, source: str, generator: str, key: str) -> ScoreRow:
    score = 1 / (1 + math.exp(-logit))
    return ScoreRow(key, source, generator, label, logit, score, "", "none", 64, 64)


def broken(key: str, error: str = "truncated") -> ScoreRow:
    return ScoreRow(key, "coco", "glide", 1, None, None, error, "none", None, None)


def table(sources: Iterable[str] = ("coco",), n: int = 40) -> list[ScoreRow]:
    rng = np.random.default_rng(0)
    rows = []
    for source in sources:
        rows += [row(0, rng.normal(-2, 1), source, "real", f"{source}/r{i}") for i in range(n)]
        for generator, mean in (("glide", 0.0), ("sd_v1_4", 2.0)):
            rows += [
                row(1, rng.normal(mean, 1), source, generator, f"{source}/{generator}{i}")
                for i in range(n // 2)
            ]
    return rows


def written(
    folder: Path, rows: list[ScoreRow], run: dict[str, object] = RUN, title: str = "T"
) -> tuple[str, str]:
    report.write_report(folder, rows, 0.5, run, title)
    return (folder / "report.md").read_text("utf-8"), (folder / "report.html").read_text("utf-8")


def without_plots(page: str) -> str:
    return re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", page)


@pytest.fixture
def drawn() -> None:
    """For tests that look at plots, which take most of a report's time."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report.plots, "draw", lambda analysis: {})


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_all_files_are_written_and_the_plots_open(tmp_path: Path, drawn: None) -> None:
    files = report.write_report(tmp_path / "new", table(), 0.5, RUN, "Title")
    names = {
        "report.md", "report.html", "roc.png", "pr.png", "histogram.png", "calibration.png",
        "generators.png",
    }  # fmt: skip
    assert {path.name for path in files} == names
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert min(picture.size) > 200
                assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_html_holds_its_plots_and_refers_to_nothing_else(tmp_path: Path, drawn: None) -> None:
    _, page = written(tmp_path, table())
    assert page.count('src="data:image/png;base64,') == 5
    rest = without_plots(page)
    assert "://" not in rest and "src=" not in rest and "href=" not in rest
    assert "url(" not in rest and "@import" not in rest
    assert 'name="viewport"' in rest and "prefers-color-scheme: dark" in rest


def test_the_page_runs_and_loads_nothing_but_its_own(tmp_path: Path) -> None:
    """Its policy names what stands inline by its sum, and refuses the rest."""
    _, page = written(tmp_path, table())
    [rules] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    policy = dict(rule.strip().split(" ", 1) for rule in rules.split(";"))
    assert (policy["default-src"], policy["img-src"]) == ("'none'", "data:")
    for tag in ("style", "script"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert " style=" not in page and not re.search(r" on\w+=", page)


def test_names_are_escaped(tmp_path: Path) -> None:
    rows = [*table(), broken(f"a{NASTY}b", error="<i>bad</i> | header\r\n# not a heading")]
    rows.append(row(1, 1.0, f"src{NASTY}", f"gen{NASTY}", "x\udcff.png"))
    run = {"command": f"<script>{NASTY}", "undecodable": "\udcff"}
    text, page = written(tmp_path, rows, title=f"<u>{NASTY}", run=run)
    for tag in ("<b>", "<i>", "<u>", "<script>|"):
        assert tag not in text and tag not in page
    assert "a&lt;b&gt;|\\nb" in page
    assert "a&lt;b&gt;\\|\\\\nb" in text
    assert "\n# not a heading" not in text


def test_markdown_tables_keep_their_columns(tmp_path: Path) -> None:
    rows = [*table(), broken("a|b|c\nd|e"), row(1, 1.0, "s|", "g|\n|", "k")]
    text, _ = written(tmp_path, rows)
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_numbers_are_percent_with_their_interval(tmp_path: Path) -> None:
    assert percent(Estimate(0.9314, 0.91, 0.949)) == "93.1 [91.0, 94.9]"
    assert percent(0.5) == "50.0" and percent(None) == "–"
    assert percent(Estimate(0.5, math.nan, math.nan)) == "50.0"
    found = analyse(table(), 0.5)
    text, page = written(tmp_path, table())
    for name, estimate in found.pooled.estimates.items():
        label = metric_name(name)
        assert f"| {label} | {percent(estimate)} |" in text
        assert percent(estimate) in page
    cell = found.cells["coco", "sd_v1_4"]
    line = next(line for line in text.splitlines() if line.startswith("| sd_v1_4 |"))
    assert line.startswith("| sd_v1_4 | coco | 40 | 20 | 0 |")
    for name in WIDE:
        assert percent(cell.estimates[name]) in line


def test_run_information_is_flattened(tmp_path: Path) -> None:
    run = {"a": {"b": 1.23456789, "c": None}, "list": ["x", 2], "deep": [{"y": True}], "none": {}}
    text, _ = written(tmp_path, table(n=4), run=run)
    for line in ("a.b | 1.23457", "a.c | None", "list | x, 2", "deep.0.y | True", "none | {}"):
        assert f"| {line} |" in text


def test_the_first_twenty_unreadable_pictures_are_named(tmp_path: Path) -> None:
    rows = table() + [broken(f"bad{i:02}.png") for i in range(25)]
    rows.append(dataclasses.replace(rows[0], key="nan.png", logit=math.nan))
    for text in written(tmp_path, rows):
        assert "26 without a score; the first 20" in text
        assert "bad19.png" in text and "bad20.png" not in text
    text, _ = written(tmp_path, table())
    assert "None." in text and "without a score" not in text


def degraded(rows: list[ScoreRow], name: str, shift: float = 0.0) -> list[ScoreRow]:
    return [
        dataclasses.replace(each, degradation=name, logit=(each.logit or 0.0) + shift)
        for each in rows
    ]


def section(text: str, heading: str) -> str:
    """What stands under a heading of the Markdown report."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_sweep_is_apart_from_the_main_numbers(tmp_path: Path, drawn: None) -> None:
    alone, swept = table(), [*table(), *degraded(table(), "blur:2", 3.0)]
    plain = analyse(alone, 0.5)
    # The order in which a table was filled decides nothing.
    for rows in (swept, swept[::-1]):
        found = analyse(rows, 0.5)
        assert list(found.degradations) == ["none", "blur:2"]
        values = {name: value.value for name, value in found.pooled.estimates.items()}
        assert values == {name: value.value for name, value in plain.pooled.estimates.items()}
    assert plain.degradations == {}
    blurred = analyse(degraded(table(), "blur:2", 3.0), 0.5)
    assert analyse(swept, 0.5).degradations["blur:2"].pooled == blurred.pooled
    text, _ = written(tmp_path, swept)
    rows = section(text, "Degradations")
    assert rows.count("| none |") == rows.count("| blur:2 |") == 2
    rate = percent(blurred.pooled["accuracy_real"])
    assert f" {rate} |" in rows and f" {rate} |" not in section(text, "Averages")
    assert (tmp_path / "robustness.png").exists()
    assert "Degradations" not in written(tmp_path, alone)[0]
    assert not (tmp_path / "robustness.png").exists()


def test_the_base_is_what_the_view_says() -> None:
    rows = [*table(), *degraded(table(), "jpeg:95", -9.0)]
    found = analyse(rows, 0.5, view=View(base="jpeg:95"))
    assert found.base == "jpeg:95" and list(found.degradations) == ["jpeg:95", "none"]
    assert found.pooled["accuracy_real"].value == 1.0
    result = results.result_json(rows, 0.5, View(base="jpeg:95"))
    assert result["coco"]["glide"]["size"] == 60
    # A table without the base is read by its first degradation.
    assert analyse(degraded(table(), "webp:80"), 0.5).base == "webp:80"


def test_unreadable_pictures_are_counted_per_degradation(tmp_path: Path) -> None:
    rows = [*table(), broken("a.png"), *degraded(table(), "blur:1")]
    text, page = written(tmp_path, rows)
    assert "| none | 40 | 40 | 1 |" in text and "| blur:1 | 40 | 40 | 0 |" in text
    warned = "1 of 81 pictures (1.2 %) under none could not be scored"
    assert f"> **Warning:** {warned}" in text and warned in page


@pytest.mark.parametrize(("unreadable", "warned"), [(0, False), (2, False), (3, True)])
def test_more_than_one_percent_unreadable_is_a_warning(
    tmp_path: Path, unreadable: int, warned: bool
) -> None:
    rows = [*table(n=100)[:198], *(broken(f"{n}.png") for n in range(unreadable))]
    for text in written(tmp_path, rows):
        assert ("could not be scored. Every" in text) == warned


def cell(value: float) -> Metrics:
    return Metrics(1, 1, {"AP": Estimate(value, value, value)})


def test_averages_are_named_and_differ() -> None:
    cells = {("a", "x"): cell(0.2), ("b", "x"): cell(0.4), ("a", "y"): cell(0.9)}
    found = {
        each.kind: each
        for each in averages(cell(0.5), cells, View(average="cells", min_pictures=1))
    }
    assert found["generators"].name == "mean over 2 generators"
    assert found["generators"].values["AP"] == pytest.approx(0.6)
    assert found["cells"].name == "mean over 3 cells"
    assert found["cells"].values["AP"] == pytest.approx(0.5)
    assert found["pictures"].values["AP"] == 0.5
    assert means(cells, 0) == {"a": {"AP": pytest.approx(0.55)}, "b": {"AP": 0.4}}
    alone = averages(cell(0.2), {("a", "x"): cell(0.2)}, View(min_pictures=1))
    assert [each.name for each in alone] == ["pooled over pictures", "mean over 1 generator"]
    assert [each.kind for each in averages(cell(0.2), {}, View())] == ["pictures"]


@pytest.mark.parametrize("headline", ["generators", "cells", "pictures"])
def test_one_average_is_marked(tmp_path: Path, headline: str) -> None:
    rows = table(("coco", "flickr"))
    found = analyse(rows, 0.5, 50, view=View(average=headline))
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    names = {
        "generators": "mean over 2 generators",
        "cells": "mean over 4 cells",
        "pictures": "pooled over pictures",
    }
    for text in ((tmp_path / "report.md").read_text(), report.summary_text(rows, 0.5, found)):
        for kind, name in names.items():
            assert (f"{name} (headline)" in text) == (kind == headline)


def test_a_mean_over_cells_is_marked_where_there_is_one_cell_a_generator() -> None:
    """Where cells and generators are the same, there is but one mean."""
    found = analyse(table(), 0.5, 0, view=View(average="cells"))
    assert found.headline.name == "mean over 2 generators"


def test_each_set_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = table()
    found = analyse(rows, 0.5)
    monkeypatch.setattr(metrics, "evaluate", lambda *_: pytest.fail("measured again"))
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    assert report.summary_text(rows, 0.5, found)


def test_fakes_alone_have_a_detection_rate_and_no_ranking(tmp_path: Path, drawn: None) -> None:
    fakes = [each for each in table() if each.label == 1]
    text, page = written(tmp_path, fakes)
    for content in (text, without_plots(page), report.summary_text(fakes, 0.5)):
        assert "detection rate" in content
        assert "AUROC" not in content and not re.search(r"\bAP\b", content)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.md", "report.html", "histogram.png", "generators.png"}
    cell = results.result_json(fakes, 0.5)["coco"]["glide"]
    assert cell["AP"] is None and cell["size"] == 20
    rate = analyse(fakes, 0.5).cells["coco", "glide"].estimates["detection_rate"]
    assert cell["Accuracy"] == rate.value
    assert set(results.output_json(fakes)["coco"]["glide"]["y_true"]) == {1}


def test_reals_alone_have_their_accuracy(tmp_path: Path) -> None:
    reals = [each for each in table() if each.label == 0]
    text, _ = written(tmp_path, reals)
    assert "accuracy on real" in text and "AUROC" not in text
    assert "accuracy on real" in report.summary_text(reals, 0.5)
    assert results.result_json(reals, 0.5)["coco"]["real"]["size"] == 40
    assert results.output_json(reals)["coco"]["real"]["y_true"] == [0] * 40


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [broken("a.png")],
        [row(None, 1.0, "s", "g", "k")],
        [row(1, 1.0, "s", "g", "k")],
        [row(0, -1.0, "s", "", "k"), row(1, 1.0, "s", "$a^$", "l")],
    ],
    ids=["empty", "error", "unlabelled", "one fake", "two pictures"],
)
def test_tiny_tables_are_reported(tmp_path: Path, rows: list[ScoreRow], drawn: None) -> None:
    text, page = written(tmp_path, rows)
    assert "Run" in text and "</html>" in page
    assert report.summary_text(rows, 0.5).startswith("percent")
    json.dumps([results.result_json(rows, 0.5), results.output_json(rows)], allow_nan=False)


def test_without_matplotlib_the_tables_remain(
    tmp_path: Path, no_matplotlib: None, drawn: None
) -> None:
    (tmp_path / "roc.png").write_bytes(b"of an earlier report")
    text, page = written(tmp_path, table())
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}
    for content in (text, page):
        assert "matplotlib is not installed" in content and "AUROC" in content
        assert "<img" not in content and "![" not in content


def test_a_failed_write_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, _ = written(tmp_path, table())

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path, table(n=8))
    assert (tmp_path / "report.md").read_text("utf-8") == earlier
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_summary_is_aligned_and_complete() -> None:
    lines = report.summary_text(table(("coco", "flickr")), 0.5).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "pooled over pictures",
        "coco/glide",
        "coco/sd_v1_4",
        "flickr/glide",
        "flickr/sd_v1_4",
        "mean over 2 generators (headline)",
        "mean over 4 cells",
    ]
    assert len({len(line) for line in lines}) == 1
    single = report.summary_text(table(), 0.5)
    assert "\nglide  " in single and "cells" not in single


# What was published


def published(**tables: dict[str, dict[str, object]]) -> Published:
    empty = {name: {} for name in ("cells", "generators", "sources", "averages")}
    rest: dict[str, Any] = empty | tables
    return Published("Paper, table 1", "default", {}, (), **rest)


def crossed_analysis(figures: Published, sources: Iterable[str] = ("coco", "flickr")) -> Analysis:
    """Every cell has AP 0.9 and accuracy 0.8, but flickr/sd_v1_4 AP 0.7."""
    cells: dict[Cell, Metrics] = {}
    for source in sources:
        for generator in ("glide", "sd_v1_4"):
            value = 0.7 if (source, generator) == ("flickr", "sd_v1_4") else 0.9
            cells[source, generator] = Metrics(
                1, 1, {"AP": Estimate(value, 0.5, 1.0), "accuracy": Estimate(0.8, 0.5, 1.0)}
            )
    view = View(average="cells", published=figures, min_pictures=1)
    empty = analyse([], 0.5, view=view)
    pooled = cells["coco", "glide"]
    return dataclasses.replace(
        empty, pooled=pooled, cells=cells, averages=averages(pooled, cells, view)
    )


FIGURES = published(
    cells={
        "AP": {
            "coco": {"glide": 95.0, "sd_v1_4": 90.0},
            "flickr": {"glide": 85.0, "sd_v1_4": 80.0},
        }
    },
    sources={"AP": {"coco": 92.6, "flickr": 82.4}},
)


def mean(theirs: Comparable, kind: str, name: str) -> Mapping[str, float]:
    """The figures of a mean that are of the same pictures."""
    return getattr(theirs, kind)(name).published


def test_published_figures_stand_beside_ours() -> None:
    found = Comparable(FIGURES, crossed_analysis(FIGURES))
    assert found.cell(("flickr", "sd_v1_4")) == Beside({"AP": 80.0})
    assert mean(found, "source", "coco") == {"AP": 92.6}
    assert mean(found, "generator", "glide") == {"AP": 90.0}
    assert mean(found, "average", "cells") == {"AP": 87.5} == mean(found, "average", "generators")
    assert mean(found, "average", "pictures") == {}


def test_a_part_is_not_compared_with_the_mean_of_the_whole() -> None:
    figures = dataclasses.replace(
        FIGURES,
        cells={"AP": {"coco": {"glide": 95.0, "sd_v1_4": 90.0, "more": 10.0}}},
        averages={"AP": {"cells": 65.0, "pictures": 66.0}},
    )
    found = Comparable(figures, crossed_analysis(figures, ["coco"]))
    assert mean(found, "source", "coco") == {"AP": 92.5}
    assert mean(found, "average", "cells") == {"AP": 92.5}
    assert mean(found, "average", "pictures") == {}
    # Nor is a mean of ours, where one of its cells has no figure.
    assert mean(Comparable(figures, crossed_analysis(figures)), "average", "cells") == {}


def test_published_averages_count_where_all_was_measured() -> None:
    figures = published(
        generators={"accuracy": {"glide": 70.0, "sd_v1_4": 90.0}},
        averages={"accuracy": {"generators": 81.0, "pictures": 82.0}},
    )
    for sources in (["coco"], ["coco", "flickr"]):
        found = Comparable(figures, crossed_analysis(figures, sources))
        assert mean(found, "generator", "glide") == {"accuracy": 70.0}
        assert mean(found, "average", "generators") == {"accuracy": 81.0}
        assert mean(found, "average", "pictures") == {"accuracy": 82.0}
        # Of several sources a generator's figure is a mean, and that of no cell.
        own = {"accuracy": 70.0} if len(sources) == 1 else {}
        assert found.cell(("coco", "glide")).published == own


SPAI = published(
    generators={"AUROC": {"glide": 90.0, "sd": 80.0}}, averages={"AUROC": {"generators": 85.5}}
)


def measured(names: Iterable[str] = ("AP", "AUROC", "accuracy")) -> Metrics:
    return Metrics(1, 1, {name: Estimate(0.9, 0.5, 1.0) for name in names})


def crossed(
    figures: Published | None, sources: Iterable[str], generators: Iterable[str] = ("glide", "sd")
) -> Analysis:
    """Every generator against every source, of a benchmark with coco, raise, glide and sd."""
    cells = {(source, name): measured() for source in sources for name in generators}
    view = View(
        Pairing("crossed"), published=figures, generators=("glide", "sd"),
        sources=("raise", "coco"), min_pictures=1,
    )  # fmt: skip
    empty = analyse([], 0.5, view=view)
    pooled = measured()
    found = averages(pooled, cells, view)
    return dataclasses.replace(empty, pooled=pooled, cells=cells, averages=found)


def test_a_mean_over_all_sources_is_not_shown_beside_one_over_fewer() -> None:
    whole = Comparable(SPAI, crossed(SPAI, ["coco", "raise"]))
    assert mean(whole, "generator", "glide") == {"AUROC": 90.0}
    assert mean(whole, "average", "generators") == {"AUROC": 85.5}
    for sources in (["coco"], ["coco", "raise", "of my own"]):
        part = Comparable(SPAI, crossed(SPAI, sources))
        assert mean(part, "generator", "glide") == mean(part, "average", "generators") == {}
        assert part.cell(("coco", "glide")) == Beside()
    fewer = Comparable(SPAI, crossed(SPAI, ["coco", "raise"], ["sd"]))
    assert mean(fewer, "average", "generators") == mean(fewer, "generator", "sd") == {"AUROC": 80.0}
    more = Comparable(SPAI, crossed(SPAI, ["coco", "raise"], ["sd", "glide", "mine"]))
    assert mean(more, "average", "generators") == {} and mean(more, "generator", "sd") == {
        "AUROC": 80.0
    }


def test_a_published_mean_needs_all_of_its_cells_to_have_the_metric() -> None:
    found = crossed_analysis(FIGURES)
    lacking = {cell: found.cells[cell] for cell in found.cells}
    lacking["coco", "glide"] = measured(["accuracy_real"])
    theirs = Comparable(FIGURES, dataclasses.replace(found, cells=lacking))
    # The printed 92.6 is of glide, too.
    assert mean(theirs, "source", "coco") == {"AP": 90.0}
    assert mean(theirs, "average", "cells") == {"AP": 85.0}


@pytest.mark.parametrize(
    ("figures", "sources", "generators", "said"),
    [
        (SPAI, ["coco", "raise"], ["glide", "sd"], "Its means are as printed. A difference is"),
        (SPAI, ["coco"], ["glide", "sd"], "None of its figures is of what was measured here."),
        (
            SPAI,
            ["coco", "raise"],
            ["glide"],
            "Its means are as printed where they are of what was measured here; the others are "
            "taken here, of its figures for the same cells. A difference is",
        ),
        (
            SPAI,
            ["coco", "raise"],
            ["glide", "mine"],
            "Its means are as printed. Figures of other pictures stand under “reported, other "
            "pictures”, and are not compared. A difference is",
        ),
    ],
)
def test_the_note_says_what_the_published_means_are_of(
    tmp_path: Path, figures: Published, sources: list[str], generators: list[str], said: str
) -> None:
    found = crossed(figures, sources, generators)
    report.write_report(tmp_path, [], 0.5, RUN, "T", found)
    for text in ((tmp_path / "report.md").read_text(), report.summary_text([], 0.5, found)):
        assert f"Published: Paper, table 1. {said}" in text


def test_the_note_on_means_that_nobody_printed() -> None:
    figures = dataclasses.replace(FIGURES, sources={})
    found = report.summary_text([], 0.5, crossed_analysis(figures))
    assert "Its means are taken here, of its figures for the same cells. A difference" in found
    assert "as printed" not in found


def test_figures_with_two_decimals_are_shown_with_both(tmp_path: Path) -> None:
    figures = published(
        cells={
            "AP": {"coco": {"glide": 90.04, "sd_v1_4": 90.0}},
            "accuracy": {"coco": {"glide": 82.0, "sd_v1_4": 80.0}},
        }
    )
    found = crossed_analysis(figures, ["coco"])
    report.write_report(tmp_path, [], 0.5, RUN, "T", found)
    text = (tmp_path / "report.md").read_text()
    for line in (
        "| glide | coco | 1 | 1 | 0 | 90.00 [50.00, 100.00] | 90.04 | -0.04 "
        "| 80.0 [50.0, 100.0] | 82.0 | -2.0 |",
        "| mean over 2 generators (headline) | 90.00 | 90.02 | -0.02 | 80.0 | 81.0 | -1.0 |",
    ):
        assert line in text
    assert "90.00 [50.00, 100.00]      90.04       -0.04" in report.summary_text([], 0.5, found)


def test_a_mean_says_over_how_many_it_really_is(tmp_path: Path) -> None:
    rows = [each for each in table(("coco", "flickr")) if each.source == "coco" or not each.label]
    rows += [dataclasses.replace(broken(f"b{n}"), generator="lost") for n in range(3)]
    swept = [*rows, *degraded(rows, "blur:1", 0.5)]
    swept = [
        dataclasses.replace(each, error="x", logit=None)
        if (each.generator, each.degradation) == ("glide", "blur:1")
        else each
        for each in swept
    ]
    found = analyse(swept, 0.5, 0)
    mean = next(average for average in found.averages if average.kind == "generators")
    assert (mean.name, mean.counts["AP"]) == ("mean over 2 generators", 2)
    assert mean.counts["accuracy_real"] == 3
    text = report.summary_text(swept, 0.5, found)
    assert "mean over 3 generators" not in text
    lines = text[text.index("mean over 2 generators, percent") :]
    none, blur = (next(x for x in lines.splitlines() if x.startswith(n)) for n in ("none", "blur"))
    assert none.count("(over ") == 1 and "(over 3)" in none
    assert blur.count("(over 1)") == 4 and "(over 3)" in blur
    report.write_report(tmp_path, swept, 0.5, RUN, "T", found)
    page = (tmp_path / "report.md").read_text()
    assert "The mean over 2 generators (headline) under each:" in page
    assert "mean over 3" not in page and "(over 1)" in section(page, "Degradations")


STATED = published(
    generators={"accuracy": {"glide": 70.0, "sd_v1_4": 90.0}},
    averages={"accuracy": {"generators": 80.5}},
)


@pytest.mark.parametrize(
    ("glide", "sd", "compared", "reported"),
    [
        (20, 20, ["glide", "sd_v1_4", "mean"], []),
        (30, 2000, [], ["glide", "sd_v1_4", "mean"]),
        (20, 21, ["glide"], ["sd_v1_4", "mean"]),
        (None, 20, ["glide", "sd_v1_4", "mean"], []),
    ],
)
def test_figures_of_other_numbers_of_pictures_are_not_compared(
    tmp_path: Path, glide: int | None, sd: int, compared: list[str], reported: list[str]
) -> None:
    parts = {"coco": Part(real=40), "glide": Part(synthetic=glide), "sd_v1_4": Part(synthetic=sd)}
    view = View(
        published=STATED, facts=Facts(parts=parts), min_pictures=1,
        reported=(Reported("Paper, table 9", {"people": 38.7}),),
    )  # fmt: skip
    rows = table()
    found = analyse(rows, 0.5, 0, view=view)
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    page, web = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    summary = report.summary_text(rows, 0.5, found)
    for text in (page, web, summary):
        assert (OTHER_PICTURES in text) == bool(reported)
        assert bool(re.search("difference(?! is)", text)) == bool(compared)
        assert "Paper, table 9, in percent: people 38.7" in text
    numbers = results.metrics_json(found)
    files = {cell["generator"]: cell for cell in numbers["cells"]}
    files["mean"] = numbers["averages"][0]
    result = results.result_json(rows, 0.5, view, found)["coco"]
    for name, figure in {"glide": 70.0, "sd_v1_4": 90.0, "mean": 80.5}.items():
        key, other = ("published", OTHER_PICTURES)[:: 1 if name in compared else -1]
        for entry in (files[name], result.get(name, files[name])):
            assert entry[key] == {"accuracy": figure / 100} and other not in entry
        (line,) = (
            x for x in page.splitlines() if x.startswith(f"| {name} ") and f" {figure} |" in x
        )
        assert bool(re.search(r"\| [+-]\d", line)) == (name in compared)
    if sd == 21:
        assert "Measured on other numbers than theirs: coco/sd_v1_4 20 of 21 synthetic." in summary


def test_figures_of_other_pictures_are_not_compared() -> None:
    """Whatever their number, as where the split is another; a mean over one of them neither."""
    figures = dataclasses.replace(FIGURES, others=frozenset({"coco"}))
    theirs = Comparable(figures, crossed_analysis(figures))
    assert theirs.cell(("coco", "glide")) == Beside(reported={"AP": 95.0})
    assert theirs.cell(("flickr", "glide")) == Beside({"AP": 85.0})
    assert theirs.source("coco") == Beside(reported={"AP": 92.6})
    assert theirs.source("flickr") == Beside({"AP": 82.4})
    assert theirs.generator("glide") == Beside(reported={"AP": 90.0})
    # Nor is a printed mean beside ours of a part.
    part = Comparable(SPAI, crossed(SPAI, ["coco"]))
    assert part.average("generators") == Beside(reported={"AUROC": 85.5})


def test_differences_are_signed_points() -> None:
    assert [points(value) for value in (-0.025, 0.0004, -0.0004, 0.1)] == [
        "-2.5", "+0.0", "+0.0", "+10.0",
    ]  # fmt: skip


def test_published_figures_are_printed_with_their_difference(tmp_path: Path) -> None:
    found = crossed_analysis(FIGURES)
    report.write_report(tmp_path, [], 0.5, RUN, "T", found)
    text = (tmp_path / "report.md").read_text()
    assert "Published: Paper, table 1." in section(text, "Averages")
    for line in (
        "| mean over 4 cells (headline) | 85.0 | 87.5 | -2.5 | 80.0 |",
        "| coco | 90.0 | 92.6 | -2.6 | 80.0 |",
        "| glide | 90.0 | 90.0 | +0.0 | 80.0 |",
        "| sd_v1_4 | flickr | 1 | 1 | 0 | 70.0 [50.0, 100.0] | 80.0 | -10.0 | 80.0 [50.0, 100.0] |",
    ):
        assert line in text
    summary = report.summary_text([], 0.5, found)
    header, *lines = summary.splitlines()
    assert header.split()[-3:] == ["AP", "published", "difference"]
    wanted = next(line for line in lines if line.startswith("mean over 4 cells (headline)"))
    assert wanted.split()[-3:] == ["85.0", "87.5", "-2.5"]
    assert "Published: Paper, table 1." in summary


def test_the_summary_of_many_cells_has_means_instead(tmp_path: Path) -> None:
    sources = [f"s{place}" for place in range(16)]
    rows = table(sources, n=2)
    found = analyse(rows, 0.5, 0, view=View(min_pictures=1))
    assert len(found.cells) == 32
    lines = report.summary_text(rows, 0.5, found).splitlines()
    names = [line.split("  ")[0] for line in lines[1 : lines.index("")]]
    assert names == [
        "pooled over pictures",
        *sorted(f"source {source}" for source in sources),
        "glide",
        "sd_v1_4",
        "mean over 2 generators (headline)",
        "mean over 32 cells",
    ]
    assert "all 32 cells" in lines[-1]
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    text = (tmp_path / "report.md").read_text()
    assert section(text, "Cells").count("| glide |") == 16


# Cells


def test_crossed_pairing_and_caps_reach_every_number() -> None:
    rows = table(("coco", "flickr"))
    crossed = analyse(rows, 0.5, 0, view=View(Pairing("crossed")))
    assert set(crossed.cells) == {(s, g) for s in ("coco", "flickr") for g in ("glide", "sd_v1_4")}
    assert {(c.n_real, c.n_synthetic) for c in crossed.cells.values()} == {(40, 40)}
    view = View(Pairing(cap=15, balanced=True))
    capped = analyse(rows, 0.5, 0, view=view)
    assert {(c.n_real, c.n_synthetic) for c in capped.cells.values()} == {(15, 15)}
    assert results.result_json(rows, 0.5, view)["coco"]["glide"]["size"] == 30
    truth = results.output_json(rows, view)["flickr"]["sd_v1_4"]["y_true"]
    assert truth == [0] * 15 + [1] * 15


@pytest.mark.parametrize("source", ["", "glide"])
def test_the_data_set_names_what_has_no_source(source: str) -> None:
    rows = [row(0, -1.0, source, "", "r"), row(1, 1.0, source, "glide", "f")]
    view = View(dataset="Bench")
    assert list(results.result_json(rows, 0.5, view)) == ["Bench"]
    assert list(results.output_json(rows, view)["Bench"]) == ["glide"]
    assert list(results.result_json(table(), 0.5, view)) == ["coco"]


# Worst errors


def test_worst_errors_are_the_most_confident_ones() -> None:
    rows = [
        row(0, 3.0, "s", "", "b"), row(0, 3.0, "s", "", "a"), row(1, -5.0, "s", "g", "c"),
        row(0, -9.0, "s", "", "right"), row(1, 9.0, "s", "g", "right too"),
        row(None, 9.0, "s", "", "unlabelled"), broken("broken"),
        dataclasses.replace(row(1, 0.0, "s", "g", "nan"), logit=math.nan),
        row(1, 0.0, "s", "g", "on the line"),
    ]  # fmt: skip
    found = [each.key for each in worst_errors(rows, 0.5)]
    assert found == ["c", "a", "b", "on the line"]
    assert [each.key for each in worst_errors(rows, 0.5, count=2)] == ["c", "a"]
    again = [*rows, row(1, -1.0, "s", "g", "c")]
    assert [each.key for each in worst_errors(again, 0.5)] == found
    assert worst_errors(rows[3:5], 0.5) == []


@pytest.mark.parametrize(("threshold", "keys"), [(0.0, ["b", "a"]), (1.0, ["c", "d"])])
def test_worst_errors_of_the_outermost_thresholds(threshold: float, keys: list[str]) -> None:
    rows = [
        row(0, -3.0, "s", "", "a"), row(0, 3.0, "s", "", "b"),
        row(1, -3.0, "s", "g", "c"), row(1, 3.0, "s", "g", "d"),
    ]  # fmt: skip
    assert [each.key for each in worst_errors(rows, threshold)] == keys


def jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def test_worst_errors_are_shown(tmp_path: Path) -> None:
    rows = [row(0, 3.0, "s", "", f"a{NASTY}"), row(1, -2.0, "", "g", "b.png")]
    thumbnails = {rows[0].key: jpeg("red")}
    files = report.write_report(tmp_path, rows, 0.5, RUN, "T", thumbnails=thumbnails)
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1 == page.count("no picture to show")
    assert "<b>a&lt;b&gt;|\\n</b>" in page and "called synthetic" in page
    assert "(errors.png)" in section(text, "Worst errors")
    assert "| b.png | synthetic: g | 0.1192 | -2.00 | real |" in text
    assert tmp_path / "errors.png" in files
    with Image.open(tmp_path / "errors.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or []}
    assert any(red > 240 and green < 20 for red, green, _ in colours)


def test_without_thumbnails_or_errors(tmp_path: Path) -> None:
    text, page = written(tmp_path, [row(0, 3.0, "s", "", "a.png")])
    assert "| a.png | real (s) | 0.9526 | 3.00 | synthetic |" in text and "a.png" in page
    assert "errors.png" not in text and not (tmp_path / "errors.png").exists()
    text, _ = written(tmp_path, [row(0, -3.0, "s", "", "a.png")])
    assert "Worst errors" not in text


def test_plots_of_an_earlier_report_go(tmp_path: Path, drawn: None) -> None:
    rows = table(("coco", "flickr"))
    thumbnails = dict.fromkeys((each.key for each in rows), jpeg("blue"))
    swept = [*rows, *degraded(rows, "jpeg:50", 1.0)]
    report.write_report(tmp_path, swept, 0.5, RUN, "T", thumbnails=thumbnails)
    assert {path.name for path in tmp_path.iterdir()} == set(report.FILES)
    report.write_report(tmp_path, [], 0.5, RUN, "T")
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}


@pytest.mark.parametrize(
    ("cells", "drawn"),
    [
        ([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")], True),
        ([("a", "x"), ("a", "y"), ("b", "x")], True),
        ([("a", "x"), ("b", "y")], False),
        ([("a", "x"), ("a", "y")], False),
        ([("a", "x"), ("b", "x")], False),
        ([], False),
    ],
)
def test_the_heat_map_needs_sources_and_generators_that_cross(
    cells: list[Cell], drawn: bool
) -> None:
    found = dataclasses.replace(analyse([], 0.5), cells={each: table_cell(0.8) for each in cells})
    assert (heatmap(found) is not None) == drawn


@pytest.mark.parametrize(
    ("view", "generators", "sources"),
    [
        (View(min_pictures=1), ["glide", "mine", "sd"], ["a", "b"]),
        (
            View(generators=("sd", "x", "glide"), sources=("b",), min_pictures=1),
            ["sd", "glide", "mine"],
            ["b", "a"],
        ),
    ],
)
def test_tables_and_plots_have_one_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    view: View,
    generators: list[str],
    sources: list[str],
) -> None:
    """That of the benchmark, then by name; of the plots, whose first row is the lowest, upwards."""
    logits = {"sd": 0.1, "mine": 0.9, "glide": -0.5}
    rows = [
        row(label, logits.get(name, 0.0) + shift, source, name, f"{source}/{name}{label}{shift}")
        for source in ("a", "b")
        for name in ("", *logits)
        for label in [int(bool(name))]
        for shift in (-1.0, 0.0, 1.0)
    ]
    drawn: list[list[str]] = []
    name_rows = drawing.name_rows

    def spy(axes: Axes, names: Sequence[str], height: float = 1.0) -> None:
        drawn.append(list(names)[::-1])
        name_rows(axes, names, height)

    monkeypatch.setattr(drawing, "name_rows", spy)
    found = analyse(rows, 0.5, 0, view=view)
    assert plots.generators(found) and heatmap(found)
    assert drawn == [generators, generators]
    assert list(found.cells) == [(source, name) for source in sources for name in generators]
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    text = (tmp_path / "report.md").read_text()
    for heading, names in (("Generators", generators), ("Sources", sources)):
        lines = [line for line in section(text, heading).splitlines() if line.startswith("| ")]
        assert [line.split(" | ")[0][2:] for line in lines[2:]] == names
    alone = [dataclasses.replace(each, source=each.generator) for each in rows if each.label]
    apart = analyse(alone, 0.5, 0, view=view)
    assert [name for _, name in apart.cells] == generators


def table_cell(value: float) -> Metrics:
    return Metrics(1, 1, {"AP": Estimate(value, 0.5, 1.0), "AUROC": Estimate(value, 0.5, 1.0)})


def test_the_heat_map_shows_what_was_published() -> None:
    found = dataclasses.replace(analyse([], 0.5), cells={("a", "x"): table_cell(0.8)})
    assert heat_metric(found) == "AUROC"
    view = View(published=FIGURES)
    assert heat_metric(dataclasses.replace(found, view=view)) == "AP"
    fakes = {("a", "x"): Metrics(0, 1, {"detection_rate": Estimate(1.0, 1.0, 1.0)})}
    assert heat_metric(dataclasses.replace(found, view=view, cells=fakes)) == "detection_rate"


# Files of CO-SPY, odd values


def test_published_json_has_a_cell_per_generator() -> None:
    rows = [*table(("coco", "flickr")), broken("bad.png")]
    result, output = results.result_json(rows, 0.5), results.output_json(rows)
    found = analyse(rows, 0.5).cells
    for source in ("coco", "flickr"):
        assert set(result[source]) == set(output[source]) == {"glide", "sd_v1_4"}
        for generator, cell in result[source].items():
            estimates = found[source, generator].estimates
            assert cell["size"] == 60
            assert cell["AP"] == pytest.approx(estimates["AP"].value)
            assert cell["Accuracy"] == pytest.approx(estimates["accuracy"].value)
            lists = output[source][generator]
            assert lists["y_true"] == [0] * 40 + [1] * 20
            scores = [each.score for each in rows if each.source == source and each.score]
            assert set(lists["y_pred"]) <= set(scores)
    json.dumps([result, output], allow_nan=False)


def test_plots_survive_infinite_logits_and_odd_names(tmp_path: Path, drawn: None) -> None:
    rows = [*table(), row(1, 3.0, "coco", "$a^b$", "k"), row(1, 3.0, "coco", "new\nline", "l")]
    rows += [dataclasses.replace(rows[0], logit=-math.inf, score=0.0)]
    files = report.write_report(tmp_path, rows, 0.5, RUN, "T")
    assert "generators.png" in {path.name for path in files}
    with Image.open(io.BytesIO((tmp_path / "histogram.png").read_bytes())) as picture:
        picture.load()


# What plots look like


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, as matplotlib lays them out."""
    kept: list[Figure] = []
    png = drawing.png

    def keep(found: Figure) -> bytes:
        kept.append(found)
        return png(found)

    monkeypatch.setattr(drawing, "png", keep)
    return kept


def test_bars_do_not_overlap_and_legends_lie_beside_the_axes(figures: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 300)
    logits = rng.normal(9 * (2 * labels - 1), 5)
    pooled = metrics.evaluate(labels, logits, 0.9, 0)
    assert plots._calibration(labels, logits, pooled) and plots._histogram(labels, logits, 0.9)
    calibration, histogram = figures
    bars = [bar.get_bbox().intervalx for bar in calibration.axes[1].patches]
    assert len(bars) > 5
    assert all(right <= left for (_, right), (left, _) in itertools.pairwise(bars))
    for figure in figures:
        [legend] = figure.legends
        assert not any(axes.bbox.overlaps(legend.get_window_extent()) for axes in figure.axes)
    assert any(line.get_label() == "threshold 0.9" for line in histogram.axes[0].lines)


def test_axes_of_percents_end_near_a_hundred(figures: list[Figure]) -> None:
    perfect = {"loss": 0.1, "lr": 1e-3, "val_loss": 0.1, "AUROC": 1.0, "AP": 1.0, "accuracy": 0.9}
    draw_curves([{"epoch": n, **perfect} for n in (1, 2)], 2, "T")
    rows = [row(1, 3.0, "", name, f"{name}{i}") for name in ("a", "b") for i in range(12)]
    assert plots.generators(analyse(rows, 0.5, 20))
    training, generators = figures
    assert training.axes[1].get_ylim()[1] < 101 and generators.axes[0].get_xlim()[1] < 101


def test_generators_of_few_pictures_are_hollow(figures: list[Figure]) -> None:
    rows = [*table(), *(row(1, 1.0, "coco", "rare", f"rare{i}") for i in range(2))]
    assert plots.generators(analyse(rows, 0.5, 20))
    faces = {
        float(y): line.get_markerfacecolor()
        for line in figures[0].axes[0].lines
        if line.get_marker() == "o"
        for y in line.get_ydata()
    }
    # The lowest row is the last by name.
    assert faces[1.0] == "white" and faces[0.0] == faces[2.0] != "white"

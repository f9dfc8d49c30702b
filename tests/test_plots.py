"""The plots of evaluations: which are drawn, in which order, and how they look."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from report_cases import RUN, degraded, jpeg, published, row, section, table

from engine.evaluation import metrics
from engine.evaluation.analysis import View, analyse, worst_errors
from engine.evaluation.cells import Cell
from engine.evaluation.estimates import Estimate, Metrics
from engine.evaluation.generators import Release
from engine.reporting import drawing, plots, report
from engine.reporting.plots import heat_metric, heatmap
from engine.reporting.training_curves import draw_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def test_every_plot_is_a_picture_and_goes_when_its_data_do(tmp_path: Path) -> None:
    """Logits and names may be anything."""
    rows = [*table(("coco", "flickr")), row(1, 3.0, "coco", "$a^b$", "k")]
    rows += [row(1, 3.0, "coco", "new\nline", "l")]
    rows += [dataclasses.replace(rows[0], key="m", logit=-math.inf, score=0.0)]
    thumbnails = {each.key: jpeg("blue") for each in worst_errors(rows, 0.5)}
    swept = [*rows, *degraded(rows, "jpeg:50", 1.0)]
    fakes = [each.key for each in rows if each.label]
    dates = {key: Release("GAN", f"{2020 + n % 2}") for n, key in enumerate(fakes)}
    analysis = analyse(swept, 0.5, 20, view=View(releases=dates))
    report.write_report(tmp_path, swept, 0.5, RUN, "T", analysis, thumbnails)
    assert {path.name for path in tmp_path.iterdir()} == set(report.FILES)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    report.write_report(tmp_path, [], 0.5, RUN, "T")
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}


def test_a_plot_says_nothing_of_when_it_was_made() -> None:
    rows = [{"epoch": float(n), "loss": 0.1 * n, "lr": 1e-3} for n in (1, 2)]
    assert draw_curves(rows, 2, "x") == draw_curves(rows, 2, "x") != draw_curves(rows, 1, "x")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn; their files are empty, which saves most of the time."""
    drawn: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        drawn.append(figure)
        return b"a figure"

    monkeypatch.setattr(drawing, "png", keep)
    return drawn


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
    figures: list[Figure], cells: list[Cell], drawn: bool
) -> None:
    found = dataclasses.replace(analyse([], 0.5), cells={each: table_cell(0.8) for each in cells})
    assert (heatmap(found) is not None) == drawn


def table_cell(value: float) -> Metrics:
    return Metrics(1, 1, {"AP": Estimate(value, 0.5, 1.0), "AUROC": Estimate(value, 0.5, 1.0)})


def test_the_heat_map_shows_what_was_published() -> None:
    found = dataclasses.replace(analyse([], 0.5), cells={("a", "x"): table_cell(0.8)})
    assert heat_metric(found) == "AUROC"
    view = View(published=published(averages={"AP": {"cells": 90.0}}))
    assert heat_metric(dataclasses.replace(found, view=view)) == "AP"
    fakes = {("a", "x"): Metrics(0, 1, {"detection_rate": Estimate(1.0, 1.0, 1.0)})}
    assert heat_metric(dataclasses.replace(found, view=view, cells=fakes)) == "detection_rate"


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
    figures: list[Figure],
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
        figure.draw_without_rendering()
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

"""The curves of a training run: what is drawn, in which units, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from engine.reporting import drawing, training_curves
from engine.reporting.training_curves import draw_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAN = math.nan
Row = dict[str, float]
Draw = Callable[..., "Figure"]


def history(count: int, **columns: list[float]) -> list[Row]:
    """Rows with loss, rate and AUROC, and with other columns where they are given."""
    rows: list[Row] = []
    for place in range(count):
        row: Row = {"epoch": place + 1, "loss": 1 - 0.1 * place, "lr": 0.1, "AUROC": 0.5}
        rows.append(row | {name: values[place] for name, values in columns.items()})
    return rows


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """A function that draws curves and returns the figure; its file is empty, which saves time."""
    figures: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return b"a figure"

    monkeypatch.setattr(drawing, "png", keep)

    def drawn(rows: list[Mapping[str, float]], best: int = 1, title: str = "x") -> Figure:
        assert draw_curves(rows, best, title) == b"a figure"
        return figures[-1]

    return drawn


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of the named lines of a panel; marks of an epoch have no name."""
    return {
        str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def dashed(axes: Axes) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axes.get_lines() if line.get_linestyle() == "--"]


def test_three_panels_of_what_was_measured(draw: Draw) -> None:
    rows = history(
        3, val_loss=[0.9, 0.7, 0.8], AP=[0.5, 0.75, 1], accuracy=[0.1, 0.2, 0.3],
        balanced_accuracy=[0, 0.25, 0.5],
    )  # fmt: skip
    left, middle, right = draw(rows).axes
    assert [a.get_ylabel() for a in (left, middle, right)] == [
        "loss", "validation metrics (%)", "learning rate"
    ]  # fmt: skip
    assert {a.get_xlabel() for a in (left, middle, right)} == {"epoch"}
    assert lines(left) == {
        "training": ([1, 2, 3], pytest.approx([1, 0.9, 0.8])),
        "validation": ([1, 2, 3], [0.9, 0.7, 0.8]),
    }
    assert {name: y for name, (_, y) in lines(middle).items()} == {
        "AUROC": [50, 50, 50], "AP": [50, 75, 100],
        "accuracy": pytest.approx([10, 20, 30]), "balanced accuracy": [0, 25, 50],
    }  # fmt: skip
    assert lines(right) == {"learning rate": ([1, 2, 3], [0.1] * 3)}
    assert [text.get_text() for text in middle.get_legend().get_texts()] == list(lines(middle))


@pytest.mark.parametrize(("count", "best"), [(1, 1), (3, 2), (35, 30)])
def test_the_kept_epoch_is_marked_in_all_panels(draw: Draw, count: int, best: int) -> None:
    figure = draw(history(count), best)
    for axes in figure.axes:
        assert [best, best] in [list(line.get_xdata()) for line in axes.get_lines()]
        low, high = axes.get_xlim()
        assert low < 1 and count < high
        ticks = axes.get_xticks()
        assert all(tick == round(tick) for tick in ticks)
        assert [tick for tick in ticks if 1 <= tick <= count]
    [legend] = figure.legends
    assert legend.get_texts()[0].get_text() == f"epoch {best}, whose weights are kept"


def test_one_epoch_is_points(draw: Draw) -> None:
    for axes in draw(history(1, val_loss=[0.4])).axes:
        named = [line for line in axes.get_lines() if str(line.get_label())[0] != "_"]
        assert named
        assert all(line.get_marker() == "o" and line.get_markersize() >= 4 for line in named)


def test_what_is_missing_is_a_gap(draw: Draw) -> None:
    rows = history(5, val_loss=[0.5, NAN, 0.3, math.inf, 0.1], AP=[NAN] * 5)
    del rows[1]["AUROC"], rows[3]["loss"]
    left, middle, _ = draw(rows).axes
    np.testing.assert_array_equal(lines(left)["validation"][1], [0.5, NAN, 0.3, NAN, 0.1])
    np.testing.assert_array_equal(lines(left)["training"][1], [1, 0.9, 0.8, NAN, 0.6])
    np.testing.assert_array_equal(lines(middle)["AUROC"][1], [50, NAN, 50, 50, 50])
    assert "AP" not in lines(middle)


def test_a_column_may_begin_late(draw: Draw) -> None:
    rows = history(3)
    rows[2]["late accuracy"] = 0.25
    assert len(dashed(draw(rows).axes[1])) == 1
    np.testing.assert_array_equal(dashed(draw(rows).axes[1])[0], [NAN, NAN, 25])


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, 0.06], "linear"),
        ([1.0, 0.049], "log"),
        ([1.0, 0.0], "linear"),
        ([1.0, NAN], "linear"),
        ([NAN, NAN], "linear"),
        ([0.0, 0.0], "linear"),
    ],
)
def test_losses_of_many_magnitudes(draw: Draw, losses: list[float], scale: str) -> None:
    rows = history(2, val_loss=losses)
    rows = [row | {"loss": 1.0} for row in rows]
    left, middle, right = draw(rows).axes
    assert (left.get_yscale(), middle.get_yscale(), right.get_yscale()) == (
        scale,
        "linear",
        "linear",
    )


def test_tested_sets_are_dashed_and_told_apart(draw: Draw) -> None:
    rows = history(2, **{
        "test_a AUROC": [0.1, 0.2], "test_a balanced_accuracy": [0.3, 0.4],
        "b c AP": [0.5, 0.6], "b c val_loss": [2, 3], "unknown": [7, 7], "notAP": [7, 7],
    })  # fmt: skip
    figure = draw(rows)
    left, middle, _ = figure.axes
    assert dashed(left) == [[2, 3]]
    assert sorted(dashed(middle)) == [
        pytest.approx(y) for y in ([10, 20], [30, 40], [50, 60])
    ]  # fmt: skip
    thin = [line for line in middle.get_lines() if line.get_linestyle() == "--"]
    solid = {str(line.get_label()): line for line in middle.get_lines()}["AUROC"]
    assert all(line.get_linewidth() < solid.get_linewidth() for line in thin)
    assert solid.get_color() in {line.get_color() for line in thin}
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["epoch 1, whose weights are kept", "validation", "test_a", "b c"]
    markers = [line.get_marker() for line in legend.get_lines()]
    assert len(set(markers)) == len(markers)
    assert middle.get_ylabel() == "metrics (%)"


@pytest.mark.parametrize("name", ["a $x$ b", "two\nlines", "x" * 300, "ünï", "$\\frac$", "_hidden"])
def test_names_are_shown_as_they_are(draw: Draw, name: str) -> None:
    figure = draw(history(2, **{f"{name} AUROC": [0.5, 0.6]}), title=name)
    [legend] = figure.legends
    assert legend.get_texts()[-1].get_text() == drawing.label(name)
    assert figure.get_suptitle() == drawing.label(name)


@pytest.mark.parametrize(("count", "best"), [(0, 1), (3, 0), (3, 4)])
def test_the_kept_epoch_is_one_of_them(count: int, best: int) -> None:
    with pytest.raises(ValueError, match=f"epoch of the {count} in history; found {best}"):
        draw_curves(history(count), best, "x")


def test_a_tested_set_may_have_the_name_of_a_metric() -> None:
    rows = history(1, **{"AP AP": [0.5], "loss AUROC": [0.5]})
    assert training_curves.sets_of(rows, training_curves.SHOWN) == ["AP", "loss"]

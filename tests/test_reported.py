"""Figures of papers beside measured numbers: which are compared, and which only stand there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import pytest
from report_cases import published, table

from engine.evaluation.analysis import Analysis, View, analyse, averages
from engine.evaluation.benchmark_file import Facts, Part, Published, Reported
from engine.evaluation.cells import Cell, Pairing
from engine.evaluation.estimates import Estimate, Metrics
from engine.evaluation.reported import OTHER_PICTURES, Beside, Comparable
from engine.reporting import report, results


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


NOBODY_PRINTED = dataclasses.replace(FIGURES, sources={})


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        (crossed(SPAI, ["coco", "raise"]), "Its means are as printed. A difference is"),
        (crossed(SPAI, ["coco"]), "None of its figures is of what was measured here."),
        (
            crossed(SPAI, ["coco", "raise"], ["glide", "mine"]),
            f"Its means are as printed. Figures of other pictures stand under “{OTHER_PICTURES}”",
        ),
        (crossed_analysis(NOBODY_PRINTED), "Its means are taken here, of its figures for the same"),
    ],
)
def test_the_note_says_what_the_printed_means_are_of(analysis: Analysis, said: str) -> None:
    assert f"Published: Paper, table 1. {said}" in report.summary_text([], 0.5, analysis)


STATED = published(
    generators={"accuracy": {"glide": 70.0, "sd_v1_4": 90.0}},
    averages={"accuracy": {"generators": 80.5}},
)


@pytest.mark.parametrize(
    ("glide", "sd", "compared"),
    [
        (20, 20, {"glide", "sd_v1_4", "mean"}),
        (30, 2000, set()),
        (20, 21, {"glide"}),
        (None, 20, {"glide", "sd_v1_4", "mean"}),
    ],
)
def test_figures_of_other_numbers_of_pictures_are_not_compared(
    glide: int | None, sd: int, compared: set[str]
) -> None:
    parts = {"coco": Part(real=40), "glide": Part(synthetic=glide), "sd_v1_4": Part(synthetic=sd)}
    view = View(
        published=STATED, facts=Facts(parts=parts), min_pictures=1,
        reported=(Reported("Paper, table 9", {"people": 38.7}),),
    )  # fmt: skip
    rows = table()
    analysis = analyse(rows, 0.5, 0, view=view)
    summary = report.summary_text(rows, 0.5, analysis)
    assert ("difference" in summary.splitlines()[0]) == bool(compared)
    assert (OTHER_PICTURES in summary.splitlines()[0]) == (len(compared) < 3)
    numbers = results.metrics_json(analysis)
    files = {cell["generator"]: cell for cell in numbers["cells"]}
    files["mean"] = numbers["averages"][0]
    result = results.result_json(rows, 0.5, view, analysis)["coco"]
    for name, figure in {"glide": 0.7, "sd_v1_4": 0.9, "mean": 0.805}.items():
        key, other = ("published", OTHER_PICTURES)[:: 1 if name in compared else -1]
        for entry in (files[name], result.get(name, files[name])):
            assert entry[key] == {"accuracy": figure} and other not in entry

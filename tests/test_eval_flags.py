"""What the flags of phase eval choose: titles, notes, and which published figures stand beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from trees import write_tree

from datasets import spai
from engine.cli import eval_request, parser, settings
from engine.config import ConfigError
from engine.phases.eval import EvalRequest
from engine.runtime.device import open_device
from engine.weights.loaded import Loaded

Ask = Callable[..., EvalRequest]
SSP = ("genimage", "ssp", "--set", "data.published=ssp-sdv4")


def evaluation(folder: Path, name: str, *words: object) -> EvalRequest:
    """What phase eval would do with a detector of that name, without its weights."""
    arguments = ["--phase", "eval", "--detector", name, "--output", folder / "out", *words]
    args = parser.parser().parse_args([str(word) for word in arguments])
    model = SimpleNamespace(trained_on=(), title=name.upper(), given=None)
    loaded = cast(
        Loaded,
        SimpleNamespace(
            trained_on=(), until="", model=model, name=name, threshold=0.5, path=folder
        ),
    )
    return eval_request.evaluation(
        args, loaded, settings.resolve_config(args, name, None), open_device("cpu", "fp32")
    )


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """What phase eval would do on the miniature of a benchmark."""

    def run(benchmark: str, name: str, *words: object) -> EvalRequest:
        root = tmp_path / benchmark
        if not root.exists():
            write_tree(benchmark, root)
        place = ("--benchmark", benchmark, "--data_root", root / "set")
        return evaluation(tmp_path, name, *place, *words)

    return run


def said(request: EvalRequest) -> list[str]:
    """The notes about published figures."""
    notes = [note for note in request.view.notes if "published" in note]
    return [note for note in notes if not note.startswith("pictures are decoded")]


def published(request: EvalRequest) -> Any:
    assert request.view.published is not None, request.view.notes
    return request.view.published


@pytest.fixture
def all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if SPAI's miniature held the published pictures, which it is too small for."""
    monkeypatch.setattr(spai, "published_share", lambda records: {"flux": 1.0})


# --- published figures


@pytest.mark.usefixtures("all_there")
@pytest.mark.parametrize(
    ("benchmark", "name", "words"),
    [
        ("cospy_bench", "cospy", ()),
        ("cospy_bench", "cospy", ("--degrade", "none", "blur:1")),
        ("aigcdetect", "cospy", ("--train_dataset", "progan")),
        ("spai", "spai", ("--set", "spai.feature_batch=4")),
        ("genimage", "ssp", SSP[2:]),
        ("genimage", "ssp", (*SSP[2:], "data.split=val")),
    ],
)
def test_figures_stand_beside_the_same_measurement(
    ask: Ask, benchmark: str, name: str, words: tuple[str, ...]
) -> None:
    request = ask(benchmark, name, *words)
    assert published(request).metrics and said(request) == []
    assert not published(request).others and request.view.facts.source


@pytest.mark.parametrize(
    ("words", "decoding"),
    [
        ((), "published"),
        (("--protocol", "matched"), "upright"),
        (("--set", "data.decoding=upright"), "upright"),
        (("--protocol", "matched", "--set", "data.decoding=published"), "published"),
    ],
)
def test_a_protocol_says_how_pictures_are_decoded(
    ask: Ask, words: tuple[str, ...], decoding: str
) -> None:
    request = ask("genimage", "ssp", *words)
    assert request.workers.decoding == decoding
    told = [note for note in request.view.notes if "data.decoding=published; upright is" in note]
    assert len(told) == (decoding == "published")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--set", "ssp.patches=8"), "they are of ssp.patches 1, these of 8"),
        (("--set", "ssp.layers=[1,1,1,1]"), "ssp.layers (3, 4, 6, 3), these of (1, 1, 1, 1)"),
        (
            ("--limit", "1", "--set", "ssp.patches=8"),
            "ssp.patches 1, these of 8; --limit 1 leaves pictures out",
        ),
    ],
)
def test_figures_of_another_detector_are_not_shown(
    ask: Ask, words: tuple[str, ...], reason: str
) -> None:
    request = ask(*SSP, *words)
    assert request.view.published is None
    (note,) = said(request)
    assert note.startswith("the published figures ssp-sdv4 are not shown: ") and reason in note


@pytest.mark.parametrize(
    ("benchmark", "name", "words", "reason"),
    [
        (*SSP[:2], (*SSP[2:], "--limit", "1"), "--limit 1 leaves pictures out"),
        (*SSP[:2], (*SSP[2:], "data.decoding=upright"), "of data.decoding=published, these of up"),
        (*SSP[:2], (*SSP[2:], "data.split=train"), "they are of the split val, these of train"),
        (*SSP[:2], (*SSP[2:], "--protocol", "matched"), "of the protocol published, these of mat"),
        (*SSP[:2], (*SSP[2:], "--degrade", "blur:1"), "the pictures here are degraded by blur:1"),
        ("cospy_bench", "cospy", ("--limit", "1"), "cospy-sd-v1_4 are of other pictures: --limit"),
        ("spai", "spai", ("--set", "data.split=test"), "of all splits, these of test"),
    ],
)
def test_figures_of_other_pictures_are_reported(
    ask: Ask, benchmark: str, name: str, words: tuple[str, ...], reason: str
) -> None:
    request = ask(benchmark, name, *words)
    assert published(request).others >= set(request.view.generators)
    note = said(request)[0]
    assert note.startswith("the published figures ") and reason in note


@pytest.mark.parametrize(
    ("benchmark", "name", "words", "reason"),
    [
        ("cospy_bench", "cospy", ("--mode", "branch"), "cospy.mode fusion, these of branch"),
        ("spai", "spai", ("--set", "spai.resize_to=512"), "resize_to None, these of 512"),
    ],
)
def test_the_only_figures_of_a_detector_are_missed(
    ask: Ask, benchmark: str, name: str, words: tuple[str, ...], reason: str
) -> None:
    request = ask(benchmark, name, *words)
    (note,) = said(request)
    assert request.view.published is None and reason in note


def test_figures_that_were_asked_for_are_never_dropped_silently(ask: Ask) -> None:
    request = ask("genimage", "default", *SSP[2:])
    assert request.view.published is None
    assert said(request) == [
        "the published figures ssp-sdv4 are not shown: they are of ssp, these of default"
    ]
    with pytest.raises(ConfigError, match=r"data.published: genimage has .*; found 'best'"):
        ask("genimage", "ssp", "--set", "data.published=best", "--degrade", "blur:1")
    # Nobody asked, and there is nothing to show.
    assert said(ask("genimage", "default", "--limit", "1")) == []


@pytest.mark.usefixtures("all_there")
def test_accuracies_at_another_threshold_are_not_shown(ask: Ask) -> None:
    request = ask("cospy_bench", "cospy", "--threshold", "0.3")
    assert published(request).metrics == ["AP"]
    assert said(request) == [
        "the published accuracies are not shown: they are at the threshold 0.5, these at 0.3"
    ]
    request = ask(*SSP, "--threshold", "0.3")
    assert request.view.published is None and len(said(request)) == 1
    request = ask("spai", "spai", "--threshold", "0.3")
    assert published(request).metrics == ["AUROC"] and said(request) == []


# --- what a reader must know


def test_the_leak_is_told_where_its_pictures_are(ask: Ask) -> None:
    def told(*words: str) -> int:
        return sum("val2017" in note for note in ask(*words).view.notes)

    assert told("cospy_bench", "cospy") == told("cospy_bench", "cospy", "--sources", "mscoco") == 1
    assert told("cospy_bench", "cospy", "--sources", "flickr,sbu") == 0
    assert told("drct2m", "cospy") == 1
    assert told("drct2m", "spai") == told("drct2m", "cospy", "--train_dataset", "progan") == 0


# --- the main tables


@pytest.mark.parametrize(
    ("words", "base", "title"),
    [
        ((), "none", "SSP on data"),
        (("--degrade", "none"), "none", "SSP on data"),
        (("--degrade", "jpeg:50"), "jpeg:50", "SSP on data, under jpeg:50"),
        (("--degrade", "jpeg:50", "blur:1"), "none", "SSP on data"),
    ],
)
def test_the_main_tables_are_of_the_first_degradation(
    tree: Path, tmp_path: Path, words: tuple[str, ...], base: str, title: str
) -> None:
    data = tree.rename(tmp_path / "data")
    request = evaluation(tmp_path, "ssp", "--data", data, *words)
    assert request.view.base == request.degradations[0] == base
    assert request.title == title


def test_a_benchmarks_title_names_what_its_pictures_went_through(ask: Ask) -> None:
    request = ask("cospy_bench", "ssp", "--degrade", "blur:1")
    assert request.view.base == "jpeg:95+blur:1"
    assert request.title == "SSP on Co-Spy-Bench, protocol published, under jpeg:95+blur:1"
    request = ask("cospy_bench", "ssp", "--degrade", "blur:1", "blur:2")
    assert request.view.base == request.degradations[0] == "jpeg:95"
    assert request.title.endswith(", under jpeg:95")


def test_tables_and_plots_are_ordered_as_the_benchmark_is(ask: Ask) -> None:
    view = ask("spai", "spai").view
    assert view.generators[:2] == ("glide", "sd13") and view.sources[0] == "coco"

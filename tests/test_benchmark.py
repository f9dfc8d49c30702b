"""The benchmarks' files: what they consist of, and the published figures in them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml

import datasets
import detectors
from datasets import Label, Record, spai
from detectors._cospy_options import CoSpyOptions
from detectors._spai_options import SpaiOptions
from detectors._ssp_baseline_options import SspBaselineOptions
from detectors._ssp_options import SspOptions
from engine.config import ConfigError
from engine.evaluation import benchmark as benchmarks
from engine.evaluation import benchmark_file
from engine.evaluation.benchmark_file import Published
from engine.evaluation.cells import Pairing

COSPY = CoSpyOptions()
# Options of CO-SPY that the fusion does not ask for.
OF_A_BRANCH = {"branch", "feat_interp", "feat_interp_alpha", "feat_interp_ratio"}


FACTS = {"source": "a page", "not_known": list(benchmark_file.ASPECTS)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path)
    return tmp_path


def write(folder: Path, **changes: object) -> None:
    content = {
        "title": "Mine",
        "family": "folder",
        "root": "data/mine",
        "protocols": {"published": {}},
        "facts": FACTS,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content | changes))


@pytest.mark.parametrize("name", benchmarks.available())
def test_every_benchmark_has_a_family_and_both_protocols(name: str) -> None:
    found = benchmarks.load(name)
    family = datasets.load(found.family)
    assert set(found.protocols) == {"published", "matched"}
    assert found.split is None or found.split in family.SPLITS
    matched, published = found.protocols["matched"], found.protocols["published"]
    # One quality and one size for all, and the cells as published.
    assert {step.split(":")[0] for step in matched.degradation.split("+")} == {"crop", "jpeg"}
    assert matched.pairing == published.pairing
    for figures in found.published.values():
        of_cells = {g for t in figures.cells.values() for row in t.values() for g in row}
        of_generators = {g for table in figures.generators.values() for g in table}
        assert of_cells | of_generators == set(found.generators)
    # Each aspect is told, with who says so, or named as one that nobody states.
    facts = found.facts
    assert facts.source and all(
        bool(getattr(facts, name)) != (name in facts.not_known) for name in benchmark_file.ASPECTS
    )
    cells = [(s, g) for s in found.sources or found.generators for g in found.generators]
    cells = [(s, g) for s, g in cells if found.protocols["published"].pairing.mode == "crossed"
             or s == g or found.average == "cells"]  # fmt: skip
    if found.published:
        assert all(None not in facts.stated(*cell) for cell in cells)


def test_the_benchmarks_are_those_of_the_command_line() -> None:
    from engine.cli import parser

    assert parser.benchmarks() == benchmarks.available()
    wanted = "aigcdetect cnndet cospy_bench drct2m fake2m genimage in_the_wild ldm mpbench spai"
    assert benchmarks.available() == wanted.split()


def test_co_spy_bench_is_measured_as_published() -> None:
    found = benchmarks.load("cospy_bench")
    assert (len(found.sources), len(found.generators)) == (5, 22)
    published = found.protocols["published"]
    assert published.degradation == "jpeg:95"
    assert published.pairing == Pairing("own", 2000, balanced=True)


@pytest.mark.parametrize(
    ("metric", "means", "progan"),
    [
        ("AP", {"mscoco": 99.466, "flickr": 99.509, "cc3m": 90.211}, 95.211),
        ("accuracy", {"textcaps": 89.108, "sbu": 84.341, "mscoco": 92.516}, 89.954),
    ],
)
def test_published_cells_are_whole(metric: str, means: dict[str, float], progan: float) -> None:
    """Their means, which are not quite the printed averages."""
    figures = benchmarks.load("cospy_bench").published["cospy-sd-v1_4"]
    for source, value in means.items():
        assert mean(figures.cells[metric][source].values()) == pytest.approx(value, abs=0.001)
        assert figures.sources[metric][source] == pytest.approx(value, abs=0.83)
    figures = benchmarks.load("aigcdetect").published["cospy-progan"]
    assert mean(figures.generators[metric].values()) == pytest.approx(progan, abs=0.001)


def test_published_spai_mean_is_that_of_its_generators() -> None:
    figures = benchmarks.load("spai").published["spai"]
    average = figures.averages["AUROC"]["generators"]
    assert mean(figures.generators["AUROC"].values()) == pytest.approx(average, abs=0.051)


def test_published_ssp_figures() -> None:
    published = benchmarks.load("genimage").published
    assert len(published) == 16
    assert published["ssp_baseline-biggan"].averages["accuracy"] == {"generators": 58.6}
    figures = published["ssp-sdv4"]
    assert figures.generators["accuracy"]["biggan"] == 81.3
    assert figures.averages["accuracy"] == {"pictures": 93.5}


def test_published_numbers_agree_with_the_numbers_of_pictures() -> None:
    """SSP's averages weigh its accuracies by them; CO-SPY's are whole numbers of pictures."""
    found = benchmarks.load("genimage")
    sizes = {name: sum(n or 0 for n in found.facts.stated(name, name)) for name in found.generators}
    for figures in found.published.values():
        [(kind, average)] = figures.averages["accuracy"].items()
        assert kind == ("pictures" if figures.detector == "ssp" else "generators")
        weights = sizes if kind == "pictures" else dict.fromkeys(sizes, 1)
        accuracy = figures.generators["accuracy"]
        mean = sum(accuracy[name] * weights[name] for name in sizes) / sum(weights.values())
        assert mean == pytest.approx(average, abs=0.1)
    found = benchmarks.load("aigcdetect")
    for name, value in found.published["cospy-progan"].generators["accuracy"].items():
        size = sum(n or 0 for n in found.facts.stated(name, name))
        assert round(100 * round(value * size / 100) / size, 2) == value, name
    found = benchmarks.load("cospy_bench")
    for source, row in found.published["cospy-sd-v1_4"].cells["accuracy"].items():
        for name, value in row.items():
            size = sum(n or 0 for n in found.facts.stated(source, name))
            assert abs(100 * round(value * size / 100) / size - value) < 0.0251, (source, name)


def test_figures_that_are_compared_with_nothing_are_kept_with_their_paper() -> None:
    (people,) = benchmarks.load("mpbench").reported
    assert "2304.13023" in people.title and 38.7 in people.figures.values()
    study, combined = benchmarks.load("spai").reported
    assert (study.figures["meme"], combined.figures["screenshot"]) == (81.2, 91.2)


@pytest.mark.parametrize(
    ("found", "stated", "same"),
    [(1000, 1000, True), (990, 1000, True), (989, 1000, False), (1010, 1000, True),
     (1011, 1000, False), (7, None, True), (0, 5, False)],
)  # fmt: skip
def test_a_hundredth_of_the_pictures_may_be_missing(
    found: int, stated: int | None, same: bool
) -> None:
    assert benchmarks.as_stated(found, stated) == same


# What SPAI's training alone heeds: published weights have been trained.
OF_TRAINING = {"views", "unfreeze_backbone"} | {
    key for key in asdict(SpaiOptions()) if key.startswith(("aug_", "mfm_"))
}


@pytest.mark.parametrize(
    ("benchmark", "options", "free"),
    [
        ("cospy_bench", COSPY, OF_A_BRANCH),
        ("aigcdetect", replace(COSPY, train_dataset="progan"), OF_A_BRANCH),
        ("spai", SpaiOptions(), OF_TRAINING | {"feature_batch"}),
        ("genimage", SspOptions(), set()),
        ("genimage", SspBaselineOptions(), set()),
    ],
)
def test_published_figures_name_every_option_that_makes_the_detector(
    benchmark: str, options: Any, free: set[str]
) -> None:
    """All but those on which no score depends; a new option must be decided on."""
    wanted = {key: value for key, value in asdict(options).items() if key not in free}
    [name] = [n for n in detectors.available() if detectors.load(n).Options is type(options)]
    found = [f for f in benchmarks.load(benchmark).published.values() if f.detector == name]
    assert found and all(figures.options == wanted for figures in found)


def test_figures_are_shown_with_the_decimals_they_have() -> None:
    figures = benchmarks.load("cospy_bench").published["cospy-sd-v1_4"]
    assert figures.decimals("AP") == figures.decimals("accuracy") == 2
    assert benchmarks.load("spai").published["spai"].decimals("AUROC") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, ".*colour: unknown key; known: .*title, family"),
        ({"average": "median"}, "average: .*cells, pictures; found 'median'"),
        ({"protocols": {"a": {"degradation": "melt:3"}}}, "melt"),
        ({"protocols": {"a": {"pairing": "any"}}}, "pairing.*'own' or 'crossed'"),
        ({"protocols": {"a": {"cap": 0}}}, "cap.* 1; found 0"),
        ({"protocols": {"a": 3}}, "protocols.a: .*found 3"),
        (
            {"published": {"x": {"title": "t", "detector": "d", "best": 1}}},
            "x.best: unknown key; known: title, detector",
        ),
        (
            {"published": {"x": {"title": "t", "detector": "d", "generators": {"AP": {"a": 101}}}}},
            "generators.AP.a: .* 100; found 101",
        ),
        (
            {"published": {"x": {"title": "t", "detector": "d", "averages": {"AP": {"all": 1}}}}},
            "averages.AP.all.*cells, pictures",
        ),
        (
            {"published": {"x": {"title": "t", "detector": "d", "cells": {"F1": {}}}}},
            "cells.F1.*one of AP, AUROC",
        ),
        (
            {"published": {"x": {"title": "t", "detector": "d", "options": [1]}}},
            r"published.x.options: .*found \[1\]",
        ),
        ({"facts": {"not_known": []}}, "facts: expected either a text as source"),
        ({"facts": {"source": "p"}}, "facts: .*text as pictures, or pictures in not_known"),
        ({"facts": FACTS | {"counts": "5"}}, "facts: .*counts in not_known"),
        ({"facts": FACTS | {"not_known": ["colour"]}}, r"not_known.*'protocol'; found 'colour'"),
        ({"facts": FACTS | {"parts": {"a": {"real": 0}}}}, "facts.parts.a.real: .* 1; found 0"),
        ({"facts": FACTS | {"cell": {"fake": 2}}}, "facts.cell.fake: unknown key; known: real"),
        ({"reported": [{"title": "t", "figures": {"a": 101}}]}, "reported.0.figures.a: .* 100"),
        ({"notes": [{"detector": "d"}]}, "notes.0.text: Field required"),
        (
            {"sources": ["a"], "notes": [{"detector": "d", "text": "t", "sources": ["b"]}]},
            r"notes.sources among a; found \('b',\)",
        ),
        (
            {"sources": ["a"], "notes": [{"detector": "d", "text": "t", "sources": "a"}]},
            "notes.0.sources: .*found 'a'",
        ),
    ],
)
def test_a_wrong_file_is_named(folder: Path, changes: dict[str, object], message: str) -> None:
    write(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        benchmarks.load("mine")


@pytest.mark.parametrize("key", ["title", "family", "root", "protocols", "facts"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    write(folder)
    content = yaml.safe_load((folder / "mine.yaml").read_text())
    del content[key]
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=rf"mine\.yaml.*{key}: Field required"):
        benchmarks.load("mine")


def test_unknown_names_list_the_known_ones(folder: Path) -> None:
    write(folder)
    with pytest.raises(ConfigError, match="--benchmark: expected one of mine; found 'other'"):
        benchmarks.load("other")
    with pytest.raises(ConfigError, match="--protocol: mine has published; found 'secret'"):
        benchmarks.protocol(benchmarks.load("mine"), "secret")


def group(source: str, generator: str, count: int) -> list[Record]:
    label = Label.FAKE if generator else Label.REAL
    name = f"{source}/{generator or 'real'}"
    return [
        Record(f"{name}/{i}", Path(name, str(i)), label, source, generator) for i in range(count)
    ]


def counts(records: list[Record]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for record in records:
        place = record.source, record.generator
        found[place] = found.get(place, 0) + 1
    return found


def test_only_the_pictures_that_a_cell_takes_are_needed() -> None:
    records = group("s", "", 9) + group("s", "a", 3) + group("s", "b", 5) + group("t", "c", 4)
    balanced = benchmarks.needed(records, Pairing("own", 4, balanced=True))
    # b and four reals; t has no reals of its own, and is cut by the cap alone.
    assert counts(balanced) == {("s", ""): 4, ("s", "a"): 3, ("s", "b"): 4, ("t", "c"): 4}
    assert [r.key for r in balanced if r.generator == "b"] == [f"s/b/{i}" for i in range(4)]
    assert benchmarks.needed(records, Pairing()) == records
    assert counts(benchmarks.needed(records, Pairing(cap=2)))[("s", "")] == 2
    few = group("s", "", 2) + group("s", "a", 3)
    assert counts(benchmarks.needed(few, Pairing(balanced=True))) == {("s", ""): 2, ("s", "a"): 2}


def test_what_is_missing_of_a_benchmark_is_said() -> None:
    found = benchmarks.load("spai")
    lines = benchmarks.missing(found, group("coco", "", 1) + group("", "dalle2", 1))
    assert lines[0].endswith("dalle2 1 of 1,000, coco 1 of 1,000")
    assert lines[1].startswith("12 of the 13 generators of SPAI's evaluation are not there: glide")
    assert lines[2].startswith("4 of the 5 sources") and "fodb" in lines[2]


def test_a_missing_cell_is_said() -> None:
    found = benchmarks.load("cospy_bench")
    records = [r for s in found.sources for g in ("", *found.generators) for r in group(s, g, 1)]
    assert benchmarks.missing(found, records) == []
    gone = ("sbu", found.generators[3])
    (line,) = benchmarks.missing(found, [r for r in records if (r.source, r.generator) != gone])
    assert line.startswith(f"1 of the 110 cells of Co-Spy-Bench are not there: {'/'.join(gone)};")


def test_reals_that_no_chosen_generator_is_measured_against_are_not_needed() -> None:
    records = group("adm", "", 3) + group("adm", "adm", 3) + group("glide", "", 3)
    found = benchmarks.needed(records, Pairing())
    assert counts(found) == {("adm", ""): 3, ("adm", "adm"): 3}
    without_own = group("coco", "", 2) + group("", "mine", 2)
    assert benchmarks.needed(without_own, Pairing()) == without_own
    assert benchmarks.needed(group("coco", "", 2), Pairing()) == group("coco", "", 2)


def test_of_the_reals_as_many_are_needed_as_the_largest_generator_has() -> None:
    records = group("s", "", 9) + group("s", "a", 3) + group("s", "b", 5)
    found = benchmarks.needed(records, Pairing(balanced=True))
    assert counts(found) == {("s", ""): 5, ("s", "a"): 3, ("s", "b"): 5}


def test_what_is_missing_of_mpbench_is_named() -> None:
    found = benchmarks.load("mpbench")
    assert len(found.generators) == 11

    def listed(folder: str, count: int) -> list[Record]:
        keys = (f"ImageData/val/{folder}/{n}.png" for n in range(count))
        return [Record(k, Path(k), Label.FAKE, "", folder.split("/")[-1]) for k in keys]

    records = [*listed("Midjourneyv5-5K", 4999), *listed("SDv15-CC30K/SDv15-dpmsolver-25-15K", 7)]
    lines = benchmarks.missing(found, records)
    assert lines[0] == "fewer pictures are here than is stated: SDv15-CC30K 7 of 30,000"
    assert lines[1].startswith("9 of the 11 generators of MPBench are not there: IF-ddim-25-15K")
    assert len(lines) == 2


def test_published_figures_ask_for_their_pictures() -> None:
    found = benchmarks.load("spai")
    figures = found.published["spai"]
    keys = {name: sorted(keys) for name, keys in spai.listed_keys().items()}

    def shown(**kept: int) -> tuple[Published, tuple[str, ...]]:
        records = [
            Record(key, Path(key), Label.FAKE)
            for name, listed in keys.items()
            for key in listed[: kept.get(name, len(listed))]
        ]
        return benchmarks.of_these_pictures(found, figures, records)

    # RAISE's one truncated picture, and 1 % of any set, may be missing.
    assert shown(real_raise=999, fake_flux=990) == (figures, ())
    left, notes = shown(fake_flux=989)
    assert left.others == {"flux"} and "flux (99%)" in notes[0]
    left, notes = shown(real_coco=0)
    assert left.others == {"coco"} and "coco (0%)" in notes[0]
    other = benchmarks.load("genimage")
    assert benchmarks.of_these_pictures(other, figures, []) == (figures, ())

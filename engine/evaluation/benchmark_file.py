"""The files of configs/benchmarks/, read and checked: what a benchmark consists of, what is known
of its pictures, and what was published on it.

engine/evaluation/benchmark.py reads them for phase eval and for training; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt
from pydantic.dataclasses import dataclass

from datasets._limits import UPRIGHT, Decoding

from ..config import FILE, read_yaml, validated
from ..scoring import degradations
from .cells import Pairing
from .estimates import METRICS
from .generators import Date

# What a benchmark's facts speak of, or say that nobody states.
Aspect = Literal["pictures", "counts", "splits", "resolution", "protocol"]
ASPECTS = get_args(Aspect)
PAIRING = {"pairing": "mode", "cap": "cap", "balanced": "balanced"}  # key of a protocol -> field


def _among(*choices: str) -> AfterValidator:
    """The rule of a text, a key of a mapping or not, that is one of several."""

    def check(name: str) -> str:
        if name not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return name

    return AfterValidator(check)


def _chain(name: str) -> str:
    """A degradation as the engine spells it. Raises ValueError listing the steps for any other."""
    chain = degradations.parse(name, "degradation")
    return chain.name if chain else degradations.NONE


def _nested(given: Any) -> Any:
    """A protocol with the keys of its pairing in a mapping of their own."""
    if not isinstance(given, dict):
        return given
    pairing = {PAIRING[key]: value for key, value in given.items() if key in PAIRING}
    return {k: v for k, v in given.items() if k not in PAIRING} | {"pairing": pairing}


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a detector, as its `Options` hold them."""
    # Lists, which is what YAML has, would never equal those of a run.
    return {k: tuple(value) if isinstance(value, list) else value for k, value in options.items()}


Metric = Annotated[str, _among(*METRICS)]
Average = Annotated[str, _among("generators", "cells", "pictures")]
# Strict, so that "95" between quotation marks is a mistake in the file and not a figure.
Percent = Annotated[float, Field(strict=True, ge=0, le=100)]
Number = Annotated[StrictInt | None, Field(ge=1)]
# YAML takes a resolution of 256 for a number.
Words = Annotated[str, Field(coerce_numbers_to_str=True)]
Options = Annotated[dict[str, Any], AfterValidator(_tuples)]
Values = dict[str, Percent]


@dataclass(frozen=True, config=FILE)
class Protocol:
    """How a benchmark is measured."""

    degradation: Annotated[str, AfterValidator(_chain)] = degradations.NONE
    """Comes before the detector's own transform."""
    pairing: Pairing = Pairing()
    """Which pictures make a cell."""
    decoding: Decoding = UPRIGHT


@dataclass(frozen=True, config=FILE)
class Published:
    """Figures that somebody published, in percent, by metric."""

    title: str
    detector: str
    options: Options = field(default_factory=dict)
    """Those of the detector that make it the published one."""
    trained_on: Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(sorted(names)))] = ()
    """Generators that it learnt from, empty where the figures are of one training only."""
    cells: dict[Metric, dict[str, Values]] = field(default_factory=dict)
    """Metric -> source -> generator."""
    generators: dict[Metric, Values] = field(default_factory=dict)
    """Metric -> generator, where the benchmark has no sources or the mean over them was
    published."""
    sources: dict[Metric, Values] = field(default_factory=dict)
    """Metric -> source, means over its generators."""
    averages: dict[Metric, dict[Average, Percent]] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    """Generators and sources of which a run has other pictures than the figures are of; the run
    says so, no file does."""

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that were published, in the order of `METRICS`."""
        given = {*self.cells, *self.generators, *self.sources, *self.averages}
        return [name for name in METRICS if name in given]

    def decimals(self, metric: str) -> int:
        """How many decimals the figures of a metric have: 2, or 1 where none has a second."""
        tables = (self.cells, self.generators, self.sources, self.averages)
        figures = [value for table in tables for value in _leaves(table.get(metric, {}))]
        # Ours are printed beside them with as many: a table with more would claim what it has not.
        return 1 if all(round(value, 1) == value for value in figures) else 2

    def without(self, names: Sequence[str]) -> Published:
        """The figures of all other metrics."""

        def rest(table: Mapping[str, Any]) -> dict[str, Any]:
            return {metric: values for metric, values in table.items() if metric not in names}

        return replace(
            self,
            cells=rest(self.cells),
            generators=rest(self.generators),
            sources=rest(self.sources),
            averages=rest(self.averages),
        )


def _leaves(content: Any) -> Iterator[Any]:
    """What nested mappings hold."""
    if isinstance(content, Mapping):
        for inner in content.values():
            yield from _leaves(inner)
    else:
        yield content


@dataclass(frozen=True, config=FILE)
class Note:
    """What a reader of a detector's results on a benchmark must know."""

    detector: str
    text: str
    options: Options = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    """Only where one of them was measured, empty for always."""


@dataclass(frozen=True, config=FILE)
class Part:
    """What is stated of a folder, a generator or a source; None and '' = not stated."""

    real: Number = None
    """Number of real pictures."""
    synthetic: Number = None
    """Number of synthetic pictures."""
    resolution: Words = ""
    """Px of their sides."""
    kind: Words = ""
    """Kind of generator."""
    licence: Words = ""


@dataclass(frozen=True, config=FILE)
class Facts:
    """What is known of a benchmark's pictures, in words; '' = listed in `not_known`."""

    source: str = ""
    """Who states it."""
    pictures: str = ""
    """Which ones."""
    counts: str = ""
    splits: str = ""
    resolution: str = ""
    protocol: str = ""
    not_known: tuple[Aspect, ...] = ()
    cell: Part = Part()
    """What is stated of every cell."""
    parts: dict[str, Part] = field(default_factory=dict)
    """Folders, generators or sources, by their names."""

    def stated(self, source: str, generator: str) -> tuple[int | None, int | None]:
        """How many real and how many synthetic pictures a cell should have; None = not known."""
        real = self.parts.get(source, self.cell).real
        return real, self.parts.get(generator, self.cell).synthetic


def _complete(facts: Facts) -> Facts:
    """The facts of a file. Raises ValueError unless each aspect has its words or is among those
    that nobody states, never both."""
    for name in ("source", *ASPECTS):
        if bool(getattr(facts, name)) == (name in facts.not_known):
            raise ValueError(f"expected either a text as {name}, or {name} in not_known")
    return facts


@dataclass(frozen=True, config=FILE)
class Reported:
    """Figures in percent of detectors or of people that no run of this project is compared with,
    by what they are of."""

    title: str
    figures: Values


@dataclass(frozen=True, config=FILE)
class Benchmark:
    """The pictures of a benchmark, how they are measured, and what was published on them."""

    name: str
    title: str
    family: str
    root: Path
    dataset: str
    """The name in CO-SPY's JSON files where the benchmark has no sources of its own."""
    protocols: dict[str, Annotated[Protocol, BeforeValidator(_nested)]]
    facts: Annotated[Facts, AfterValidator(_complete)]
    split: str | None = None
    average: Average = "generators"
    """The mean that its papers report."""
    generators: tuple[str, ...] = ()
    """What the whole benchmark holds; empty where it is open-ended."""
    sources: tuple[str, ...] = ()
    released: dict[str, Date] = field(default_factory=dict)
    """When a generator came out, where it is not as configs/generators.yaml has it."""
    published: dict[str, Published] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    reported: tuple[Reported, ...] = ()
    """Figures to name, not to compare."""

    def __post_init__(self) -> None:
        for note in self.notes:
            if not set(note.sources) <= set(self.sources):
                known = ", ".join(self.sources) or "none"
                raise ValueError(f"expected notes.sources among {known}; found {note.sources}")


def read(path: Path) -> Benchmark:
    """The benchmark that a file describes, by the file's name. Raises ConfigError when it is
    wrong."""
    content = read_yaml(path)
    dataset = content.get("dataset", content.get("title"))
    # The file's name is the benchmark's, so that no two can have one.
    return validated(Benchmark, str(path), content | {"name": path.stem, "dataset": dataset})

"""The files of configs/benchmarks/, read and checked: what a benchmark consists of, what is known
of its pictures, and what was published on it.

engine/evaluation/benchmark.py reads them for phase eval and for training; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from datasets._limits import DECODINGS, UPRIGHT, Decoding

from ..config import ConfigError, read_yaml
from ..scoring import degradations
from .cells import Pairing
from .estimates import METRICS

AVERAGES = ("generators", "cells", "pictures")
# What a benchmark's facts speak of, or say that nobody states.
ASPECTS = ("pictures", "counts", "splits", "resolution", "protocol")
Values = Mapping[str, float]


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is measured: how its pictures are decoded, one of DECODINGS, and degraded,
    which comes before the detector's own transform, and which of them make a cell."""

    degradation: str
    pairing: Pairing
    decoding: Decoding


@dataclass(frozen=True)
class Published:
    """Figures that somebody published, in percent, by metric.

    `options`: those of the detector that make it the published one; `trained_on`: the generators
    that it learnt from, empty where the figures are of one training only; `cells`: metric ->
    source -> generator; `generators`: metric -> generator, where the benchmark has no sources or
    the mean over them was published; `sources`: metric -> source, means over its generators;
    `averages`: metric -> one of `AVERAGES`. `others`: generators and sources of which a run has
    other pictures than the figures are of; no file says so.
    """

    title: str
    detector: str
    options: Mapping[str, Any]
    trained_on: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Values]]
    generators: Mapping[str, Values]
    sources: Mapping[str, Values]
    averages: Mapping[str, Values]
    others: frozenset[str] = frozenset()

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that were published, in the order of `METRICS`."""
        given = {*self.cells, *self.generators, *self.sources, *self.averages}
        return [name for name in METRICS if name in given]

    def decimals(self, metric: str) -> int:
        """How many decimals the figures of a metric have: 2, or 1 where none has a second."""
        tables = (self.cells, self.generators, self.sources, self.averages)
        figures = [value for table in tables for value in _leaves(table.get(metric, {}))]
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


@dataclass(frozen=True)
class Note:
    """What a reader of this detector's results on a benchmark must know; `sources`: only where
    one of them was measured, empty for always."""

    detector: str
    text: str
    options: Mapping[str, Any]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What is stated of a folder, a generator or a source: numbers of `real` and of `synthetic`
    pictures, `resolution` in px of their sides, `kind` of generator and `licence`. None and '' =
    not stated."""

    real: int | None = None
    synthetic: int | None = None
    resolution: str = ""
    kind: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a benchmark's pictures.

    `source`: who states it; `pictures` (which ones), `counts`, `splits`, `resolution`, `protocol`:
    in words, '' = listed in `not_known`; `cell`: the numbers of every cell; `parts`: those of
    folders, generators or sources, by their names.
    """

    source: str = ""
    pictures: str = ""
    counts: str = ""
    splits: str = ""
    resolution: str = ""
    protocol: str = ""
    not_known: tuple[str, ...] = ()
    cell: Part = Part()
    parts: Mapping[str, Part] = field(default_factory=dict)

    def stated(self, source: str, generator: str) -> tuple[int | None, int | None]:
        """How many real and how many synthetic pictures a cell should have; None = not known."""
        real = self.parts.get(source, self.cell).real
        return real, self.parts.get(generator, self.cell).synthetic


@dataclass(frozen=True)
class Reported:
    """Figures in percent of detectors or of people that no run of this project is compared with,
    by what they are of."""

    title: str
    figures: Values


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `average`: the mean that its papers report; `dataset`: the name that CO-SPY's
    JSON files give it where it has no sources of its own; `generators`, `sources`: what the whole
    benchmark holds, empty where it is open-ended; `reported`: figures to name, not to compare."""

    name: str
    title: str
    family: str
    root: Path
    split: str | None
    average: str
    dataset: str
    generators: tuple[str, ...]
    sources: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    published: Mapping[str, Published]
    notes: tuple[Note, ...]
    reported: tuple[Reported, ...]
    facts: Facts


def _expect(where: str, content: Any, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected keys {', '.join(known)}; found {content!r}")
    if unknown := [key for key in content if key not in known]:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    return content


def _leaves(content: Any) -> Iterator[Any]:
    """What nested mappings hold."""
    if isinstance(content, Mapping):
        for inner in content.values():
            yield from _leaves(inner)
    else:
        yield content


def _require(where: str, given: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raises ConfigError when one of the keys is not there."""
    for key in keys:
        if key not in given:
            raise ConfigError(
                f"{where}: expected the key {key}; found {', '.join(given) or 'none'}"
            )


def _protocol(where: str, content: Any) -> Protocol:
    given = _expect(where, content, ("degradation", "pairing", "cap", "balanced", "decoding"))
    name = given.get("degradation", degradations.NONE)
    chain = degradations.parse(name)
    try:
        pairing = Pairing(
            given.get("pairing", "own"), given.get("cap"), given.get("balanced", False)
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    decoding = given.get("decoding", UPRIGHT)
    if decoding not in DECODINGS:
        known = ", ".join(DECODINGS)
        raise ConfigError(f"{where}.decoding: expected one of {known}; found {decoding!r}")
    return Protocol(chain.name if chain else degradations.NONE, pairing, decoding)


def _percent(where: str, content: Any) -> None:
    """Raises ConfigError unless the leaves of nested mappings are percents."""
    if isinstance(content, dict):
        for key, inner in content.items():
            _percent(f"{where}.{key}", inner)
    elif isinstance(content, bool) or not isinstance(content, (int, float)):
        raise ConfigError(f"{where}: expected a number of percent; found {content!r}")
    elif not 0 <= content <= 100:
        raise ConfigError(f"{where}: expected 0 to 100 percent; found {content!r}")


def _options(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a detector, as its `Options` hold them."""
    options = given.get("options", {})
    if not isinstance(options, dict):
        raise ConfigError(f"{where}.options: expected keys of a detector; found {options!r}")
    return {k: tuple(value) if isinstance(value, list) else value for k, value in options.items()}


def _note(where: str, content: Any, known: Sequence[str]) -> Note:
    given = _expect(where, content, [field.name for field in fields(Note)])
    _require(where, given, ("detector", "text"))
    sources = given.get("sources", [])
    if not isinstance(sources, list) or any(source not in known for source in sources):
        choices = ", ".join(known) or "none"
        raise ConfigError(f"{where}.sources: expected a list of some of {choices}; found {sources}")
    return Note(given["detector"], given["text"], _options(where, given), tuple(sources))


def _part(where: str, content: Any) -> Part:
    given = _expect(where, content, [field.name for field in fields(Part)])
    numbers = {key: given[key] for key in ("real", "synthetic") if key in given}
    for key, value in numbers.items():
        if type(value) is not int or value < 1:
            raise ConfigError(f"{where}.{key}: expected 1 or more; found {value!r}")
    words = [str(given.get(key, "")) for key in ("resolution", "kind", "licence")]
    return Part(given.get("real"), given.get("synthetic"), *words)


def _facts(where: str, content: Any) -> Facts:
    """The facts. Each aspect has its words or is among those that nobody states, never both."""
    given = _expect(where, content, [field.name for field in fields(Facts)])
    _require(where, given, ("source",))
    not_known = given.get("not_known", [])
    if not isinstance(not_known, list) or not set(not_known) <= set(ASPECTS):
        raise ConfigError(
            f"{where}.not_known: expected a list of some of {', '.join(ASPECTS)}; "
            f"found {not_known!r}"
        )
    for key in ("source", *ASPECTS):
        text = given.get(key)
        if not (text is None if key in not_known else isinstance(text, str) and text):
            raise ConfigError(
                f"{where}.{key}: expected a text, or {key} in not_known; found {text!r}"
            )
    parts = {k: _part(f"{where}.parts.{k}", v) for k, v in given.get("parts", {}).items()}
    cell = _part(f"{where}.cell", given.get("cell", {}))
    texts = {key: given[key] for key in ("source", *ASPECTS) if key in given}
    return Facts(**texts, not_known=tuple(not_known), cell=cell, parts=parts)


def _reported(where: str, content: Any) -> Reported:
    given = _expect(where, content, [field.name for field in fields(Reported)])
    _require(where, given, ("title", "figures"))
    _percent(f"{where}.figures", given["figures"])
    return Reported(given["title"], given["figures"])


def _published(where: str, content: Any) -> Published:
    names = [field.name for field in fields(Published) if field.name != "others"]
    given = _expect(where, content, names)
    _require(where, given, ("title", "detector"))
    tables = {name: given.get(name, {}) for name in ("cells", "generators", "sources", "averages")}
    for name, table in tables.items():
        _expect(f"{where}.{name}", table, METRICS)
        _percent(f"{where}.{name}", table)
    for metric, values in tables["averages"].items():
        _expect(f"{where}.averages.{metric}", values, AVERAGES)
    trained_on = given.get("trained_on", [])
    if not isinstance(trained_on, list) or not all(isinstance(name, str) for name in trained_on):
        raise ConfigError(f"{where}.trained_on: expected a list of generators; found {trained_on}")
    options, learnt = _options(where, given), tuple(sorted(trained_on))
    return Published(given["title"], given["detector"], options, learnt, **tables)


def read(path: Path) -> Benchmark:
    """The benchmark that a file describes, by the file's name. Raises ConfigError when it is
    wrong."""
    known = [field.name for field in fields(Benchmark) if field.name != "name"]
    given = _expect(str(path), read_yaml(path), known)
    _require(str(path), given, ("title", "family", "root", "protocols", "facts"))
    average = given.get("average", "generators")
    if average not in AVERAGES:
        raise ConfigError(f"{path}: average: expected one of {AVERAGES}; found {average!r}")
    protocols = {
        key: _protocol(f"{path}: protocols.{key}", value)
        for key, value in given["protocols"].items()
    }
    published = {
        key: _published(f"{path}: published.{key}", value)
        for key, value in given.get("published", {}).items()
    }
    sources = tuple(given.get("sources", ()))
    notes = tuple(_note(f"{path}: notes", value, sources) for value in given.get("notes", ()))
    return Benchmark(
        name=path.stem,
        title=given["title"],
        family=given["family"],
        root=Path(given["root"]),
        split=given.get("split"),
        average=average,
        dataset=given.get("dataset", given["title"]),
        generators=tuple(given.get("generators", ())),
        sources=sources,
        protocols=protocols,
        published=published,
        notes=notes,
        reported=tuple(
            _reported(f"{path}: reported", value) for value in given.get("reported", ())
        ),
        facts=_facts(f"{path}: facts", given["facts"]),
    )

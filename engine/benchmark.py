"""What a benchmark consists of, and what was published on it: configs/benchmarks/*.yaml."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import datasets
from datasets._limits import DECODINGS, UPRIGHT

from . import degrade, metrics
from .config import CONFIGS, ConfigError, read_yaml
from .metrics import METRICS, Pairing

FOLDER = CONFIGS / "benchmarks"
PUBLISHED = "published"  # the protocol that published figures were measured by
AVERAGES = ("generators", "cells", "pictures")
THRESHOLD = 0.5  # of published accuracies
ENOUGH = 0.99  # share of the stated pictures from which on a part counts as whole
Values = Mapping[str, float]


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is measured: how its pictures are decoded, one of DECODINGS, and degraded,
    which comes before the detector's own transform, and which of them make a cell."""

    degradation: str
    pairing: Pairing
    decoding: str


@dataclass(frozen=True)
class Published:
    """Figures that somebody published, in percent, by metric.

    `options`: those of the detector that make it the published one; `trained_on`: the generators
    that it learnt from, empty where the figures are of one training only; `cells`: metric ->
    source -> generator; `generators`: metric -> generator, where the benchmark has no sources or
    the mean over them was published; `sources`: metric -> source, means over its generators;
    `averages`: metric -> one of `AVERAGES`.
    """

    title: str
    detector: str
    options: Mapping[str, Any]
    trained_on: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Values]]
    generators: Mapping[str, Values]
    sources: Mapping[str, Values]
    averages: Mapping[str, Values]

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
class Facts:
    """What the page of a data set states of one of its folders: number of `pictures`, rounded;
    `resolution` in px of their sides, `kind` of generator and `licence`, '' = not stated."""

    pictures: int
    resolution: str
    kind: str
    licence: str


@dataclass(frozen=True)
class Measurement:
    """How a run measures a benchmark, as far as published figures ask.

    `base`: the degradation of its main tables; `split` None = the benchmark's own; `limit`: the
    most pictures of each generator and source, None = all; `trained_on`: the generators that the
    weights learnt from, sorted, empty where nothing says so; `decoding`: one of DECODINGS.
    """

    detector: str
    options: Any
    base: str
    protocol: str = PUBLISHED
    threshold: float = THRESHOLD
    split: str | None = None
    limit: int | None = None
    trained_on: tuple[str, ...] = ()
    decoding: str = PUBLISHED


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `average`: the mean that its papers report; `dataset`: the name that CO-SPY's
    JSON files give it where it has no sources of its own; `generators`, `sources`: what the whole
    benchmark holds, empty where it is open-ended; `parts`: facts of its folders, by their names."""

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
    parts: Mapping[str, Facts]


def available() -> list[str]:
    """Names of the benchmarks, sorted: the files of configs/benchmarks/."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def trainable() -> list[str]:
    """Names of the benchmarks that have training pictures."""
    every = map(load, available())
    return [found.name for found in every if "train" in datasets.load(found.family).SPLITS]


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
    name = given.get("degradation", degrade.NONE)
    chain = degrade.parse(name)
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
    return Protocol(chain.name if chain else degrade.NONE, pairing, decoding)


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


def _facts(where: str, content: Any) -> Facts:
    given = _expect(where, content, [field.name for field in fields(Facts)])
    pictures = given.get("pictures")
    if type(pictures) is not int or pictures < 1:
        raise ConfigError(f"{where}.pictures: expected 1 or more; found {pictures!r}")
    return Facts(pictures, *(str(given.get(k, "")) for k in ("resolution", "kind", "licence")))


def _published(where: str, content: Any) -> Published:
    names = [field.name for field in fields(Published)]
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


def load(name: str) -> Benchmark:
    """The benchmark of that name. Raises ConfigError when there is none or its file is wrong."""
    if name not in available():
        raise ConfigError(f"--benchmark: expected one of {', '.join(available())}; found {name!r}")
    path = FOLDER / f"{name}.yaml"
    known = [field.name for field in fields(Benchmark) if field.name != "name"]
    given = _expect(str(path), read_yaml(path), known)
    _require(str(path), given, ("title", "family", "root", "protocols"))
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
        name=name,
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
        parts={
            key: _facts(f"{path}: parts.{key}", value)
            for key, value in given.get("parts", {}).items()
        },
    )


def protocol(benchmark: Benchmark, name: str) -> Protocol:
    """One of the benchmark's protocols. Raises ConfigError listing them when there is none."""
    if name not in benchmark.protocols:
        known = ", ".join(benchmark.protocols)
        raise ConfigError(f"--protocol: {benchmark.name} has {known}; found {name!r}")
    return benchmark.protocols[name]


def _other(what: Published | Note, options: Any) -> Iterator[str]:
    """The options that are not those that something is about, each with what it should be."""
    for key, value in what.options.items():
        if (found := getattr(options, key, None)) != value:
            yield f"{what.detector}.{key} {value}, these of {found}"


def notes(
    benchmark: Benchmark, detector: str, options: Any, sources: Sequence[str]
) -> tuple[str, ...]:
    """What a reader of this detector's results on these sources must know."""
    return tuple(
        note.text
        for note in benchmark.notes
        if note.detector == detector
        and not any(_other(note, options))
        and (not note.sources or not set(note.sources).isdisjoint(sources))
    )


def _differences(benchmark: Benchmark, figures: Published, run: Measurement) -> Iterator[str]:
    """What sets published figures apart from those of a run."""
    if figures.detector != run.detector:
        yield f"they are of {figures.detector}, these of {run.detector}"
    else:
        yield from (f"they are of {other}" for other in _other(figures, run.options))
        # Weights of which nothing says what they learnt from may be the published ones.
        if figures.trained_on and run.trained_on not in ((), figures.trained_on):
            learnt, here = ", ".join(figures.trained_on), ", ".join(run.trained_on)
            yield f"they are of a training on {learnt}, these of one on {here}"
    if run.protocol != PUBLISHED:
        yield f"they are of the protocol {PUBLISHED}, these of {run.protocol}"
    elif run.base != benchmark.protocols[PUBLISHED].degradation:
        yield f"the pictures here are degraded by {run.base}"
    elif run.decoding != (usual := benchmark.protocols[PUBLISHED].decoding):
        yield f"they are of data.decoding={usual}, these of {run.decoding}"
    if run.split not in (None, benchmark.split):
        whole = f"the split {benchmark.split}" if benchmark.split else "all splits"
        yield f"they are of {whole}, these of {run.split}"
    if run.limit is not None:
        yield f"--limit {run.limit} leaves pictures out"


def _at_threshold(figures: Published, threshold: float) -> tuple[Published | None, tuple[str, ...]]:
    """The figures that hold at any threshold, and a note where others had to go."""
    if threshold == THRESHOLD or not set(figures.metrics).intersection(metrics.AT_THRESHOLD):
        return figures, ()
    left = figures.without(metrics.AT_THRESHOLD)
    note = (
        f"the published accuracies are not shown: they are at the threshold {THRESHOLD:g}, these "
        f"at {threshold:g}"
    )
    return (left if left.metrics else None), (note,)


def comparable(
    benchmark: Benchmark, run: Measurement, chosen: str | None = None
) -> tuple[Published | None, tuple[str, ...]]:
    """The figures that were published for the run's detector, measured as the run measures; and
    notes that say which ones are not shown, and why.

    `chosen` names one where several fit, as those of detectors that differ in their training set.
    None when nothing fits, or several do and none was chosen.

    Raises:
        ConfigError: the benchmark has no figures of the chosen name.
    """
    if chosen is not None and chosen not in benchmark.published:
        known = ", ".join(benchmark.published) or "none"
        raise ConfigError(f"data.published: {benchmark.name} has {known}; found {chosen!r}")
    if chosen is None and run.trained_on:
        # What the weights learnt from chooses among the figures of several trainings.
        learnt = [n for n, f in benchmark.published.items() if f.trained_on == run.trained_on
                  and f.detector == run.detector]  # fmt: skip
        chosen = learnt[0] if len(learnt) == 1 else None
    asked = {
        name: list(_differences(benchmark, figures, run))
        for name, figures in benchmark.published.items()
        if (figures.detector == run.detector if chosen is None else name == chosen)
    }
    fitting = [name for name, reasons in asked.items() if not reasons]
    if len(fitting) == 1:
        return _at_threshold(benchmark.published[fitting[0]], run.threshold)
    if len(asked) == 1:
        [(name, reasons)] = asked.items()
        return None, (f"the published figures {name} are not shown: {'; '.join(reasons)}",)
    if fitting:
        names = ", ".join(fitting)
        return None, (f"of {names} choose published figures to show by --set data.published=NAME",)
    return None, ()


def of_these_pictures(
    benchmark: Benchmark, figures: Published, found: Sequence[datasets.Record]
) -> tuple[Published | None, tuple[str, ...]]:
    """The figures of generators whose published pictures are among the records, where the family
    knows which these are; and a note that names the others.

    A figure of a generator is a mean over all sources, and the average one over all generators:
    each stands only where at least `ENOUGH` of all that it rests on is there.
    """
    family = datasets.load(benchmark.family)
    if not hasattr(family, "published_share"):
        return figures, ()
    share = family.published_share(found)
    low = [name for name, part in share.items() if part < ENOUGH]
    if not low:
        return figures, ()
    named = ", ".join(f"{name} ({share[name]:.0%})" for name in low)
    note = (
        f"published figures are of other pictures where fewer than 99 % of theirs are here: {named}"
    )
    if any(name in benchmark.sources for name in low):
        return None, (note,)
    generators = {
        metric: {name: value for name, value in values.items() if name not in low}
        for metric, values in figures.generators.items()
    }
    left = replace(figures, generators=generators, averages={})
    return (left if any(generators.values()) else None), (note,)


def records(
    benchmark: Benchmark,
    root: Path | None,
    split: str | None,
    parts: Mapping[str, str],
    sources: Sequence[str],
) -> list[datasets.Record]:
    """Lists the benchmark's pictures below `root` (None = its default place).

    `split` None = the benchmark's own; `parts`: what lives elsewhere; `sources`: only these.

    Raises:
        LayoutError: they are not there, or not laid out as its family says.
    """
    family = datasets.load(benchmark.family)
    return family.records(root or benchmark.root, split or benchmark.split, parts, sources)


def needed(records: Sequence[datasets.Record], pairing: Pairing) -> list[datasets.Record]:
    """Those of the records that some cell takes, in their order: the others need no score."""
    groups: defaultdict[tuple[str, str], int] = defaultdict(int)
    for record in records:
        groups[record.source, record.generator] += 1
    reals = {source: count for (source, generator), count in groups.items() if not generator}
    own = pairing.mode == "own"
    fakes_of = {source for source, generator in groups if generator}
    # Reals of a source without fakes are measured against only by fakes without reals.
    idle = set(reals) - fakes_of if own and fakes_of and fakes_of <= set(reals) else set()

    def most(source: str, generator: str) -> int:
        """How many pictures of a group its cells take at most."""
        if source in idle:
            return 0
        bounds = [groups[source, generator], *([pairing.cap] if pairing.cap else [])]
        if pairing.balanced and own and source in reals:
            fakes = (n for (s, g), n in groups.items() if g and s == source)
            bounds.append(reals[source] if generator else max(fakes, default=bounds[0]))
        return min(bounds)

    left = {group: most(*group) for group in groups}
    kept = []
    for record in records:
        group = record.source, record.generator
        if left[group] > 0:
            left[group] -= 1
            kept.append(record)
    return kept


def missing(benchmark: Benchmark, found: Sequence[datasets.Record]) -> list[str]:
    """Lines that say what of the whole benchmark is not among the records. Of a benchmark whose
    mean is over cells, also which sources lack a generator that others have."""
    lines = _too_few(benchmark, found)
    generators = {r.generator for r in found if r.generator}
    for what, whole, there in (
        ("generators", benchmark.generators, generators),
        ("sources", benchmark.sources, {r.source for r in found}),
    ):
        if absent := [name for name in whole if name not in there]:
            lines.append(_absent(f"{len(whole)} {what}", benchmark, absent))
    if benchmark.average == "cells":
        cells = {(r.source, r.generator) for r in found if r.generator}
        sources = sorted({source for source, _ in cells})
        pairs = [(s, g) for s in sources for g in sorted(generators)]
        if absent := [f"{s}/{g}" for s, g in pairs if (s, g) not in cells]:
            lines.append(_absent(f"{len(pairs)} cells", benchmark, absent))
    return lines


def _too_few(benchmark: Benchmark, found: Sequence[datasets.Record]) -> list[str]:
    """A line for each folder that has fewer pictures than its page states; not of one that has
    none, whose generators are missing."""
    counts = Counter(name for r in found for name in set(r.key.split("/")) & set(benchmark.parts))
    return [
        f"{name}: {counts[name]:,} of {facts.pictures:,} pictures"
        for name, facts in benchmark.parts.items()
        # Pages state round numbers.
        if 0 < counts[name] < ENOUGH * facts.pictures
    ]


def _absent(whole: str, benchmark: Benchmark, names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"{len(names)} of the {whole} of {benchmark.title} are not there: {shown}; its averages "
        "are over those that are"
    )

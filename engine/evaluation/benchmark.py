"""What a benchmark consists of, and which of its published figures belong beside a run's.

Called by the requests of phases train and eval, by reports, and by the scripts that look at a
benchmark's pictures. Nothing here scores or measures; figures of other pictures or of another
detector are named in a note, never passed on as comparable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets

from ..config import CONFIGS, ConfigError
from . import estimates
from .benchmark_file import Benchmark, Note, Protocol, Published, read
from .cells import Pairing

FOLDER = CONFIGS / "benchmarks"
PUBLISHED = "published"  # the protocol that published figures were measured by
THRESHOLD = 0.5  # of published accuracies
ENOUGH = 0.99  # share of the stated pictures from which on a part counts as whole


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


def available() -> list[str]:
    """Names of the benchmarks, sorted: the files of configs/benchmarks/."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def trainable() -> list[str]:
    """Names of the benchmarks that have training pictures."""
    every = map(load, available())
    return [b.name for b in every if "train" in datasets.load(b.family).SPLITS]


def load(name: str) -> Benchmark:
    """The benchmark of that name. Raises ConfigError when there is none or its file is wrong."""
    if name not in available():
        raise ConfigError(f"--benchmark: expected one of {', '.join(available())}; found {name!r}")
    return read(FOLDER / f"{name}.yaml")


def protocol(benchmark: Benchmark, name: str) -> Protocol:
    """One of the benchmark's protocols. Raises ConfigError listing them when there is none."""
    if name not in benchmark.protocols:
        known = ", ".join(benchmark.protocols)
        raise ConfigError(f"--protocol: {benchmark.name} has {known}; found {name!r}")
    return benchmark.protocols[name]


def _other(what: Published | Note, options: Any) -> Iterator[str]:
    """The options of a run that are not those of figures or a note, each with theirs."""
    for key, value in what.options.items():
        if (own := getattr(options, key, None)) != value:
            yield f"{what.detector}.{key} {value}, these of {own}"


def notes(
    benchmark: Benchmark, detector: str, options: Any, sources: Sequence[str]
) -> tuple[str, ...]:
    """What a reader of a detector's results must know.

    Args:
        benchmark: whose file has the notes.
        detector, options: of the run; a note may be about some options alone.
        sources: of the run's pictures; a note may be about some sources alone.

    Returns:
        The texts of the notes, in the order of the file.
    """
    return tuple(
        note.text
        for note in benchmark.notes
        if note.detector == detector
        and not any(_other(note, options))
        and (not note.sources or not set(note.sources).isdisjoint(sources))
    )


def _of_detector(figures: Published, run: Measurement) -> Iterator[str]:
    """What sets the detector of published figures apart from that of a run."""
    if figures.detector != run.detector:
        yield f"they are of {figures.detector}, these of {run.detector}"
    else:
        yield from (f"they are of {other}" for other in _other(figures, run.options))
        # Weights of which nothing says what they learnt from may be the published ones.
        if figures.trained_on and run.trained_on not in ((), figures.trained_on):
            learnt, here = ", ".join(figures.trained_on), ", ".join(run.trained_on)
            yield f"they are of a training on {learnt}, these of one on {here}"


def _of_pictures(benchmark: Benchmark, run: Measurement) -> Iterator[str]:
    """What sets the pictures of a run apart from those of the published figures."""
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
    if threshold == THRESHOLD or not set(figures.metrics).intersection(estimates.AT_THRESHOLD):
        return figures, ()
    left = figures.without(estimates.AT_THRESHOLD)
    note = (
        f"the published accuracies are not shown: they are at the threshold {THRESHOLD:g}, these "
        f"at {threshold:g}"
    )
    return (left if left.metrics else None), (note,)


def _shown(
    benchmark: Benchmark, name: str, run: Measurement
) -> tuple[Published | None, tuple[str, ...]]:
    """Figures of the run's detector; as those of other pictures, with a note that says why, where
    its split, protocol or limit is another than theirs."""
    figures, notes = _at_threshold(benchmark.published[name], run.threshold)
    if figures is None or not (reasons := list(_of_pictures(benchmark, run))):
        return figures, notes
    why = f"the published figures {name} are of other pictures: {'; '.join(reasons)}"
    return replace(figures, others=frozenset(benchmark.generators)), (*notes, why)


def comparable(
    benchmark: Benchmark, run: Measurement, chosen: str | None = None
) -> tuple[Published | None, tuple[str, ...]]:
    """The figures that were published for the run's detector, and notes on those left out.

    Args:
        benchmark: whose file has the figures.
        run: how the benchmark is measured here.
        chosen: the name of the figures where several fit, as those of detectors that differ in
            their training set.

    Returns:
        The figures, None when nothing fits or several do and none was chosen; and notes that say
        which ones are not shown, or are of other pictures, and why.

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
        name: list(_of_detector(figures, run))
        for name, figures in benchmark.published.items()
        if (figures.detector == run.detector if chosen is None else name == chosen)
    }
    fitting = [name for name, reasons in asked.items() if not reasons]
    if len(fitting) == 1:
        return _shown(benchmark, fitting[0], run)
    if len(asked) == 1:
        [(name, reasons)] = asked.items()
        reasons += _of_pictures(benchmark, run)
        return None, (f"the published figures {name} are not shown: {'; '.join(reasons)}",)
    if fitting:
        names = ", ".join(fitting)
        return None, (f"of {names} choose published figures to show by --set data.published=NAME",)
    return None, ()


def of_these_pictures(
    benchmark: Benchmark, figures: Published, records: Sequence[datasets.Record]
) -> tuple[Published, tuple[str, ...]]:
    """Reported figures, told which of them are of other pictures than the records.

    Args:
        benchmark: whose family may know which pictures were published.
        figures: of the benchmark.
        records: the pictures of the run.

    Returns:
        The figures, with the generators and sources of which other pictures are here among their
        `others`; and a note that names these.
    """
    family = datasets.load(benchmark.family)
    if not hasattr(family, "published_share"):
        return figures, ()
    share = family.published_share(records)
    low = [name for name, part in share.items() if part < ENOUGH]
    if not low:
        return figures, ()
    named = ", ".join(f"{name} ({share[name]:.0%})" for name in low)
    note = (
        f"published figures are of other pictures where fewer than 99 % of theirs are here: {named}"
    )
    return replace(figures, others=figures.others.union(low)), (note,)


def as_stated(count: int, stated: int | None) -> bool:
    """Whether a number of pictures is the stated one; True where none is stated."""
    # A hundredth may be missing or too many: some files of the published sets are broken.
    return stated is None or abs(count - stated) <= (1 - ENOUGH) * stated


def records(
    benchmark: Benchmark,
    root: Path | None,
    split: str | None,
    locations: Mapping[str, str],
    sources: Sequence[str],
) -> list[datasets.Record]:
    """The benchmark's pictures, as its family lists them.

    Args:
        benchmark: which one.
        root: the folder of its pictures; None = its default one.
        split: None = the benchmark's own.
        locations: name -> path of what lives elsewhere.
        sources: only these; none = all.

    Raises:
        LayoutError: they are not there, or not laid out as its family says.
    """
    family = datasets.load(benchmark.family)
    return family.records(root or benchmark.root, split or benchmark.split, locations, sources)


def needed(records: Sequence[datasets.Record], pairing: Pairing) -> list[datasets.Record]:
    """The records that some cell takes, in their order: the others need no score."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        groups[record.source, record.generator].append(index)
    largest: dict[str, int] = {}  # the most fakes that a generator has of each source
    for (source, generator), members in groups.items():
        if generator:
            largest[source] = max(len(members), largest.get(source, 0))
    own = pairing.mode == "own"
    # Reals of a source without fakes are measured against only by fakes without reals.
    all_have_reals = bool(largest) and all((source, "") in groups for source in largest)
    chosen: list[int] = []
    for (source, generator), members in groups.items():
        if own and not generator and source not in largest and all_have_reals:
            continue
        bounds = [len(members), pairing.cap or len(members)]
        if own and pairing.balanced and (source, "") in groups:
            reals = len(groups[source, ""])
            bounds.append(reals if generator else largest.get(source, reals))
        chosen += members[: min(bounds)]
    return [records[index] for index in sorted(chosen)]


def missing(benchmark: Benchmark, records: Sequence[datasets.Record]) -> list[str]:
    """Lines that say what of the whole benchmark is not among the records; of a benchmark whose
    mean is over cells, also which sources lack a generator that others have."""
    lines = _too_few(benchmark, records)
    generators = {r.generator for r in records if r.generator}
    for what, whole, there in (
        ("generators", benchmark.generators, generators),
        ("sources", benchmark.sources, {r.source for r in records}),
    ):
        if absent := [name for name in whole if name not in there]:
            lines.append(_absent(f"{len(whole)} {what}", benchmark, absent))
    if benchmark.average == "cells":
        cells = {(r.source, r.generator) for r in records if r.generator}
        sources = sorted({source for source, _ in cells})
        pairs = [(s, g) for s in sources for g in sorted(generators)]
        if absent := [f"{s}/{g}" for s, g in pairs if (s, g) not in cells]:
            lines.append(_absent(f"{len(pairs)} cells", benchmark, absent))
    return lines


def _too_few(benchmark: Benchmark, records: Sequence[datasets.Record]) -> list[str]:
    """A line with the folders, generators and sources that have fewer pictures than is stated; not
    those that have none, which are missing altogether."""
    parts = benchmark.facts.parts
    counts: Counter[str] = Counter()
    for record in records:
        names = {record.generator, record.source, *record.key.split("/")} & parts.keys()
        kind = "synthetic" if record.generator else "real"
        counts.update(name for name in names if getattr(parts[name], kind))
    low = [
        f"{name} {counts[name]:,} of {stated:,}"
        for name, part in parts.items()
        # Pages state round numbers.
        if 0 < counts[name] < ENOUGH * (stated := (part.real or 0) + (part.synthetic or 0))
    ]
    return [f"fewer pictures are here than is stated: {_few(low)}"] if low else []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _absent(whole: str, benchmark: Benchmark, names: Sequence[str]) -> str:
    return (
        f"{len(names)} of the {whole} of {benchmark.title} are not there: {_few(names)}; its "
        "averages are over those that are"
    )

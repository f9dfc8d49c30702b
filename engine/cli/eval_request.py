"""What the flags of phase eval choose: the pictures, how they are measured, where results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import detectors
from datasets import Record
from datasets import _splits as splits
from datasets._limits import UPRIGHT

from ..config import Config, ConfigError
from ..evaluation import benchmark as benchmarks
from ..evaluation import generators
from ..evaluation.analysis import View
from ..evaluation.benchmark import Measurement
from ..evaluation.benchmark_file import Benchmark, Protocol
from ..phases.eval import EvalRequest
from ..runtime import distributed, threads
from ..runtime.device import Device
from ..runtime.distributed import World
from ..runtime.run_folder import RUN
from ..runtime.text import distinct
from ..scoring import degradations, metadata, other_scores, own_threshold
from ..scoring.probability import EVEN, calibrated
from ..weights import manifest, opening
from ..weights.loaded import Loaded
from . import bare, detector, machine, settings


def _benchmark(args: argparse.Namespace, config: Config) -> Benchmark | None:
    """The benchmark that is meant; None when --data names the pictures.

    Raises:
        ConfigError: none is named, and the detector has none of its own.
    """
    if args.data is not None:
        return None
    if args.benchmark is not None:
        return benchmarks.load(args.benchmark)
    home = detectors.load(config.detector).home(config.options)
    if home is None:
        raise ConfigError("--phase eval: expected --data or --benchmark; found neither")
    return benchmarks.load(home.evaluate)


def _data_records(args: argparse.Namespace, config: Config) -> tuple[list[Record], str]:
    """The pictures of --data, and a line on those that its split leaves out."""
    if config.data.locations or config.data.published:
        given = ", ".join(
            [*config.data.locations, *(["published"] if config.data.published else [])]
        )
        raise ConfigError(f"--set data.{given}: expected --benchmark too; found --data")
    [root] = datasets.csv_roots([args.data], args.csv_root)
    found, left_out = splits.to_evaluate(args.data, config.data.split, root)
    return splits.select(found, args.generators, args.sources, args.limit), left_out


def _benchmark_records(
    args: argparse.Namespace, config: Config, benchmark: Benchmark, protocol: Protocol
) -> list[Record]:
    """The pictures of a benchmark that its protocol takes, or the part that flags choose."""
    data, sources = config.data, args.sources
    # Sources go to the family, which need not have the folders of others at all.
    found = benchmarks.records(benchmark, args.data_root, data.split, data.locations, sources)
    chosen = splits.select(found, args.generators, limit=args.limit)
    return benchmarks.needed(chosen, protocol.pairing)


def _notes(
    benchmark: Benchmark, name: str, options: Any, records: Sequence[Record], limit: int | None
) -> tuple[str, ...]:
    """What a reader of the results must know."""
    sources = sorted({record.source for record in records})
    lines = [*benchmarks.notes(benchmark, name, options, sources)]
    lines += benchmarks.missing(benchmark, records)
    if limit is not None:
        lines.append(f"at most {limit} pictures of each generator and source were taken")
    return tuple(lines)


def _changed(args: argparse.Namespace, **values: object) -> argparse.Namespace:
    """The command line with other values of some flags."""
    return argparse.Namespace(**{**vars(args), **values})


def each_set(args: argparse.Namespace) -> dict[str, argparse.Namespace]:
    """The command line of each set of --test_csv as if it were --data, by the set's name: that of
    its file, as a folder can have it. Without --test_csv the command line itself, without a name.

    Raises:
        ConfigError: one is there twice, from the same --csv_root.
    """
    if not args.test_csv:
        return {"": args}
    roots = datasets.csv_roots(args.test_csv, args.csv_root)
    # One table with two roots is two sets, of other pictures.
    places = [path.resolve() for path in args.test_csv]
    if len(set(zip(places, roots, strict=True))) < len(places):
        raise ConfigError("--test_csv: expected each set once; found one of them twice")
    # A folder's name may have a dot that begins no suffix; one that leads would hide the results.
    stems = [(p.name if p.is_dir() else p.stem).lstrip(".") or "set" for p in places]
    return {
        name: _changed(args, data=path, csv_root=[root] if root else [], test_csv=[])
        for name, path, root in zip(distinct(stems), args.test_csv, roots, strict=True)
    }


def each_epoch(args: argparse.Namespace) -> dict[int | None, argparse.Namespace]:
    """The command line of each of --epochs, by its number, with the weights of that epoch. Without
    --epochs the command line itself, without a number."""
    if args.epochs is None:
        return {None: args}
    files = manifest.epoch_files(Path(args.weights), args.epochs)
    return {n: _changed(args, weights=str(path), epochs=None) for n, path in files.items()}


def _restated_otherwise(prevalence: float) -> list[str]:
    """A line for whoever reads results of scores that are not as scores.csv has them."""
    if prevalence == EVEN:
        return []
    return [
        f"probabilities are those for a share of {prevalence:g} generated pictures, and the "
        "threshold is compared with them; scores.csv has those for one half"
    ]


def _with_published(
    view: View,
    benchmark: Benchmark,
    measurement: Measurement,
    named: str | None,
    records: Sequence[Record],
) -> View:
    """The view with the published figures of what is measured, or those `named`, and with notes on
    those that are not shown or not compared."""
    published, why = benchmarks.comparable(benchmark, measurement, named)
    if published is not None:
        published, more = benchmarks.of_these_pictures(benchmark, published, records)
        why = (*why, *more)
    return replace(view, published=published, notes=(*view.notes, *why))


@dataclass(frozen=True)
class _Subject:
    """The pictures of an evaluation and how they are seen. `base`: the degradation that a protocol
    begins with; `folder`, `published_folder`: what the results' folder is called by; `name`: what
    evaluation.log calls the pictures."""

    records: list[Record]
    view: View
    title: str
    name: str
    folder: str
    published_folder: str
    decoding: str
    base: str = degradations.NONE
    benchmark: Benchmark | None = None
    protocol: str | None = None


def _of_data(args: argparse.Namespace, config: Config, title: str) -> _Subject:
    """The pictures of --data."""
    records, left_out = _data_records(args, config)
    data = args.data.resolve()  # which has a name even for "."
    name = data.name if data.is_dir() else data.stem
    # Figures of six examples look like any others in a report.
    few = bare.caution(len(records)) if data == bare.EXAMPLES else ""
    return _Subject(
        records=records,
        view=View(
            notes=tuple(filter(None, (few, left_out))), releases=generators.releases(records, {})
        ),
        title=f"{title} on {data.name}",
        name=name,
        folder=name,
        published_folder=name,
        decoding=config.data.decoding or UPRIGHT,
    )


def _of_benchmark(
    args: argparse.Namespace, loaded: Loaded, config: Config, benchmark: Benchmark
) -> _Subject:
    """The pictures of a benchmark, by its protocol."""
    protocol = args.protocol or benchmarks.PUBLISHED
    how = benchmarks.protocol(benchmark, protocol)
    records = _benchmark_records(args, config, benchmark, how)
    suffix = "" if protocol == benchmarks.PUBLISHED else f"_{protocol}"
    view = View(
        pairing=how.pairing,
        average=benchmark.average,
        dataset=benchmark.dataset,
        generators=benchmark.generators,
        sources=benchmark.sources,
        notes=_notes(benchmark, loaded.name, config.options, records, args.limit),
        facts=benchmark.facts,
        reported=benchmark.reported,
        releases=generators.releases(records, benchmark.released),
    )
    return _Subject(
        records=records,
        view=view,
        title=f"{loaded.model.title} on {benchmark.title}, protocol {protocol}",
        name=benchmark.title,
        folder=benchmark.name + suffix,
        published_folder=benchmark.title + suffix,
        decoding=config.data.decoding or how.decoding,
        base=how.degradation,
        benchmark=benchmark,
        protocol=protocol,
    )


def _with_figures(
    args: argparse.Namespace, loaded: Loaded, config: Config, subject: _Subject, threshold: float
) -> View:
    """The subject's view with the reported figures of what is measured."""
    if subject.benchmark is None or subject.protocol is None:
        return subject.view
    measurement = Measurement(
        detector=loaded.name,
        options=config.options,
        base=subject.view.base,
        protocol=subject.protocol,
        # Of scores as the table has them, whose 0.5 published accuracies are at.
        threshold=calibrated(threshold, args.prevalence),
        split=config.data.split,
        limit=args.limit,
        trained_on=loaded.trained_on,
        decoding=subject.decoding,
    )
    named = config.data.published
    return _with_published(subject.view, subject.benchmark, measurement, named, subject.records)


def _folder(args: argparse.Namespace, loaded: Loaded, config: Config, subject: _Subject) -> Path:
    """Where results go without --output: for a detector whose published program has folders of its
    own where that puts them. --resume finds a run under an earlier name, too."""
    kind = detectors.load(loaded.name)
    folder = kind.output_folder(config.options, args.ckpt)
    if folder is None:
        return Path("runs", loaded.name, f"eval_{subject.folder}")
    own = subject.benchmark is not None and subject.benchmark.name in kind.BENCHMARKS
    published = args.pretrain or manifest.entry_at(loaded.path) is not None
    name = subject.published_folder if own else subject.folder
    chosen = folder / f"{'pretrain' if published else 'eval'}_{name}"
    earlier = folder / f"{'pretrain' if args.pretrain else 'eval'}_{subject.folder}"
    # Runs with a tag are younger than the published names.
    goes_on = args.resume and not args.tag and not (chosen / RUN).exists()
    return earlier if goes_on and (earlier / RUN).exists() else chosen


def _with_scores(
    loaded: Loaded, config: Config, records: Sequence[Record], names: Sequence[str]
) -> Loaded:
    """The detector with other programs' scores of the pictures, where it takes some.

    Args:
        names: of the degradations, which no other program has seen.

    Raises:
        ConfigError: a file is not there or says nothing of these pictures, or they are degraded.
    """
    files = [Path(name) for name in detectors.load(loaded.name).score_files(config.options)]
    if not files:
        return loaded
    if any(name != degradations.NONE for name in names):
        raise ConfigError(
            f"{loaded.name}.scores: expected pictures as they are; found --degrade or a protocol "
            f"with {', '.join(names)}, which these files' scores are not of"
        )
    loaded.model.given = other_scores.columns(files, records)
    sums = {f"scores {number}": path for number, path in enumerate(files)}
    return replace(loaded, external=loaded.external | sums)


def evaluation(
    args: argparse.Namespace, loaded: Loaded, config: Config, device: Device
) -> EvalRequest:
    """What phase eval shall do, and with which pictures.

    Raises:
        ConfigError, LayoutError: what the flags name does not exist or fit.
    """
    benchmark = _benchmark(args, config)
    own_threshold.check_serves(args.threshold, loaded, config)
    threshold = own_threshold.value(args.threshold, loaded)
    if benchmark is None:
        subject = _of_data(args, config, loaded.model.title)
    else:
        subject = _of_benchmark(args, loaded, config, benchmark)
    # The first is what the main numbers are of; the others are the sweep.
    names = [degradations.then(subject.base, n) for n in degradations.parse_sweep(args.degrade)]
    more = settings.decoded_otherwise(subject.decoding) + _restated_otherwise(args.prevalence)
    notes = (*subject.view.notes, *more)
    view = replace(subject.view, base=names[0], until=loaded.until, notes=notes)
    if args.min_pictures is not None:
        view = replace(view, min_pictures=args.min_pictures)
    subject = replace(subject, view=view)
    view, records = _with_figures(args, loaded, config, subject, threshold), subject.records
    loaded = _with_scores(loaded, config, records, names)
    known = metadata.beside(records)
    # After all that goes by the generators' own names: their groups are none that others know.
    if args.group_by:
        records = metadata.grouped(records, known, args.group_by)
        note = f"generators are divided by {', '.join(args.group_by)}: published figures, which are"
        view = replace(view, published=None, notes=(*view.notes, f"{note} of all, are not shown"))
    return EvalRequest(
        records=records,
        loaded=loaded,
        device=device,
        config=config,
        output=detector.output(args, _folder(args, loaded, config, subject)),
        title=subject.title + ("" if view.base == degradations.NONE else f", under {view.base}"),
        tag=args.tag or "",
        threshold=threshold,
        prevalence=args.prevalence,
        degradations=tuple(names),
        view=view,
        benchmark=benchmark.name if benchmark else None,
        protocol=subject.protocol,
        pictures=subject.name,
        metadata=known,
        # A picture's file does not say what other programs say of it.
        cache="none" if loaded.model.given else args.cache,
        workers=machine.workers(args, len(records), subject.decoding),
        resume=args.resume,
        overwrite=args.overwrite,
    )


def opened(args: argparse.Namespace) -> tuple[Device, World]:
    """Device and processes, with the threads set, before anything is loaded."""
    device = machine.device(args, args.precision)
    world = distributed.join(device.device)
    resumed = detector.output(args, args.output) if args.resume and args.output else None
    threads.set_threads(args.threads, device.device, world, resumed)
    return device, world


def evaluating(args: argparse.Namespace) -> tuple[EvalRequest, World]:
    """What phase eval is asked to do by one command line, and the processes that do it."""
    device, world = opened(args)
    [args] = each_set(args).values()
    loaded, config = opening.load(settings.chosen(args), device)
    request = evaluation(args, loaded, config, device)
    machine.check_apart(request.output, [args.data] if args.data else [])
    return request, world

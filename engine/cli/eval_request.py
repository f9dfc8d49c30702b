"""What the flags of phase eval choose: the pictures, how they are measured, where results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from datasets import Record
from datasets import _splits as splits
from datasets._limits import UPRIGHT

from ..config import Config, ConfigError
from ..evaluation import benchmark as benchmarks
from ..evaluation.analysis import View
from ..evaluation.benchmark import Measurement
from ..evaluation.benchmark_file import Benchmark, Protocol
from ..phases.eval import Request
from ..runtime.run_folder import RUN
from ..runtime.text import distinct
from ..scoring import degradations, metadata, own_threshold
from ..scoring.probability import EVEN, calibrated
from ..weights import manifest
from ..weights.loading import Loaded
from . import bare, detector, machine

# The benchmark that each variant of CO-SPY is evaluated on, without --benchmark.
OF_COSPY = {"sd-v1_4": "cospy_bench", "progan": "aigcdetect"}


def _benchmark(args: argparse.Namespace, options: Any) -> Benchmark | None:
    """The benchmark that is meant; None when --data names the pictures."""
    if args.data is not None:
        return None
    if args.benchmark is not None:
        return benchmarks.load(args.benchmark)
    return benchmarks.load(OF_COSPY[options.train_dataset])  # which alone has a usual one


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


def _folder(
    args: argparse.Namespace, loaded: Loaded, config: Config, what: str, title: str | None
) -> Path:
    """Where results go without --output: for CO-SPY where the published program puts them, on its
    own benchmarks by their `title`. --resume finds a run under an earlier name, too."""
    if loaded.name != "cospy":
        return Path("runs", loaded.name, f"eval_{what}")
    folder = detector.cospy_folder(args.ckpt, config.options)
    published = args.pretrain or manifest.entry_at(loaded.path) is not None
    chosen = folder / f"{'pretrain' if published else 'eval'}_{title or what}"
    earlier = folder / f"{'pretrain' if args.pretrain else 'eval'}_{what}"
    # Runs with a tag are younger than the published names.
    goes_on = args.resume and not args.tag and not (chosen / RUN).exists()
    return earlier if goes_on and (earlier / RUN).exists() else chosen


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
    places = [path.resolve() for path in args.test_csv]
    if len(set(zip(places, roots, strict=True))) < len(places):
        raise ConfigError("--test_csv: expected each set once; found one of them twice")
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


def evaluation(
    args: argparse.Namespace, loaded: Loaded, config: Config
) -> tuple[Request, list[Record]]:
    """What phase eval shall do, and with which pictures.

    Raises:
        ConfigError, LayoutError: what the flags name does not exist or fit.
    """
    benchmark = _benchmark(args, config.options)
    own_threshold.check_serves(args.threshold, loaded, config)
    threshold = own_threshold.value(args.threshold, loaded)
    if benchmark is None:
        records, left_out = _data_records(args, config)
        base = degradations.NONE
        data = args.data.resolve()  # which has a name even for "."
        title = f"{loaded.model.title} on {data.name}"
        what = name = data.name if data.is_dir() else data.stem
        few = bare.caution(len(records)) if data == bare.EXAMPLES else ""
        view = View(notes=tuple(filter(None, (few, left_out))))
        own, protocol, decoding = None, None, config.data.decoding or UPRIGHT
    else:
        protocol = args.protocol or benchmarks.PUBLISHED
        how = benchmarks.protocol(benchmark, protocol)
        records, base = _benchmark_records(args, config, benchmark, how), how.degradation
        decoding = config.data.decoding or how.decoding
        suffix = "" if protocol == benchmarks.PUBLISHED else f"_{protocol}"
        what, name = benchmark.name + suffix, benchmark.title
        own = name + suffix if benchmark.name in OF_COSPY.values() else None
        title = f"{loaded.model.title} on {benchmark.title}, protocol {protocol}"
        notes = _notes(benchmark, loaded.name, config.options, records, args.limit)
        view = View(
            pairing=how.pairing,
            average=benchmark.average,
            dataset=benchmark.dataset,
            generators=benchmark.generators,
            sources=benchmark.sources,
            notes=notes,
            facts=benchmark.facts,
            reported=benchmark.reported,
        )
    if args.min_pictures is not None:
        view = replace(view, min_pictures=args.min_pictures)
    names = [degradations.then(base, name) for name in degradations.parse_sweep(args.degrade)]
    more = (*detector.decoded_otherwise(decoding), *_restated_otherwise(args.prevalence))
    view = replace(view, base=names[0], notes=(*view.notes, *more))
    if benchmark is not None and protocol is not None:
        measurement = Measurement(
            detector=loaded.name,
            options=config.options,
            base=view.base,
            protocol=protocol,
            threshold=calibrated(threshold, args.prevalence),
            split=config.data.split,
            limit=args.limit,
            trained_on=loaded.trained_on,
            decoding=decoding,
        )
        view = _with_published(view, benchmark, measurement, config.data.published, records)
    known = metadata.beside(records)
    if args.group_by:
        records = metadata.grouped(records, known, args.group_by)
        note = f"generators are divided by {', '.join(args.group_by)}: published figures, which are"
        view = replace(view, published=None, notes=(*view.notes, f"{note} of all, are not shown"))
    return Request(
        output=detector.output(args, _folder(args, loaded, config, what, own)),
        title=title if view.base == degradations.NONE else f"{title}, under {view.base}",
        tag=args.tag or "",
        threshold=threshold,
        prevalence=args.prevalence,
        degradations=tuple(names),
        view=view,
        benchmark=benchmark.name if benchmark else None,
        protocol=protocol,
        pictures=name,
        metadata=known,
        cache=args.cache,
        workers=machine.workers(args, len(records), decoding),
        resume=args.resume,
        overwrite=args.overwrite,
    ), records

"""From the flags of phase train to a request: configuration, start, pictures, output folder."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import detectors
from datasets import LayoutError, Record
from datasets import _splits as splits
from datasets._paths import split_named
from datasets._splits import HELD_OUT, TRAIN, VAL

from ..config import DETECTION, Config, ConfigError, DataOptions
from ..evaluation import benchmark as benchmarks
from ..evaluation import generators
from ..evaluation.benchmark_file import Benchmark
from ..evaluation.cells import Pairing
from ..phases.train import CombineRequest, check
from ..runtime import distributed, threads
from ..runtime.device import Device
from ..runtime.distributed import World
from ..training.start import Pictures, TrainRequest, adapted
from ..weights.opening import load_members
from . import detector, machine, rules, settings

# Splits to train on and to choose by, where these are not train and val: DRCT measures on its
# val2017 and GenImage on its val, which thus should choose nothing; Fake2M has no other split.
OWN_SPLITS = {
    "drct2m": ("drct_train", "drct_val"),
    "genimage": (TRAIN, HELD_OUT),
    "fake2m": (TRAIN, HELD_OUT),
}
NOT_OF_BACKBONES = (
    *("benchmark", "data_root", "generators", "sources", "until", "val_data", "test_csv"),
    *("weights", "backbone_weights"),
)
SELECTS_ON_TRAINING = (
    "the fusion's epoch is chosen by the pictures that it is trained on, as published: its "
    "validation results are too good; --leak_free takes halves"
)
SHARES_REALS = (
    "the reals of COCO val2017 are {} and are also those of Co-Spy-Bench's source mscoco: results "
    "there are not on unseen pictures"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Family:
    """The pictures of a benchmark, as `splits.divide` asks for them."""

    benchmark: Benchmark
    root: Path
    locations: dict[str, str]
    sources: Sequence[str]

    @property
    def module(self) -> ModuleType:
        return datasets.load(self.benchmark.family)

    def splits(self) -> set[str]:
        """Those that the family knows."""
        return set(self.module.SPLITS)

    def records(self, split: str | None = None) -> list[Record]:
        """Lists a split. Raises LayoutError when it is not there."""
        named = split_named(split) if split else None
        found: list[Record] = self.module.records(self.root, named, self.locations, self.sources)
        return found


def check_flags(args: argparse.Namespace, name: str, config: Config) -> None:
    """Raises ConfigError for flags that would have no effect on this detector's training."""
    if name in rules.COMBINED and (count := distributed.launched()) > 1:
        raise ConfigError(f"--detector {name}: expected one process in training; found {count}")
    objectives = [DETECTION, *detectors.load(name).objectives()]
    if (objective := config.train.objective) not in objectives:
        raise ConfigError(
            f"train.objective: expected one of {', '.join(objectives)}; found {objective!r}"
        )
    if objective != DETECTION:
        for flag in settings.given(args, NOT_OF_BACKBONES):
            raise ConfigError(f"--{flag}: expected train.objective={DETECTION}; found {objective}")
    if args.val_data and config.data.leak_free:
        raise ConfigError("data.leak_free, --val_data: expected one of them; found both")
    for rule in rules.OWN[name].rules if name in rules.OWN else ():
        for flag in settings.given(args, rule.flags):
            if rule.refused(config.options):
                raise ConfigError(f"--{flag}: {rule.message.format(options=config.options)}")


def _family(args: argparse.Namespace, config: Config) -> tuple[_Family, list[str]]:
    """The benchmark that is trained on, and the generators that are wanted."""
    name, root, generators = args.benchmark, args.data_root, args.generators
    home = detectors.load(config.detector).home(config.options)
    if name is None and home is not None:
        name, place = home.train, home.pictures
        whole = benchmarks.load(name).root
        # Who has all of a benchmark need not fetch a part of it again.
        root = root or (whole if place and whole.is_dir() and not place.is_dir() else place)
        generators = generators or list(home.generators)
    benchmark = benchmarks.load(name)
    found = _Family(benchmark, root or benchmark.root, config.data.locations, args.sources)
    return found, generators


def _own_splits(family: _Family, options: DataOptions) -> DataOptions:
    """The splits that are meant where the configuration leaves them open."""
    train, val = OWN_SPLITS.get(family.benchmark.family, (TRAIN, VAL))
    return replace(
        options,
        train_split=options.train_split or train,
        val_split=options.val_split or val,
    )


@dataclass(frozen=True)
class _Choice:
    """The set that is trained on, where it lies, which of its splits, and of these which part."""

    data: Any
    place: Path
    options: DataOptions
    generators: Sequence[str]
    sources: Sequence[str]

    def part(
        self, records: Sequence[Record], others: Sequence[Record], limit: int | None
    ) -> list[Record]:
        """Those of the generators and sources, without reals that no such fake stands against."""
        found = splits.select(records, self.generators, self.sources, limit, others)
        chosen = self.generators
        return benchmarks.needed(found, Pairing("own", None, False)) if chosen else found


def _roots(args: argparse.Namespace) -> list[Path | None]:
    """Where the paths in each CSV of `rules.labelled` start from."""
    return datasets.csv_roots(rules.labelled(args), args.csv_root)


def _choice(args: argparse.Namespace, config: Config) -> _Choice:
    """What the flags and the configuration say of the data.

    Raises:
        ConfigError: flags that contradict one another.
        LayoutError: no such data.
    """
    if args.data is None:
        family, generators = _family(args, config)
        options = _own_splits(family, config.data)
        return _Choice(family, family.root, options, generators, ())
    if config.data.locations:
        given = ", ".join(config.data.locations)
        raise ConfigError(f"--set data.{given}: expected --benchmark too; found --data")
    data = datasets.contents(args.data, _roots(args)[0])
    return _Choice(data, args.data, config.data, args.generators, args.sources)


def _check_leak_free(options: DataOptions) -> None:
    """Raises ConfigError unless one split is to serve training and validation."""
    splits = (options.train_split or TRAIN, options.val_split or VAL)
    if split_named(splits[0]) != split_named(splits[1]):
        raise ConfigError(
            "data.leak_free: expected data.train_split and data.val_split to be the same, which it "
            f"then divides; found {splits[0]} and {splits[1]}"
        )


def _unlabelled(args: argparse.Namespace, config: Config) -> Pictures:
    """All pictures of --data, whatever they are of, for a backbone to learn from. Nothing is chosen
    by validation. Raises LayoutError without any."""
    if args.data is None:
        raise LayoutError("--phase train: expected --data FOLDER, CSV or archive; found none")
    found = datasets.open_path(args.data, labelled=False, csv_root=_roots(args)[0])
    how = f"all of {args.data}, without labels, for train.objective={config.train.objective}"
    return Pictures(splits.select(found, limit=args.limit), [], how, [args.data])


def pictures(args: argparse.Namespace, config: Config) -> Pictures:
    """The pictures to train on, to choose by, and to measure on after each epoch.

    Raises:
        ConfigError, LayoutError: what the flags name does not exist or fit.
    """
    if config.train.objective != DETECTION:
        return _unlabelled(args, config)
    choice = _choice(args, config)
    data, place, options = choice.data, choice.place, choice.options
    if options.leak_free:
        _check_leak_free(options)
    if args.val_data is None:
        found, others, how = splits.divide(data, place, options)
        train = choice.part(found, others, args.limit)
        if others is found:
            val = train
        elif options.val_generators == "all":
            val = splits.select(others, (), choice.sources, args.limit)
        else:
            val = choice.part(others, found, args.limit)
    else:
        there = (args.val_data, options, _roots(args)[1 if args.data else 0])
        found, others, how = splits.train_beside(data, place, *there)
        train = choice.part(found, (), args.limit)
        val = splits.select(others, limit=args.limit)
    train, val, late = _until(args.until or "", data, train, val)
    hint = "".join(f"; {line}" for line in late) + _elsewhere(data)
    splits.check_both(place, "training", train, hint)
    splits.check_both(args.val_data or place, "validation", val, hint)
    if choice.generators:
        all_validate = args.val_data or options.val_generators == "all"
        of = "training generators" if all_validate else "generators"
        how += f"; {of}: {', '.join(choice.generators)}"
    tests = _tests(args)
    told = []
    for name, records in [("validation", [] if train is val else val), *tests.items()]:
        if count := splits.in_both(train, records):
            told.append(f"{count} of {len(records)} {name} pictures are trained on too")
    own = replace(options, val_split=None) if args.val_data else options
    chosen_by = [SELECTS_ON_TRAINING] if train is val else []
    for note in [*late, *told, *chosen_by, *_notes(data, own)]:
        log.warning("%s", note)
    places = [place, *([args.val_data] if args.val_data else []), *args.test_csv]
    return Pictures(train, val, "; ".join([how, *late, *told]), places, tests, args.until or "")


def _until(
    end: str, data: Any, train: list[Record], val: list[Record]
) -> tuple[list[Record], list[Record], list[str]]:
    """Training and validation pictures without generators that came out after `end`, '' = none, or
    of unknown date; lines on those left out. The epoch is chosen by validation, and must not be
    chosen by what was not there yet."""
    if not end:
        return train, val, []
    stated = data.benchmark.released if isinstance(data, _Family) else {}
    kept, told = generators.until(train, end, stated)
    if train is val:
        return kept, kept, [told] if told else []
    kept_val, told_val = generators.until(val, end, stated)
    lines = [told, told_val and f"of the validation pictures, {told_val}"]
    return kept, kept_val, [line for line in lines if line]


def _elsewhere(data: Any) -> str:
    """For the end of a message that misses pictures: how parts of a benchmark are named."""
    if not isinstance(data, _Family) or not data.module.LOCATIONS:
        return ""
    named = ", ".join(f"data.{part}" for part in data.module.LOCATIONS)
    return f"; pictures that lie elsewhere are named by --set {named}"


def _notes(data: Any, options: DataOptions) -> list[str]:
    """What a reader of the results must know of a benchmark's pictures, some of which are those
    that it is measured on, or another."""
    if not isinstance(data, _Family):
        return []
    notes = []
    name, test = data.benchmark.name, data.benchmark.split
    train, val = (split_named(s or "") for s in (options.train_split, options.val_split))
    folders = getattr(data.module, "FOLDERS", {})  # two splits may be the same pictures
    if name == "drct2m" and folders[test] in (used := [folders.get(train), folders.get(val)]):
        role = "trained on" if used[0] == folders[test] else "what the epoch is chosen by"
        notes.append(SHARES_REALS.format(role))
    if test and folders.get(val, val) == folders.get(test, test):
        notes.append(
            f"the epoch is chosen by the split {val}, whose pictures --phase eval --benchmark "
            f"{name} measures; data.val_split={HELD_OUT} takes a part of the training pictures"
        )
    return notes


def _tests(args: argparse.Namespace) -> dict[str, list[Record]]:
    """The pictures of --test_csv by the names of their files: of a split test where a file names
    one, otherwise all."""
    found: dict[str, list[Record]] = {}
    places: set[Path] = set()
    roots = _roots(args)
    for path, root in zip(args.test_csv, roots[len(roots) - len(args.test_csv) :], strict=True):
        place = path.resolve()
        name = place.stem if place.stem not in found else str(path)
        if place in places:
            raise ConfigError(f"--test_csv: expected each file once; found {path} twice")
        places.add(place)
        records = splits.split_or_all(path, splits.TEST, root)
        found[name] = splits.select(records, limit=args.limit)
        splits.check_both(path, "a test", found[name])
    return found


def _combination(
    args: argparse.Namespace, config: Config, device: Device, output: Path
) -> CombineRequest:
    """What the training of a detector made of others is asked to do."""
    chosen = pictures(args, config)
    machine.check_apart(output, chosen.places)
    members = load_members(settings.chosen(args, config.detector), config.options, device)
    decoding = settings.decoding(config, config.data.train_decoding)
    return CombineRequest(
        members=members,
        config=config,
        pictures=chosen,
        device=device,
        output=output,
        workers=machine.workers(args, len(chosen.train), decoding),
        tag=args.tag or "",
        resume=args.resume,
        overwrite=args.overwrite,
    )


def training(args: argparse.Namespace) -> tuple[TrainRequest | CombineRequest, World]:
    """What phase train is asked to do, and the processes that do it.

    Raises:
        ConfigError, LayoutError, WeightsError: what the flags name does not exist or fit.
    """
    name = settings.detector_name(args)
    file = detector.start_file(args, name)
    config = settings.resolve_config(args, name, file)
    check_flags(args, name, config)
    combined = name in rules.COMBINED
    # A recipe says in which precision it trains.
    device = machine.device(args, args.precision if combined else None)
    world = distributed.join(device.device)
    output = detector.output(args, detector.train_folder(args, name, config))
    threads.set_threads(args.threads, device.device, world, output if args.resume else None)
    if combined:
        return _combination(args, config, device, output), world
    start = detector.start_of(args, name, config, file)
    if start.file:
        known = start.file.card.until if start.file.card else ""
        generators.check_until(args.until or "", start.file.path, known)
    config = adapted(config, start)
    # Before the pictures are listed, which may take minutes.
    world.run_on_main(check, config, device.device, output, args.resume, args.overwrite)
    chosen = pictures(args, config)
    machine.check_apart(output, chosen.places)
    decoding = settings.decoding(config, config.data.train_decoding)
    request = TrainRequest(
        config=config,
        start=start,
        pictures=chosen,
        device=device.device,
        output=output,
        workers=machine.workers(args, len(chosen.train), decoding),
        compiled=args.compile,
        only_check=args.check,
        tag=args.tag or "",
        resume=args.resume,
        overwrite=args.overwrite,
    )
    return request, world

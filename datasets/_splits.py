"""Which pictures a run takes: splits, a selection of generators, those held out for validation.

Called by the requests of phases train and eval. Which pictures are held out depends on their keys
alone, never on their order; test pictures are never trained on for want of others.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import datasets
from datasets import LayoutError, Record, csv_file
from datasets._paths import split_named

from ._paths import ALL

Group = tuple[str, str, object]
TRAIN, VAL, TEST, HELD_OUT = "train", "val", "test", "held_out"
STANDARD = {TRAIN, VAL, TEST}
HALF = 0.5  # of a split that serves training and validation


def _groups(records: Sequence[Record]) -> dict[Group, list[Record]]:
    """Records by label, source and generator."""
    groups: defaultdict[Group, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.source, record.generator, record.label].append(record)
    return groups


def select(
    records: Sequence[Record],
    generators: Sequence[str] = (),
    sources: Sequence[str] = (),
    limit: int | None = None,
    others: Sequence[Record] = (),
) -> list[Record]:
    """The chosen pictures of a data set, in its order.

    Args:
        records: the data set.
        others: pictures whose generators and sources may be named too.
        generators: keep the fakes of these, and all reals.
        sources: keep the pictures of these.
        limit: at most so many, the first by key, of every generator and every source of reals.

    Raises:
        LayoutError: a name that the data do not have (the message lists theirs), or nothing left.
    """
    everything = (*records, *others)
    for name, wanted, known in (
        ("--generators", generators, {r.generator for r in everything if r.generator}),
        ("--sources", sources, {r.source for r in everything if r.source}),
    ):
        if missing := set(wanted) - known:
            available = ", ".join(sorted(known)) or "none"
            raise LayoutError(f"{name}: no {', '.join(sorted(missing))}; found {available}")
    chosen = [
        r
        for r in records
        if (not generators or not r.generator or r.generator in generators)
        and (not sources or r.source in sources)
    ]
    if limit is not None:
        first = {r.key for group in _groups(chosen).values() for r in group[:limit]}
        chosen = [r for r in chosen if r.key in first]
    if not chosen:
        raise LayoutError("expected pictures; this choice of generators and sources leaves none")
    return chosen


def hold_out(records: Sequence[Record], fraction: float) -> tuple[list[Record], list[Record]]:
    """Training pictures, and about `fraction` of each generator and each source of reals, at least
    one picture where there are two; which ones, a hash of the keys decides."""
    train, val = [], []
    for group in _groups(records).values():
        order = sorted(group, key=lambda r: zlib.crc32(r.key.encode("utf-8", "surrogateescape")))
        count = min(max(1, round(fraction * len(group))), len(group) - 1)
        val += order[:count]
        train += order[count:]
    return sorted(train, key=lambda r: r.key), sorted(val, key=lambda r: r.key)


class Division(Protocol):
    """What a user asks of the splits: names of those to train on and to validate on (None: the
    data's own), the share held out where the data name none, and whether one split that is to serve
    both is cut in halves."""

    @property
    def train_split(self) -> str | None: ...
    @property
    def val_split(self) -> str | None: ...
    @property
    def val_fraction(self) -> float: ...
    @property
    def leak_free(self) -> bool: ...


class Splits(Protocol):
    """A data set whose splits can be listed alone."""

    def splits(self) -> set[str]:
        """What `records` can be asked for."""

    def records(self, split: str | None = None) -> list[Record]:
        """The pictures of a split, or all."""


def _names(data: Splits, split: str) -> bool:
    return split != HELD_OUT and split_named(split) in data.splits()


def _train_split(data: Splits, place: Path, options: Division, val: str) -> str | None:
    """The split to train on; None = all, where the data name none.

    Raises:
        LayoutError: the data name splits, but not the one to train on.
    """
    split = options.train_split or TRAIN
    if _names(data, split):
        return split
    # What the data call test, or validation, must not be trained on.
    others = [val] if _names(data, val) else sorted(data.splits() & STANDARD)
    if others or split_named(split) not in STANDARD:
        beside = f" beside {', '.join(others)}" if others else ""
        raise LayoutError(
            f"{place}: expected a split {split}; found no such one{beside}: name it with "
            "--set data.train_split=NAME"
        )
    return None


def divide(data: Splits, place: Path, options: Division) -> tuple[list[Record], list[Record], str]:
    """Training and validation pictures, and a line that says how they were told apart.

    Args:
        data: whose splits are asked for.
        place: where the data lie, for messages.
        options: the splits to train on and to validate on.

    Raises:
        LayoutError: a split that was asked for is not there.
    """
    val_split = options.val_split or VAL
    split = _train_split(data, place, options, val_split)
    same = split_named(options.train_split or TRAIN) == split_named(val_split)
    if split and _names(data, val_split):
        if not same:
            how = f"splits {split} and {val_split} of {place}"
            return data.records(split), data.records(val_split), how
        if not options.leak_free:
            records = data.records(split)
            return records, records, f"split {split} of {place}, both to train on and to choose by"
    elif split_named(val_split) not in (*STANDARD, HELD_OUT):
        raise LayoutError(
            f"{place}: expected a split {val_split}; found no such one: name one with --set "
            f"data.val_split=NAME, or {HELD_OUT} for a part of the training pictures"
        )
    fraction = HALF if same and options.leak_free else options.val_fraction
    train, val = hold_out(data.records(split), fraction)
    what = f"split {split} of {place}" if split else str(place)
    return train, val, f"{fraction:g} of every generator of {what} held out for validation"


def to_evaluate(
    path: Path, split: str | None, csv_root: Path | None = None
) -> tuple[list[Record], str]:
    """The pictures to evaluate on, and a line on what that leaves out, '' where it was asked for.

    Args:
        path: a folder, a CSV or an archive.
        split: of the data; `all` for every picture. Without one, those of test where a CSV names
            several: figures of training pictures among others would mislead.
        csv_root: where the paths in a CSV start from.

    Raises:
        LayoutError: no such split, or several and none is test.
    """
    data = datasets.contents(path, csv_root)
    if split is not None or not isinstance(data, csv_file.Contents) or len(data.splits()) < 2:
        return data.records(None if split == ALL else split), ""
    names = ", ".join(sorted(data.splits()))
    if TEST not in data.splits():
        raise LayoutError(
            f"{path}: expected a split {TEST}; found {names}: choose one by --split, or --split "
            f"{ALL}"
        )
    records = data.records(TEST)
    left_out = len(data) - len(records)
    return records, (
        f"{path.name}: the {len(records)} rows of split {TEST} are taken, {left_out} "
        f"rows of others left out ({names}; --split NAME takes another, --split {ALL} all)"
    )


def split_or_all(path: Path, split: str, csv_root: Path | None = None) -> list[Record]:
    """The pictures of a split where the data at `path` name it, otherwise all of them."""
    data = datasets.contents(path, csv_root)
    return data.records(split if _names(data, split) else None)


def train_beside(
    data: Splits, place: Path, val_path: Path, options: Division, csv_root: Path | None = None
) -> tuple[list[Record], list[Record], str]:
    """Training and validation pictures as `divide` has them, the latter of another data set.

    Args:
        data: to train on.
        place: where it lies, for messages.
        val_path: the folder, CSV or archive to validate on: its split `val_split` where it names
            that, otherwise all of it.
        options: the splits to train on and to validate on.
        csv_root: where the paths in a CSV of `val_path` start from.
    """
    val_split = options.val_split or VAL
    split = _train_split(data, place, options, HELD_OUT)
    train, val = data.records(split), split_or_all(val_path, val_split, csv_root)
    what = f"split {split} of {place}" if split else str(place)
    return train, val, f"{what} to train on, {val_path} for validation"


def outlook(train: Sequence[Record], val: Sequence[Record], how: str) -> str:
    """A line on what a training sees; `how` says how the two were told apart."""
    return f"{len(train)} pictures to train on, {len(val)} for validation: {how}"


def in_both(train: Sequence[Record], others: Sequence[Record]) -> int:
    """How many of the other pictures are files that are trained on too, by whatever names."""
    folders: dict[Path, Path] = {}  # resolved once each: there may be a million pictures

    def file(record: Record) -> tuple[Path, str]:
        path = record.path
        if path.is_symlink():
            return path.resolve(), record.member
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        return folders[path.parent] / path.name, record.member

    known = {file(r) for r in train}
    return sum(file(r) in known for r in others)


def check_both(path: Path, name: str, records: Sequence[Record], hint: str = "") -> None:
    """Raises LayoutError unless there are real and synthetic pictures.

    Args:
        path: where they lie, for the message.
        name: what they are for, for the message.
        records: the pictures.
        hint: the end of the message.
    """
    synthetic = sum(int(r.label or 0) for r in records)
    if not 0 < synthetic < len(records):
        raise LayoutError(
            f"{path}: expected real and synthetic pictures for {name}; found "
            f"{len(records) - synthetic} real and {synthetic} synthetic{hint}"
        )

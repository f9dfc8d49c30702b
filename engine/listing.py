"""Which pictures a run takes: splits, parts, and the pictures held out for validation."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import LayoutError, Record
from datasets._paths import split_named

from .config import DataOptions

Group = tuple[str, str, object]


def _groups(records: Sequence[Record]) -> dict[Group, list[Record]]:
    """Records by label, source and generator."""
    groups: defaultdict[Group, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.source, record.generator, record.label].append(record)
    return groups


def part(
    records: Sequence[Record],
    generators: Sequence[str] = (),
    sources: Sequence[str] = (),
    limit: int | None = None,
    others: Sequence[Record] = (),
) -> list[Record]:
    """A part of a data set, in its order.

    Args:
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
            found = ", ".join(sorted(known)) or "none"
            raise LayoutError(f"{name}: no {', '.join(sorted(missing))}; found {found}")
    kept = [
        r
        for r in records
        if (not generators or not r.generator or r.generator in generators)
        and (not sources or r.source in sources)
    ]
    if limit is not None:
        chosen = {r.key for group in _groups(kept).values() for r in group[:limit]}
        kept = [r for r in kept if r.key in chosen]
    if not kept:
        raise LayoutError("expected pictures; this choice of generators and sources leaves none")
    return kept


def whole_batches(missing: Sequence[bool], size: int) -> list[int]:
    """Indices of the batches of `size` in which something is missing, all of each batch: the last
    digits of a logit depend on what it shares its batch with."""
    starts = [i for i in range(0, len(missing), size) if any(missing[i : i + size])]
    return [k for i in starts for k in range(i, min(i + size, len(missing)))]


def listing_digest(records: Sequence[Record]) -> str:
    """A hash over the names, labels, sources and generators of pictures, in their order, so that a
    resumed run cannot mix data."""
    found = hashlib.blake2b(digest_size=16)
    for r in records:
        row = json.dumps([r.key, r.label, r.source, r.generator])
        found.update(row.encode() + b"\n")
    return found.hexdigest()


def hold_out(records: Sequence[Record], fraction: float) -> tuple[list[Record], list[Record]]:
    """Splits off about `fraction` of each generator and each source of reals, at least one picture
    where there are two; which ones, a hash of the keys decides."""
    train, val = [], []
    for group in _groups(records).values():
        order = sorted(group, key=lambda r: zlib.crc32(r.key.encode("utf-8", "surrogateescape")))
        count = min(max(1, round(fraction * len(group))), len(group) - 1)
        val += order[:count]
        train += order[count:]
    return sorted(train, key=lambda r: r.key), sorted(val, key=lambda r: r.key)


def train_and_val(
    path: Path, options: DataOptions, csv_root: Path | None = None
) -> tuple[list[Record], list[Record], str]:
    """Training and validation pictures of a labelled folder, CSV or archive, and a line that says
    how they were told apart.

    Raises:
        LayoutError: no pictures, or one of the two lacks real or synthetic ones.
    """
    data = datasets.contents(path, csv_root)
    wanted, named = {options.train_split, options.val_split}, data.splits()
    there = {name for name in wanted if split_named(name) in named}
    if there == wanted:
        train, val = data.records(options.train_split), data.records(options.val_split)
        how = f"splits {options.train_split} and {options.val_split} of {path}"
    else:
        # A set with train and test but no val must not be trained on its test pictures.
        if there and options.train_split not in there:
            raise LayoutError(
                f"{path}: expected a split {options.train_split}; found no such one beside "
                f"{', '.join(sorted(there))}: name it with --set data.train_split=NAME"
            )
        split = options.train_split if there else None
        train, val = hold_out(data.records(split), options.val_fraction)
        what = f"split {split} of {path}" if split else str(path)
        how = f"{options.val_fraction:g} of every generator of {what} held out for validation"
    check_classes(path, train, val)
    return train, val, how


def check_classes(path: Path, train: Sequence[Record], val: Sequence[Record]) -> None:
    """Raises LayoutError unless training and validation both have real and synthetic pictures."""
    for name, records in (("training", train), ("validation", val)):
        if {int(r.label or 0) for r in records} != {0, 1}:
            raise LayoutError(f"{path}: expected real and synthetic pictures for {name}")

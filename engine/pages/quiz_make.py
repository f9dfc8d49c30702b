"""A questionnaire's folder, made of labelled pictures: a balanced draw, all alike as files.

`scripts/quiz.py make` calls `draw` and `write`. Every picture is cut to a square of one size and
saved anew as JPEG without metadata, under a random name, so that neither form nor name tells what
it is.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets import Label, Record
from datasets._images import PictureDataset

from ..config import ConfigError
from ..reporting.thumbnails import jpeg
from ..runtime.files import write_file
from ..runtime.table_writer import TableWriter
from ..runtime.workers import Workers, in_turn
from .quiz import COLUMNS, OPTIONS, PICTURES, TABLE

QUALITY = 90
AT_ONCE = 8  # pictures
BY = ("class", "kind", "generator")
TEMPLATE = """\
# The questionnaire: python scripts/serve.py --no_scoring --quiz FOLDER
title: Real or generated?
mode: {mode}            # one: real or AI-generated? pair: which one is real?
trials: null         # pictures or pairs that each person sees; null = all
seconds: null        # time limit of each; null = none
feedback: false      # tell the truth after each answer
hint: none           # a detector's verdict: none, before or after the answer
hint_by: null        # a folder of phase eval in detectors/; null = the first
attention: 1         # trials that ask for a stated answer
reasons: [hands or faces, text, light and shadow, too smooth, background, just a feeling]
consent: |
  This is a study of how well people tell real pictures from generated ones. Taking part is
  voluntary, and you can stop at any time by closing the page.

  Your answers and the time that they take are kept under a random number.
questions:
  - {{name: experience, text: Do you make or edit pictures, choices: [never, sometimes, often]}}
"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Square:
    """The middle square of a picture at `size` px, as a transform."""

    size: int

    def __call__(self, image: Image.Image, _: np.random.Generator) -> Image.Image:
        return ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)


def _spread(
    pools: Mapping[str, Sequence[Record]], count: int, rng: np.random.Generator
) -> list[Record]:
    """So many records, from all pools alike: one of each in turn until there are enough."""
    orders = {name: [pool[i] for i in rng.permutation(len(pool))] for name, pool in pools.items()}
    chosen: list[Record] = []
    while len(chosen) < count and any(orders.values()):
        for order in orders.values():
            if order and len(chosen) < count:
                chosen.append(order.pop())
    return chosen


def draw(
    records: Sequence[Record], kinds: Mapping[str, str], by: str, count: int, seed: int
) -> list[Record]:
    """As many real pictures as synthetic ones, the same for the same seed.

    Args:
        records: labelled.
        kinds: of pictures, by their key.
        by: one of BY: `count` pictures of each class, of each class in each kind, or of each
            generator, for which real ones are drawn from all sources alike.
        count: of each.
        seed: of the draw.

    Raises:
        ConfigError: a group has fewer.
    """
    rng = np.random.default_rng(seed)
    ordered = sorted(records, key=lambda record: record.key)

    def group(record: Record) -> str:
        if by == "kind":
            return kinds.get(record.key, "")
        return record.generator if by == "generator" else ""

    fakes: defaultdict[str, list[Record]] = defaultdict(list)
    reals: defaultdict[str, list[Record]] = defaultdict(list)
    for record in ordered:
        (fakes if record.label is Label.FAKE else reals)[group(record)].append(record)
    if by == "kind":
        fakes.pop("", None), reals.pop("", None)  # a picture of no kind stands for none
    wanted = [(f"synthetic {name}".strip(), pool, count) for name, pool in sorted(fakes.items())]
    if by == "generator":
        wanted.append(("real", reals[""], count * len(fakes)))
    else:
        wanted += [(f"real {name}".strip(), pool, count) for name, pool in sorted(reals.items())]
    if len({name.split()[0] for name, *_ in wanted}) < 2:
        raise ConfigError(f"expected real and synthetic pictures with a {by}; found one class")
    chosen: list[Record] = []
    for name, pool, number in wanted:
        if len(pool) < number:
            raise ConfigError(f"expected {number} pictures of {name}; found {len(pool)}")
        pools: defaultdict[str, list[Record]] = defaultdict(list)
        for record in pool:
            pools[record.generator or record.source].append(record)
        chosen += _spread(pools, number, rng)
    return [chosen[i] for i in rng.permutation(len(chosen))]


def write(
    folder: Path,
    records: Sequence[Record],
    kinds: Mapping[str, str],
    size: int,
    seed: int,
    mode: str,
    workers: Workers,
) -> int:
    """Writes the folder of a questionnaire.

    Args:
        folder: new, or empty.
        records: drawn.
        kinds: as `draw` has them.
        size: px of every picture's side.
        seed: of the files' names.
        mode: one of the options' modes, for the file to edit.
        workers: who decodes.

    Returns:
        How many pictures were enlarged, which shows.

    Raises:
        ConfigError: the folder holds something, or a picture cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output {folder}: expected an empty folder or none; found another")
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, 1))
    dataset = PictureDataset(records, Square(size), limits=workers.limits)
    enlarged = 0
    with TableWriter(folder / TABLE, COLUMNS, (), False) as table:
        for items in in_turn(dataset, AT_ONCE, workers):
            for item in items:
                record = records[item.index]
                if item.value is None:
                    raise ConfigError(f"{record.key}: {item.error}")
                name = f"{rng.bytes(8).hex()}.jpg"
                write_file(folder / PICTURES / name, _plain(item.value))
                enlarged += min(item.width or 0, item.height or 0) < size
                table.append([(f"{PICTURES}/{name}", int(record.label or 0), record.generator,
                               record.source, kinds.get(record.key, ""), record.key)])  # fmt: skip
    write_file(folder / OPTIONS, TEMPLATE.format(mode=mode))
    return enlarged


def _plain(image: Image.Image) -> bytes:
    """A JPEG without metadata."""
    bare = Image.frombytes("RGB", image.size, image.tobytes())
    return jpeg(bare, QUALITY)

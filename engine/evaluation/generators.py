"""When generators came out and of which family they are: configs/generators.yaml, looked up.

Phase eval asks for results by year and family, phase train for what --until takes. No date is
guessed: one that a CSV or a benchmark states counts before the file's, and a generator that nothing
is known of has none. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from datasets import Record
from datasets._dates import date, is_by

from ..config import CONFIGS, FILE, ConfigError, read_yaml, validated

FILE_OF_ALL = CONFIGS / "generators.yaml"
ARXIV = re.compile(r"arXiv ([0-9]{2})([0-9]{2})\.[0-9]{4,5}")  # a number begins with year and month
ORGANISATION, REMARK = re.compile(r".*[@/]"), re.compile(r"\s*\([^()]*\)$")
SIGNS = re.compile(r"[^\w+]|_")
SHOWN = 10  # generators that a line names

Family = Literal[
    "GAN", "pixel diffusion", "latent diffusion", "autoregressive", "masked tokens",
    "guided optimisation", "commercial", "other",
]  # fmt: skip
# YAML reads a year alone as a number.
Date = Annotated[str, Field(coerce_numbers_to_str=True), AfterValidator(date)]


@dataclass(frozen=True, config=FILE)
class Generator:
    """What is known of a generator."""

    family: Family
    released: Date | None = None
    """None where it is not certain."""
    source: str = ""
    """What the date is of, in words."""
    also: tuple[str, ...] = ()
    """Its other names, in benchmarks and papers."""

    def __post_init__(self) -> None:
        if bool(self.released) != bool(self.source):
            raise ValueError("expected released and source, or neither; found one of them")
        number = ARXIV.match(self.source)
        if number and self.released != f"20{number[1]}-{number[2]}":
            month = f"20{number[1]}-{number[2]}"
            raise ValueError(f"expected released {month} of {self.source}; found {self.released}")


@dataclass(frozen=True, config=FILE)
class Generators:
    """The content of the file."""

    generators: dict[str, Generator]

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for own, generator in self.generators.items():
            for name in (own, *generator.also):
                if (other := names.setdefault(bare(name), name)) != name:
                    raise ValueError(f"expected each name once; found {other} and {name}")


class Release(NamedTuple):
    """Family and date of a generator, '' where unknown."""

    family: str = ""
    date: str = ""


UNKNOWN = Release()


def bare(name: str) -> str:
    """A generator's name as names are compared: `stabilityai@SDXL-Turbo` and `sdxl_turbo` alike."""
    return SIGNS.sub("", ORGANISATION.sub("", name).casefold())


def read(path: Path) -> dict[str, Release]:
    """The generators of a file by their bare names. Raises ConfigError when it is wrong."""
    content = validated(Generators, str(path), read_yaml(path))
    return {
        bare(name): Release(each.family, each.released or "")
        for own, each in content.generators.items()
        for name in (own, *each.also)
    }


@cache
def find(name: str) -> Release:
    """What the project's file knows of a generator; a remark in brackets behind its name counts
    only where the file has the name with it."""
    known = _known()
    return known.get(bare(name)) or known.get(bare(REMARK.sub("", name)), UNKNOWN)


@cache
def _known() -> dict[str, Release]:
    return read(FILE_OF_ALL)


def release(record: Record, stated: Mapping[str, str]) -> Release:
    """What is known of the generator of a synthetic picture.

    Args:
        record: whose own date counts first.
        stated: dates that a benchmark states, by generator; they count before the file's.
    """
    known = find(record.generator)
    own = record.released or stated.get(record.generator, "")
    return known._replace(date=own) if own else known


def releases(records: Sequence[Record], stated: Mapping[str, str]) -> dict[str, Release]:
    """The releases of the synthetic pictures by their keys, as far as anything is known."""
    every = ((r.key, release(r, stated)) for r in records if r.generator)
    return {key: found for key, found in every if found != UNKNOWN}


def until(
    records: Sequence[Record], end: str, stated: Mapping[str, str]
) -> tuple[list[Record], str]:
    """The real pictures, and those of generators that were out by the end of a year or month; a
    line on the others, '' without any.

    Args:
        records: of a data set, in an order that is kept.
        end: YYYY or YYYY-MM.
        stated: as in `release`.
    """
    kept: list[Record] = []
    left_out: dict[str, list[str]] = {"later": [], "unknown": []}
    for record in records:
        out = release(record, stated).date if record.generator else ""
        if not record.generator or is_by(out, end):
            kept.append(record)
        else:
            left_out["later" if out else "unknown"].append(record.generator)
    told = [
        f"{len(generators)} pictures of generators of {kind} date ({_listed(generators)})"
        for kind, generators in left_out.items()
        if generators
    ]
    return kept, f"--until {end} leaves out {' and '.join(told)}" if told else ""


def check_until(end: str, path: Path, until: str) -> None:
    """Raises ConfigError for a file that training with `--until end` is to use, '' = without, if
    it may have learnt from later generators.

    Args:
        until: the --until of the training that wrote the file, '' = without, or not known.
    """
    if end and not is_by(until, end):
        raise ConfigError(
            f"--until {end}: expected weights and scores of trainings with --until {end} or "
            f"earlier; found {path}, which may have learnt from later generators"
        )


def _listed(names: Sequence[str]) -> str:
    distinct = sorted(set(names))
    more = len(distinct) - SHOWN
    return ", ".join(distinct[:SHOWN]) + (f" and {more} more" if more > 0 else "")

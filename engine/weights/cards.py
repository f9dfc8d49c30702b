"""Cards of weight files: what they are of, how their scores are read, and the sum that seals them.

Weight files and exported networks carry one in their metadata. Nothing here imports torch, for a
picture can be scored without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from detectors._errors import WeightsError

from ..plain_data import parse_json
from ..runtime.text import reason

FORMAT = "synthetic-picture-detectors/1"  # of what this project writes
SUM = "sum"  # of a card: what notices a flipped bit


@dataclass(frozen=True)
class Card:
    """The card of a weight file of this project: what it is of and how its scores are read.

    `threshold`: probability above which a picture counts as synthetic. `band`: (low, high)
    probabilities between which the verdict is "uncertain", or None. `extra`: free notes.
    """

    detector: str
    options: dict[str, Any]
    threshold: float = 0.5
    band: tuple[float, float] | None = None
    extra: dict[str, Any] | None = None

    @property
    def until(self) -> str:
        """The --until of the training that wrote the weights, '' = without, or not known."""
        return str((self.extra or {}).get("until") or "")


def sha256(path: Path) -> str:
    """Hex digest of a file; of one that did not change, taken once."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def arrays_digest(state: Iterable[tuple[str, np.ndarray]]) -> str:
    """A hash of arrays with their keys, by which they are sorted: of the keys and all bytes."""
    digest = hashlib.sha256()  # which processors have instructions for
    for key, value in state:
        digest.update(key.encode() + b"\0")
        digest.update(np.ascontiguousarray(value).data.cast("B"))
    return digest.hexdigest()


def _sealed(values: Mapping[str, Any], content: str) -> str:
    """A hash of a card's values and of the content that they are about, itself given as a hash."""
    known = {key: value for key, value in values.items() if key != SUM}
    return hashlib.sha256((content + json.dumps(known)).encode()).hexdigest()


def card_metadata(card: Card, content: str) -> dict[str, str]:
    """Metadata of a weight file: its card, which `read_card` reads, under a sum that `check_sum`
    compares with the `content`, a hash of all else in the file."""
    values = {
        "format": FORMAT,
        "detector": card.detector,
        "options": card.options,
        "threshold": card.threshold,
        "band": card.band,
        "extra": card.extra or {},
    }
    values[SUM] = _sealed(values, content)
    # One entry: safetensors writes several in random order, and equal weights would get other sums.
    return {"card": json.dumps(values)}


def read_card(path: Path, metadata: Mapping[str, str]) -> Card:
    """The card in a weight file's metadata. Raises WeightsError when it is broken."""
    try:
        values = parse_json(metadata["card"])
    except ValueError as error:
        raise _broken(path, error) from error
    return card_of_values(path, values)


def _broken(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: its card is broken ({reason(error)}); fetch it again")


def card_of_values(path: Path, values: Any) -> Card:
    """The card that JSON spells, which stands in `path`. Raises WeightsError when it is broken."""
    try:
        if values["format"] != FORMAT:
            raise WeightsError(f"{path}: is of format {values['format']}; expected {FORMAT}")
        threshold, given = float(values["threshold"]), values["band"]
        band = (float(given[0]), float(given[1])) if given else None
        low, high = band or (0.0, 1.0)
        if not (0 <= threshold <= 1 and 0 <= low <= high <= 1):
            raise ValueError(f"threshold {threshold} and band {band} are no probabilities")
        name, options = str(values["detector"]), dict(values["options"])
        return Card(name, options, threshold, band, dict(values["extra"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _broken(path, error) from error


def check_sum(path: Path, metadata: Mapping[str, str], content: str) -> None:
    """Raises WeightsError when a file's card, one that `read_card` takes, or the `content` that it
    was written for has changed. Files of earlier versions have no sum, others no card."""
    values = json.loads(metadata.get("card", "{}"))
    if SUM in values and values[SUM] != _sealed(values, content):
        raise WeightsError(
            f"{path}: expected the sum that its card names; found another: the file is damaged: "
            "get it again"
        )

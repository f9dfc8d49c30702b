"""Files of Hugging Face's hub, and folders in the layout of its `PyTorchModelHubMixin`.

Such a folder holds `model.safetensors` and a `config.json` that says what it is of;
scripts/publish.py writes one, `--weights` and `engine/api.py` read it, from a disk or as
`hf:ORG/NAME`. Only safetensors are read of it. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectors._errors import WeightsError

from ..plain_data import MOST_JSON, read_json
from ..runtime.text import reason
from . import manifest
from .cards import FORMAT, Card, card_of_values
from .manifest import WEIGHTS, Hub

CONFIG, README = "config.json", "README.md"
# What config.json need not say.
USUAL = {"format": FORMAT, "threshold": 0.5, "band": None, "options": {}, "extra": {}}
SAID = ("detector", "options", "threshold", "band")  # of a card, that config.json repeats


def download(name: str, hub: Hub, size: int | None, by_hand: str, force: bool = False) -> Path:
    """A hub file in its cache, brought there unless it is.

    Args:
        name: of what is brought, with which the message begins.
        hub: the file.
        size: the most bytes that it may have; None where nobody stated them.
        by_hand: how to do without the hub.
        force: bring it anew.

    Raises:
        WeightsError: it cannot be had; the message says what to do.
    """
    if not force and (cached := manifest.cached(hub)):
        return cached
    from ..fetching.services import hub_file, trouble  # httpx, for which no verdict shall wait

    try:
        return Path(hub_file(hub.repo, hub.filename, hub.revision, size, force))
    # Its transports raise almost any type: of httpx, of requests, of hf_xet, of the disk.
    except Exception as error:
        why = trouble(error, f"{hub.filename} of {hub.repo}", hub.repo, hub.repo, by_hand)
        raise WeightsError(f"{name}: {why}") from error


def bring(weights: Hub, reference: str) -> Path:
    """The weights of a hub repository on this machine, beside them its config.json. What is in the
    hub's cache is not asked for again.

    Args:
        weights: as `manifest.hub_of` has them.
        reference: what names them, with which messages begin.

    Raises:
        WeightsError: no such repository, or one without these files; the network's reasons.
    """
    by_hand = "name a folder that holds both files by --weights"
    path = download(reference, weights, None, by_hand)
    # Of the same commit, for the branch may move meanwhile; the cache's folders are named by them.
    config = Hub(weights.repo, CONFIG, revision=path.parent.name)
    download(reference, config, MOST_JSON, by_hand)
    return path


def _values(path: Path) -> dict[str, Any] | None:
    """The config.json beside a folder's weights, where it says which detector it is of."""
    beside = path.with_name(CONFIG)
    if path.name != WEIGHTS or not beside.is_file():
        return None
    try:
        values = read_json(beside)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{beside}: expected JSON; found {reason(error)}") from error
    return values if isinstance(values, dict) and "detector" in values else None


def with_config(path: Path, own: Card | None) -> Card | None:
    """The card of a weight file that may lie in a folder of the hub: its own, else that of
    config.json, which other programs write alone; None where neither says a detector.

    Args:
        path: of the weights.
        own: the card in the file.

    Raises:
        WeightsError: config.json is broken, or says something else than the file.
    """
    values = _values(path)
    if values is None:
        return own
    beside = path.with_name(CONFIG)
    card = card_of_values(beside, USUAL | values)
    if own is None:
        return card
    for name in SAID:
        if getattr(card, name) != getattr(own, name):
            raise WeightsError(
                f"{beside}: expected the {name} of the card of {path.name}, {getattr(own, name)}; "
                f"found {getattr(card, name)}: write both by scripts/publish.py"
            )
    return own

"""The layouts of CO-SPY's published weight files, read and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Published prefixes -> this project's, for each of the four files; `fc` is another layer in each.
# In that of end2end each of four state dicts has a name, which is read as the start of its keys.
SEMANTIC = {"fc.": "semantic.fc."}
ARTIFACT = {
    "artifact_encoder.vae.": "artifact.vae.",
    "artifact_encoder.": "artifact.trunk.",
    "fc.": "artifact.fc.",
}
FUSION = {"fc.": "fc."}
END2END = {
    "art_encoder.vae.": "artifact.vae.",
    "art_encoder.": "artifact.trunk.",
    "art_fc.": "artifact.fc.",
    "sem_fc.": "semantic.fc.",
    "classifier.": "fc.",
}
# A layer of the published artifact encoder without an autoencoder that no output depends on.
UNUSED = ("artifact_encoder.fc1.", "art_encoder.fc1.")
TOP = "fc.weight"


def _fuses(state: dict[str, Tensor]) -> bool:
    """Whether the topmost layer is that of fusion, on two logits."""
    return TOP in state and state[TOP].shape == (1, 2)


def _has(keys: Iterable[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _renamed(key: str, prefixes: Iterable[tuple[str, str]]) -> str | None:
    """The key with the first of the prefixes (old, new) that fits exchanged; None if none does."""
    return next((new + key.removeprefix(old) for old, new in prefixes if key.startswith(old)), None)


def own_keys(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published file's state dict with this project's names; a key of none of them stays as it
    is, and so do all when they are this project's. Leaves out `fc1` of the artifact encoder, which
    the published network never uses."""
    if _has(published, "semantic.") or _has(published, "artifact."):
        return dict(published)
    if _has(published, "artifact_encoder."):
        layout = ARTIFACT
    elif TOP in published:
        layout = FUSION if _fuses(published) else SEMANTIC
    else:
        layout = END2END
    used = {key: value for key, value in published.items() if not key.startswith(UNUSED)}
    return {_renamed(key, layout.items()) or key: value for key, value in used.items()}


def _with_unused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With zeros for `fc1`, shaped like the classifier, where the artifact encoder is that without
    an autoencoder: the published code refuses an end2end file that lacks a key."""
    if not _has(state, "artifact.trunk.") or _has(state, "artifact.vae."):
        return state
    return state | {
        f"artifact.trunk.fc1.{kind}": torch.zeros_like(state[f"artifact.fc.{kind}"])
        for kind in ("weight", "bias")
    }


def published_keys(state: dict[str, Tensor]) -> dict[str, Any]:
    """The inverse of `own_keys`: which of the four files it makes, `state` itself tells. Leaves out
    whatever the published file does not hold: frozen encoders, and of a fusion its branches."""
    state = _with_unused(state)
    if TOP in state:
        layout = FUSION if _fuses(state) else END2END
    else:
        layout = ARTIFACT if _has(state, "artifact.") else SEMANTIC
    back = [(ours, theirs) for theirs, ours in layout.items()]
    named = {_renamed(key, back): value for key, value in state.items()}
    flat = {key: value for key, value in named.items() if key is not None}
    if layout is not END2END:
        return flat
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        part, _, inner = key.partition(".")
        nested.setdefault(part, {})[inner] = value
    return nested

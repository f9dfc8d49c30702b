"""The layout of SPAI's published weight file, read and written."""

from __future__ import annotations

import torch
from torch import Tensor

from ._errors import WeightsError
from ._spectral import frequency_mask

# Parts of the published ViT that no output depends on.
UNUSED = (
    *("head.", "cls_blocks.", "cls_pos_embed", "actual_cls_token"),
    *("intermediate_fc_norm.", "fc_norm."),
)
MASK = "mfvit.frequencies_mask"
PARTS = {
    "mfvit.vit.": "vit.",
    "mfvit.features_processor.patch_projector.projectors.": "restoration.projectors.",
    "mfvit.features_processor.original_features_processor.": "restoration.original.",
    "patch_aggregator": "aggregator.query",
    "to_kv.": "aggregator.to_kv.",
    "to_out.0.": "aggregator.to_out.",
    "norm.": "aggregator.norm.",
    "cls_head.head.": "aggregator.head.",
}


def rename(key: str) -> str:
    """A published key -> this class's; one that is not known stays as it is."""
    for theirs, ours in PARTS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def fold_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`q_bias` and `v_bias` of each attention -> one `qkv.bias`; keys have none. Of two that do not
    go together, or one alone, nothing is made: they stay, and are named as unexpected later."""
    folded = dict(state)
    for key in [k for k in state if k.endswith("q_bias")]:
        stem = key.removesuffix("q_bias")
        query, value = state[key], state.get(f"{stem}v_bias")
        if value is not None and query.ndim == 1 and query.shape == value.shape:
            folded[f"{stem}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
            del folded[key], folded[f"{stem}v_bias"]
    return folded


def check_mask(mask: Tensor) -> None:
    """Raises WeightsError unless these are the low frequencies that `split_frequencies` takes."""
    expected = frequency_mask()
    if mask.shape != expected.shape or not torch.equal(mask.float().cpu(), expected):
        raise WeightsError(
            f"{MASK}: expected (224, 224), 1 where the radius is below 16 and 0 elsewhere; found "
            f"another mask {tuple(mask.shape)}: these weights are of another SPAI"
        )


def split_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `fold_biases`: one `qkv.bias` of each attention -> `q_bias` and `v_bias`."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("qkv.bias"):
            stem = key.removesuffix("qkv.bias")
            query, _, last = value.chunk(3)
            split |= {f"{stem}q_bias": query.clone(), f"{stem}v_bias": last.clone()}
        else:
            split[key] = value
    return split


def published_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SPAI's own state dict with the published names, and the mask, a constant of the method."""
    found = {MASK: frequency_mask()}
    for key, value in split_biases(state).items():
        theirs, ours = next(pair for pair in PARTS.items() if key.startswith(pair[1]))
        found[theirs + key.removeprefix(ours)] = value
    return found

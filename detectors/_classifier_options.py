"""The options of a classifier on the whole picture.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import AfterValidator

from ._options import STRICT, Probability, Side, within


def _known(network: str) -> str:
    """A name of timm's, as it is. Raises ValueError with similar ones for any other."""
    import timm

    # A tag, as in convnext_small.fb_in1k, names weights; these come by --backbone_weights.
    if "." in network or not timm.is_model(network):
        near = ", ".join(timm.list_models(f"{network.split('.')[0][:8]}*")[:8])
        raise ValueError(
            "expected a network of timm without a tag, such as "
            f"{near or 'convnext_small, resnet50'}"
        )
    return network


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ClassifierOptions:
    """The network, the size of what it sees, and how training varies pictures."""

    network: Annotated[str, AfterValidator(_known)] = "convnext_small"
    """A name of timm's, without a tag."""
    size: Side = 224
    """Side in px of what it sees."""
    area: Annotated[tuple[float, float], within(1e-6, 1)] = (0.5, 1.0)
    """Range of the share of the picture that a training crop has."""
    jpeg_prob: Probability = 0.0
    """Of a JPEG encoding in training, the same for both classes."""
    jpeg: Annotated[tuple[int, int], within(1, 100)] = (60, 100)
    """Range of its quality."""

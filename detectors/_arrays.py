"""What scoring without PyTorch takes of a detector, as plain data and functions on arrays.

A detector NAME that can be scored so states it in `_NAME_arrays.py` as `ARRAYS`, from which its own
module has title, transform and frozen parts. The engine reads it through `detectors.arrays`. None
of these modules may import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

# Picture, generator -> item: an array or tensor, or a list of items where several detectors look
# at it.
Transform = Callable[[Image.Image, np.random.Generator], Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ArrayScoring:
    """A detector of one network in one file, whose recipe in configs/ has its name.

    `title`: the name that people read; `transform`: options -> transform of scoring, whose items
    are arrays of one shape; `external`: options -> frozen parts, as `Detector.external` has them;
    `frozen`: a published file of such a part -> its part of the detector's state dict, float32.
    """

    title: str
    transform: Callable[[Any], Transform]
    external: Callable[[Any], dict[str, str]]
    frozen: Callable[[Arrays], dict[str, np.ndarray]]

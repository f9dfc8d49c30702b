"""How large a degradation may make a picture: the sizes that Pillow decodes and encoders hold.

Raised as OSError, which is the error of one picture alone; `degradation_steps` and `posts` ask.
"""

from __future__ import annotations

from PIL import Image

MOST_PIXELS = 178_956_970  # the most that Pillow decodes


def check_size(width: int, height: int) -> None:
    """Raises OSError for a picture of more than MOST_PIXELS."""
    if width * height > MOST_PIXELS:
        raise OSError(
            f"expected at most 179 megapixels after enlarging; found {width} x {height} px"
        )


def check_side(image: Image.Image, coder: str, longest: int) -> None:
    """Raises OSError for a picture with a side of more px than `coder` can hold."""
    if max(image.size) > longest:
        raise OSError(
            f"{coder} holds at most {longest} px a side; found {image.width} x {image.height} px"
        )

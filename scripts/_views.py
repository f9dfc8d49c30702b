"""Views of augmented pictures: their names, their formats and their content.

Used by augment_csv.py, and by the processes that decode for it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from datasets import Label, Record

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from detectors._spai_options import SpaiOptions

LONGEST = 120  # bytes of a picture's path that its views' names repeat
CLASSES = {Label.REAL: "real", Label.FAKE: "fake"}
PNG, ORIGINAL = "png", "original"
# What views are written as by --format original, by the ending of the picture's name; JPEG and WebP
# as OpenCV does, which the published tool uses, of quality 95 and without loss.
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"), ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"), ".ppm": "PPM",
}  # fmt: skip
SAVING: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True},
    "PNG": {"compress_level": 1},  # four times as fast as the default, and a seventh larger
}
# Of a view, or of one that a killed run left half-written.
VIEW = re.compile(r"\.?(real|fake)_(.*_)?[0-9a-f]{16}_\d+\.png(?P<part>\.\d+\.part)?", re.DOTALL)


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def view_name(record: Record, view: int) -> str:
    """The file of a view: class, what any file system takes of the picture's path, a hash of that
    path, which tells it from all others, and the number of the view."""
    plain = re.sub(r"[^\w.@+-]+", "_", str(PurePosixPath(record.key).with_suffix("")))
    # The end of the path is what tells most.
    plain = plain.encode()[-LONGEST:].decode(errors="ignore").strip("._")
    name = hashlib.blake2b(record.key.encode(), digest_size=8).hexdigest()
    label = CLASSES[Label(record.label or 0)]
    return "_".join(filter(None, (label, plain, name, str(view)))) + ".png"


def file_name(record: Record, view: int, form: str) -> str:
    """The path of a view's file in DIR."""
    return record.key if form == ORIGINAL else view_name(record, view)


def encoded(image: Image.Image, name: str) -> bytes:
    """The content of a picture's file of that name."""
    form, buffer = FORMATS[_ending(name)], io.BytesIO()
    image.save(buffer, form, **SAVING.get(form, {}))
    return buffer.getvalue()


def png_view(image: Image.Image, rng: np.random.Generator, options: SpaiOptions) -> bytes:
    """The content of a view's PNG."""
    return encoded(view_of(image, rng, options), "view.png")


def view_of(image: Image.Image, rng: np.random.Generator, options: SpaiOptions) -> Image.Image:
    """A view of a picture."""
    from detectors.spai import ViewsTransform

    return ViewsTransform(options).view(image, rng)


def unwritable(name: str) -> str:
    """Why no view can have a picture's name, in a few words; '' where it can."""
    if (end := _ending(name)) in FORMATS:
        return ""
    return f"expected one of {', '.join(FORMATS)} to write; found {end!r}"


def formats_told(records: Iterable[Record]) -> str:
    """A line on the formats of each class, which --format original leaves as they are."""
    counts = {label: Counter[str]() for label in CLASSES}
    for record in records:
        counts[Label(record.label or 0)][FORMATS[_ending(record.key)]] += 1
    real, fake = (
        ", ".join(f"{number} {form}" for form, number in sorted(counts[label].items())) or "none"
        for label in CLASSES
    )
    return (
        f"formats are the pictures' own: real {real}; synthetic {fake}: where these differ, a "
        f"detector can tell the classes by them; --format {PNG} writes all alike"
    )

"""From a record to pixels: the one place that opens pictures, and the only torch Dataset."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

from . import _archives
from ._record import Record

Transform = Callable[[Image.Image, np.random.Generator], Any]
Degradation = Callable[[Image.Image, np.random.Generator], Image.Image]
Lookup = Callable[[str], "Known | None"]
SCORING_SEED = 0

# Pillow warns from 89 megapixels on and refuses from 179 on; only the refusal is wanted.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# A broken EXIF block or palette does not stop a picture from being decoded.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadablePicture(ValueError):
    """The file is no picture, or a broken one. The message is one short line."""


@cache
def _register_heic() -> None:
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. Transparency is dropped, as the published detectors do; 16-bit keeps its range."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # Pillow's own conversion clips at 255, which would turn 16-bit pictures white.
        values = values >> 8 if values.max(initial=0) > 255 else values
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadablePicture("floating-point pixels have no defined range: save it as 8 bit")
    return image.convert("RGB")


def read_bytes(record: Record) -> bytes:
    """The content of a picture's file, or of its member of an archive.

    Raises:
        UnreadablePicture: missing, a folder, empty, or damaged in its archive.
    """
    try:
        if record.member:
            content = _archives.read(record.path, record.member)
        elif not record.path.is_file():
            raise UnreadablePicture("is a folder" if record.path.is_dir() else "no such file")
        elif record.path.stat().st_size > _archives.MAX_BYTES:
            raise UnreadablePicture("too large: over 1 GiB")
        else:
            content = record.path.read_bytes()
    except OSError as error:
        text = " ".join(str(error.strerror or error).split()) or type(error).__name__
        raise UnreadablePicture(f"cannot be read: {text}"[:200]) from error
    if not content:
        raise UnreadablePicture("the file is empty")
    return content


def open_picture(path: Path) -> Image.Image:
    """`decode` of a file of its own. Raises UnreadablePicture."""
    return decode(read_bytes(Record(path.name, path)))


def decode(content: bytes) -> Image.Image:
    """Decodes the first frame of a picture as 8-bit RGB, turned upright by its EXIF orientation.

    Raises:
        UnreadablePicture: not a picture, truncated, or so large (over 179 megapixels) that
            decoding it could exhaust the memory.
    """
    _register_heic()
    try:
        with Image.open(io.BytesIO(content)) as image:
            picture = _to_rgb(ImageOps.exif_transpose(image))
        picture.info.clear()  # encoders of degradations fail on a long comment
        return picture
    except UnreadablePicture:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture in any known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadablePicture("too large: over 179 megapixels") from error
    # Pillow's decoders raise almost any type on broken files; each becomes the picture's own error.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UnreadablePicture(f"cannot be decoded: {text}"[:200]) from error


def digest(content: bytes) -> str:
    """What tells a picture's file from all others: BLAKE2b, 128 bits, as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Known(NamedTuple):
    """What an earlier run with the same weights and transform found out about a picture."""

    logit: float
    width: int
    height: int


@dataclass(frozen=True)
class Item:
    """One picture after the transform. `value` is None when there is an `error`, and when the
    logit is `known`. `digest` is that of the file where digests were asked for."""

    index: int
    value: Any = None
    error: str = ""
    width: int | None = None
    height: int | None = None
    digest: str = ""
    known: float | None = None


@dataclass(frozen=True)
class Draw:
    """A picture as an epoch of training takes it, for the `count`-th time in it (from 0)."""

    index: int
    epoch: int
    count: int = 0


class PictureDataset(Dataset):
    """Decodes, degrades and transforms records; a broken picture becomes an Item with its error.

    Randomness: scoring asks for an index, and all pictures are seeded alike, so that a score
    depends on nothing but the pixels; training asks for a Draw, whose seed is (seed, epoch,
    crc32(key), count). `lookup`, where given, is asked for each file's digest; what it knows is not
    decoded again.
    """

    def __init__(
        self,
        records: Sequence[Record],
        transform: Transform,
        degradation: Degradation | None = None,
        seed: int = SCORING_SEED,
        lookup: Lookup | None = None,
    ) -> None:
        self.records = records
        self.transform = transform
        self.degradation = degradation
        self.seed = seed
        self.lookup = lookup

    def __len__(self) -> int:
        return len(self.records)

    def _generator(self, place: int | Draw) -> np.random.Generator:
        if not isinstance(place, Draw):
            return np.random.default_rng(self.seed)
        key = self.records[place.index].key.encode("utf-8", "surrogateescape")
        return np.random.default_rng((self.seed, place.epoch, zlib.crc32(key), place.count))

    def __getitem__(self, place: int | Draw) -> Item:
        index = place.index if isinstance(place, Draw) else place
        name = ""
        try:
            content = read_bytes(self.records[index])
            if self.lookup is not None:
                name = digest(content)
                if known := self.lookup(name):
                    return Item(index, None, "", known.width, known.height, name, known.logit)
            image = decode(content)
        except UnreadablePicture as error:
            return Item(index, error=str(error), digest=name)
        width, height = image.size
        rng = self._generator(place)
        try:
            if self.degradation is not None:
                image = self.degradation(image, rng)
            value = self.transform(image, rng)
        # Encoders have limits of their own: a JPEG has at most 65,500 px a side.
        except (OSError, MemoryError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            text = f"cannot be processed: {text}"[:200]
            return Item(index, None, text, width, height, name)
        return Item(index, value, "", width, height, name)

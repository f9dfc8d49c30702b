"""From a record to pixels: the one place that opens pictures, and what makes items of them.

Scoring, training and thumbnails all decode here, most of them in the processes of
engine/runtime/workers.py. Nothing here imports torch, and nothing guesses at pixels that are not
there.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import AvifImagePlugin, ExifTags, Image, UnidentifiedImageError

from . import _archives, _notes
from ._limits import PUBLISHED, UPRIGHT, Limits
from ._pixels import pixels_only
from ._record import Record, is_special

Transform = Callable[[Image.Image, np.random.Generator], Any]
Degradation = Callable[[Image.Image, np.random.Generator], Image.Image]
Lookup = Callable[[str], "Known | None"]
Inspect = Callable[[bytes], Any]
SCORING_SEED = 0

# What Pillow may take a file for. Its other formats are left out because no camera and no generator
# writes them, and their decoders are the least tried; EPS would even run Ghostscript on the file.
# An MPO is opened as the JPEG that it begins with. TGA, told by its header alone, comes last.
FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM", "TGA",
)  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns from half of its limit on; only the refusal is wanted.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# A broken EXIF block or palette does not stop a picture from being decoded.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadablePicture(ValueError):
    """The file is no picture, or a broken one. The message is one short line."""


@cache
def register_formats() -> None:
    """Imports all decoders, once. Each decodes on one thread: several pictures are decoded at a
    time, and every thread would take address space, which is limited."""
    import pi_heif

    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    pi_heif.options.DECODE_THREADS = 1
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()


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
    """The content of a picture's file, of its member of an archive, of one in memory or elsewhere.

    Raises:
        UnreadablePicture: missing, a folder, empty, damaged in its archive, or never brought.
    """
    if record.error:
        raise UnreadablePicture(record.error)
    try:
        if record.content is not None:
            content = record.content
        elif record.fetch is not None:
            content = record.fetch()
        elif record.member:
            content = _archives.read(record.path, record.member)
        elif not record.path.is_file():
            special = "not a regular file" if is_special(record.path) else "no such file"
            raise UnreadablePicture("is a folder" if record.path.is_dir() else special)
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


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF or XMP orientation says; as it is where that is broken."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Pillow raises almost any type on broken metadata, which is no reason to leave pixels unscored.
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, decoding: str) -> Image.Image:
    return image.convert("RGB") if decoding == PUBLISHED else _to_rgb(_upright(image))


def _decoded(content: bytes, decoding: str) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        return _rgb(image, decoding)


def _broken(error: Exception) -> UnreadablePicture:
    text = " ".join(str(error).split()) or type(error).__name__
    return UnreadablePicture(f"cannot be decoded: {text}"[:200])


def as_file(image: Image.Image, decoding: str = UPRIGHT) -> bytes:
    """A file with the pixels that `decode` would give of the file of an opened picture; what was
    turned or changed in memory stays so. Raises UnreadablePicture when it cannot be loaded."""
    buffer = io.BytesIO()
    try:
        _rgb(image, decoding).save(buffer, "PPM")
    except UnreadablePicture:
        raise
    # The picture may be of any plugin, and its file not read yet.
    except Exception as error:
        raise _broken(error) from error
    return buffer.getvalue()


def decode(
    content: bytes,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    decoding: str = UPRIGHT,
) -> Image.Image:
    """The first frame of a picture as 8-bit RGB, in one of DECODINGS.

    Of `limits` this heeds the megapixels; `limits.held` is for a process that may end.

    Raises:
        UnreadablePicture: not a picture in one of FORMATS, truncated, or beyond the limits.
    """
    register_formats()
    # Pillow's own test refuses more than twice this, in headers inside of a file, too.
    usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max(1, int(limits.megapixels * 5e5))
    try:
        try:
            picture = _decoded(content, decoding)
        except (UnreadablePicture, Image.DecompressionBombError, MemoryError):
            raise
        except Exception:
            if (plain := pixels_only(content)) == content:
                raise
            picture = _decoded(plain, decoding)
        picture.info.clear()  # encoders of degradations fail on a long comment
        return picture
    except UnreadablePicture:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture("not a picture in any known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(
            f"too large: over {limits.megapixels:g} megapixels (--max_megapixels)"
        ) from error
    except MemoryError as error:
        raise UnreadablePicture(out_of_memory(limits)) from error
    # Pillow's decoders raise almost any type on broken files; each becomes the picture's own error.
    except Exception as error:
        raise _broken(error) from error
    finally:
        Image.MAX_IMAGE_PIXELS = usual  # for degradations, which have a limit of their own


def out_of_memory(limits: Limits) -> str:
    """What is wrong with a picture that took more memory than there was."""
    return f"takes too much memory: over {limits.memory:g} GiB (--picture_memory), or all there is"


def digest(content: bytes) -> str:
    """What tells a picture's file from all others: BLAKE2b, 128 bits, as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Known(NamedTuple):
    """What an earlier run with the same weights and transform found out about a picture."""

    logit: float
    width: int
    height: int


@dataclass(frozen=True)
class Sample:
    """One picture after the transform. `value` is None when there is an `error`, and when the
    logit is `known`. `digest` is that of the file where digests were asked for. `notes`, `views`
    and what was `inspected` are there where `Extras` asked for them; each view is an item of its
    own."""

    index: int
    value: Any = None
    error: str = ""
    width: int | None = None
    height: int | None = None
    digest: str = ""
    known: float | None = None
    notes: tuple[str, ...] = ()
    views: tuple[Sample, ...] = ()
    inspected: Any = None


@dataclass(frozen=True)
class Extras:
    """What is told of a picture besides, while its file is at hand: `views`, items of it after
    degradations, each seeded as if it were asked for alone; `notes`, as _notes has them; and what
    `inspect` makes of the file's bytes, whether or not they can be decoded."""

    views: tuple[Degradation, ...] = ()
    notes: bool = False
    inspect: Inspect | None = None


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Draw:
    """A picture as an epoch of training takes it, for the `count`-th time in it (from 0)."""

    index: int
    epoch: int
    count: int = 0


@dataclass(frozen=True)
class Streamed:
    """A picture of a stream: a record that comes with the question, for no list has it; `index`:
    its place in its batch."""

    index: int
    record: Record


Query = int | Draw | Streamed


class PictureDataset:
    """Decodes, degrades and transforms records; a broken picture becomes a Sample with its error.

    Randomness: scoring asks for an index, or a Streamed picture, and all pictures are seeded alike,
    so that a score depends on nothing but the pixels; training asks for a Draw, whose seed is
    (seed, epoch, crc32(key), count). `lookup`, where given, is asked for each file's digest; what
    it knows is not decoded again.
    """

    def __init__(
        self,
        records: Sequence[Record],
        transform: Transform,
        degradation: Degradation | None = None,
        seed: int = SCORING_SEED,
        lookup: Lookup | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        decoding: str = UPRIGHT,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self.records = records
        self.transform = transform
        self.degradation = degradation
        self.seed = seed
        self.lookup = lookup
        self.limits = limits
        self.decoding = decoding
        self.extras = extras

    def __len__(self) -> int:
        return len(self.records)

    def _generator(self, place: Query) -> np.random.Generator:
        if not isinstance(place, Draw):
            return np.random.default_rng(self.seed)
        key = self.records[place.index].key.encode("utf-8", "surrogateescape")
        return np.random.default_rng((self.seed, place.epoch, zlib.crc32(key), place.count))

    def __getitem__(self, place: Query) -> Sample:
        return self.sample(place, nullcontext())

    def sample(self, place: Query, guard: AbstractContextManager[None]) -> Sample:
        """The item of a record, all of it but what its file alone tells done inside of
        `guard`: reading has limits of its own, and who inspects has."""
        index, record = self._asked(place)
        name, inspected = "", None
        try:
            content = read_bytes(record)
            inspected = self._inspected(content)
            if self.lookup is not None:
                name = digest(content)
                if known := self.lookup(name):
                    return Sample(index, None, "", known.width, known.height, name, known.logit)
            with guard:
                item = self._processed(place, index, content, name)
            return replace(item, inspected=inspected)
        except UnreadablePicture as error:
            return Sample(index, error=str(error), digest=name, inspected=inspected)

    def lost(self, place: Query, error: str) -> Sample:
        """The item of a record whose process ended with that error; what is inspected of its file
        was lost with it, and is no decoder's matter."""
        index, record = self._asked(place)
        inspected = None
        if self.extras.inspect is not None:
            with suppress(UnreadablePicture):
                inspected = self._inspected(read_bytes(record))
        return Sample(index, error=error, inspected=inspected)

    def _asked(self, place: Query) -> tuple[int, Record]:
        index = place if isinstance(place, int) else place.index
        return index, place.record if isinstance(place, Streamed) else self.records[index]

    def _inspected(self, content: bytes) -> Any:
        inspect = self.extras.inspect
        return None if inspect is None else inspect(content)

    def _processed(self, place: Query, index: int, content: bytes, name: str) -> Sample:
        """The item of a file's content. Raises UnreadablePicture when it cannot be decoded."""
        image = decode(content, self.limits, self.decoding)
        item = self._sample(index, image, name, self.degradation, self._generator(place))
        if item.value is None:
            return item
        views = tuple(
            self._sample(index, image, name, view, self._generator(place))
            for view in self.extras.views
        )
        notes = _notes.notes(image) if self.extras.notes else ()
        return replace(item, notes=notes, views=views)

    def _sample(
        self,
        index: int,
        image: Image.Image,
        name: str,
        degradation: Degradation | None,
        rng: np.random.Generator,
    ) -> Sample:
        """The item of a decoded picture after a degradation."""
        width, height = image.size
        try:
            if degradation is not None:
                image = degradation(image, rng)
            value = self.transform(image, rng)
        except MemoryError:
            return Sample(index, None, out_of_memory(self.limits), width, height, name)
        # Encoders have limits of their own: a JPEG has at most 65,500 px a side.
        except (OSError, Image.DecompressionBombError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            text = f"cannot be processed: {text}"[:200]
            return Sample(index, None, text, width, height, name)
        return Sample(index, value, "", width, height, name)

"""The steps of degradations: pure functions of an 8-bit RGB picture, a value and a generator.

`Degradation` calls them by STEPS. None draws from anything but its generator, or depends on the
machine, for each score of a sweep rests on their pixels. A picture that a step would make too
large, or that an encoder cannot hold, raises OSError with a one-line text: its error alone.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from detectors import _augment as A
from detectors import _transforms as T

from . import posts
from .degradations import FILTERS, PLATFORMS, RANDOM
from .memes import meme
from .picture_size import check_side, check_size
from .superres import superres

# (picture, the step's value, generator) -> picture
Step = Callable[[Image.Image, Any, np.random.Generator], Image.Image]

LONGEST_JPEG, LONGEST_WEBP, LONGEST_AVIF = 65_500, 16_383, 32_768  # px a side
FEWEST = 64  # px of the shorter side that reposts leave
REPOST_SCALE, REPOST_QUALITY = (0.6, 1.0), (60, 95)
DISPLAY_SCALE, SHARED_QUALITY = (0.5, 1.0), (70, 95)
TILT = 2  # degrees, of print-scan
BAND = 2**22  # px that the float steps take at a time
TRUNCATE = 4  # deviations after which scipy cuts a Gaussian off


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """A picture after JPEG of `quality` 1-100, 4:2:0."""
    check_side(image, "JPEG", LONGEST_JPEG)
    return T.jpeg(image, quality)


def webp(image: Image.Image, quality: int) -> Image.Image:
    """A picture after lossy WebP of `quality` 0-100."""
    check_side(image, "WebP", LONGEST_WEBP)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return Image.open(buffer).convert("RGB")


def avif(image: Image.Image, quality: int) -> Image.Image:
    """A picture after AVIF of `quality` 0-100, 4:2:0."""
    check_side(image, "AVIF", LONGEST_AVIF)
    buffer = io.BytesIO()
    # The encoder cuts the picture into as many tiles as it has threads: it must not depend on
    # the machine.
    image.save(buffer, "AVIF", quality=quality, max_threads=1)
    return Image.open(buffer).convert("RGB")


def _in_bands(
    image: Image.Image, step: Callable[[Image.Image], Image.Image], margin: int = 0
) -> Image.Image:
    """A picture after `step`, which takes it from top to bottom in bands of rows: a large one as
    floats would fill the memory. Each band sees `margin` rows around it, so that no seam shows."""
    rows = max(1, BAND // image.width)
    if rows >= image.height:
        return step(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        first, last = max(0, top - margin), min(image.height, bottom + margin)
        band = step(image.crop((0, first, image.width, last)))
        result.paste(band.crop((0, top - first, image.width, bottom - first)), (0, top))
    return result


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """A picture after Gaussian blur of deviation `sigma` px, mirrored at the borders."""
    margin = math.ceil(TRUNCATE * sigma) + 1
    return _in_bands(image, lambda band: A.blur(band, sigma), margin)


def noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """A picture with Gaussian noise on each value.

    Args:
        image: 8-bit RGB.
        deviation: in grey levels of 0-255.
        rng: that the noise is drawn from, from top to bottom.
    """
    return _in_bands(image, lambda band: A.noise(band, deviation**2, rng))


def resize(image: Image.Image, factor: float) -> Image.Image:
    """A picture with both sides times `factor`, rounded, at least 1 px; bicubic, antialiased."""
    width, height = (max(1, round(side * factor)) for side in image.size)
    check_size(width, height)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def longest(image: Image.Image, side: int) -> Image.Image:
    """A picture reduced until its longer side has `side` px; bicubic, antialiased. A smaller one
    as it is."""
    if max(image.size) <= side:
        return image
    return resize(image, side / max(image.size))


def crop_side(image: Image.Image, side: int) -> Image.Image:
    """The central `side` x `side` px of a picture; a smaller one is enlarged first."""
    shorter, longer = sorted(image.size)
    if shorter < side:
        longer = min(longer, T.LONGEST * shorter)  # resize_shorter takes no more of a strip
        check_size(side, side * longer // shorter)
        image = T.resize_shorter(image, side)
    return T.centre_crop(image, side)


def crop_share(image: Image.Image, share: float) -> Image.Image:
    """The middle of a picture: `share` (0-1) of width and height, rounded, at least 1 px."""
    width, height = (max(1, round(side * share)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def crop(image: Image.Image, value: int | float) -> Image.Image:
    """`crop_side` of an int, `crop_share` of a float."""
    return crop_side(image, value) if isinstance(value, int) else crop_share(image, value)


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """A picture turned counter-clockwise about its centre, bilinear, size kept, corners filled by
    mirroring."""
    from scipy.ndimage import affine_transform

    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    matrix = np.array([[cosine, sine], [-sine, cosine]])  # (y, x) of the result -> of the source
    centre = (np.array([image.height, image.width]) - 1) / 2
    offset = centre - matrix @ centre
    turned = [  # scipy rounds to the nearest where the result is unsigned
        affine_transform(
            np.asarray(channel), matrix, offset, output=np.uint8, order=1, mode="reflect"
        )
        for channel in image.split()
    ]
    return Image.merge("RGB", [Image.fromarray(channel) for channel in turned])


def flip(image: Image.Image) -> Image.Image:
    """A picture mirrored left to right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def gamma(image: Image.Image, value: float) -> Image.Image:
    """A picture whose values x are 255 * (x / 255) ** `value`: above 1 darkens."""
    curve = [round(255 * (x / 255) ** value) for x in range(256)]
    return image.point(curve * 3)


def social(image: Image.Image, name: str) -> Image.Image:
    """A picture as the platform `name` shares it: reduced to its limit, then JPEG of its
    quality."""
    side, quality = PLATFORMS[name]
    return jpeg(longest(image, side), quality)


def instagram(image: Image.Image, name: str, rng: np.random.Generator) -> Image.Image:
    """A picture under one of Instagram's filters, or a random one; pilgram2's, as in the study."""
    import pilgram2

    if name == RANDOM:
        name = str(rng.choice(FILTERS))
    # One filter's module has a name that no user would write: 1977 begins with a digit.
    filtered: Image.Image = getattr(pilgram2, f"_{name}" if name == "1977" else name)(image)
    return filtered


def enlarge(image: Image.Image, factor: int) -> Image.Image:
    """A picture reduced by a whole factor and enlarged to its size again, bicubic, then sharpened:
    what stands in for a super-resolution network where there are no weights of one."""
    small = [max(1, side // factor) for side in image.size]
    image = image.resize((small[0], small[1]), Image.Resampling.BILINEAR)
    width, height = (side * factor for side in small)
    check_size(width, height)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.filter(ImageFilter.UnsharpMask(radius=factor, percent=100, threshold=0))


def repost(image: Image.Image, times: int, rng: np.random.Generator) -> Image.Image:
    """A picture passed on so many times: each time reduced a little or not at all, and saved as
    JPEG, or one time in four as WebP, of a random quality."""
    for _ in range(times):
        # Half of all reposts keep the size: it is below the limit of the next platform.
        if rng.random() < 0.5 and min(image.size) > FEWEST:
            image = resize(image, max(rng.uniform(*REPOST_SCALE), FEWEST / min(image.size)))
        quality = int(rng.integers(REPOST_QUALITY[0], REPOST_QUALITY[1] + 1))
        image = webp(image, quality) if rng.random() < 0.25 else jpeg(image, quality)
    return image


def screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture as a screen shows it, reduced to a random scale, saved without loss, which changes
    nothing, and then shared as JPEG."""
    image = resize(image, rng.uniform(*DISPLAY_SCALE))
    return jpeg(image, int(rng.integers(SHARED_QUALITY[0], SHARED_QUALITY[1] + 1)))


def _tilted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture on paper that lies at up to TILT degrees to the scanner's glass, seen a little from
    aside, bilinear; what is beyond the paper is white."""
    width, height = image.size
    turned = math.radians(rng.uniform(-TILT, TILT))
    corners = np.array([[0, 0], [0, height], [width, height], [width, 0]], dtype=np.float64)
    middle = np.array([width, height]) / 2
    rotation = np.array(
        [[math.cos(turned), -math.sin(turned)], [math.sin(turned), math.cos(turned)]]
    )
    # A lift of one edge by the tilt moves its corners by at most this share of the sides.
    lift = math.sin(math.radians(TILT)) / 2
    moved = (corners - middle) @ rotation.T + middle
    moved += rng.uniform(-lift, lift, (4, 2)) * min(width, height)
    quad = tuple(moved.ravel().tolist())
    return image.transform(
        image.size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR, fillcolor="white"
    )


def print_scan(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture printed and scanned: a slight blur, grain, a tilt and perspective under 2 degrees,
    paper and lamp of a colour of their own."""
    image = blur(_tilted(image, rng), rng.uniform(0.4, 1.0))
    image = noise(image, rng.uniform(2, 6), rng)
    # Ink is no black and paper no white; each channel has its own ends.
    ends = [(rng.uniform(0, 20), rng.uniform(235, 255)) for _ in range(3)]
    table = [round(low + (high - low) * x / 255) for low, high in ends for x in range(256)]
    return image.point(table)


def _fixed(step: Callable[..., Image.Image]) -> Step:
    """A step that draws nothing."""
    return lambda image, value, _: step(image, value)


def _varied(step: Step) -> Step:
    """A step whose choices differ from picture to picture. Scoring seeds all pictures alike, so
    that a score depends on nothing but pixels: these decide what the generator gives."""

    def own(image: Image.Image, value: Any, rng: np.random.Generator) -> Image.Image:
        pixels = zlib.crc32(image.tobytes())
        return step(image, value, np.random.default_rng((int(rng.integers(2**32)), pixels)))

    return own


def _enhanced(enhancer: Callable[[Image.Image], Any]) -> Step:
    """A step by one of Pillow's enhancers."""
    return lambda image, factor, _: enhancer(image).enhance(factor)


STEPS: dict[str, Step] = {
    "jpeg": _fixed(jpeg),
    "webp": _fixed(webp),
    "avif": _fixed(avif),
    "blur": _fixed(blur),
    "noise": noise,
    "resize": _fixed(resize),
    "longest": _fixed(longest),
    "crop": _fixed(crop),
    "rotate": _fixed(rotate),
    "flip": lambda image, *_: flip(image),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "saturation": _enhanced(ImageEnhance.Color),
    "sharpen": _enhanced(ImageEnhance.Sharpness),
    "gamma": _fixed(gamma),
    "social": _fixed(social),
    "enlarge": _fixed(enlarge),
    "superres": _fixed(superres),
    "instagram": _varied(instagram),
    "repost": _varied(repost),
    "screenshot": _varied(lambda image, _, rng: screenshot(image, rng)),
    "print-scan": _varied(lambda image, _, rng: print_scan(image, rng)),
    "meme": _varied(lambda image, _, rng: meme(image, rng)),
    "post": _varied(lambda image, _, rng: posts.post(image, rng)),
}

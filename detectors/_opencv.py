"""8-bit picture steps with the arithmetic of OpenCV, which SPAI's pixels went through.

OpenCV computes 8-bit pictures in fixed point, shrinks without antialiasing and interpolates
rotations at steps of 1/32 px; a detector of spectra sees the difference. Pixels are (H, W, 3)
uint8 arrays. Large pictures are computed in bands of rows: whole, their integers would fill the
memory. Called by SPAI's transforms; nothing here draws random numbers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

BAND = 2**20  # px of a result that are computed at a time
MOST_PIXELS = 178_956_970  # the most that Pillow decodes
COEFFICIENT = 2**11  # what the two weights of a bilinear axis sum to
STEPS = 32  # positions within a pixel that a rotation tells apart
# Kernel size -> outer half of the kernel in 1/256, where the deviation follows from the size.
BINOMIAL = {3: [64], 5: [16, 64], 7: [8, 28, 56], 9: [4, 13, 30, 51]}


def reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Indices within 0 to `length` - 1 of those that may lie outside: mirrored at the ends, whose
    pixels are not repeated, as often as it takes (OpenCV's BORDER_REFLECT_101)."""
    period = max(1, 2 * (length - 1))
    index = index % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def _bands(height: int, width: int) -> Iterator[slice]:
    """Consecutive ranges of rows, of about `BAND` px each."""
    rows = max(1, BAND // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _in_bands(height: int, width: int, rows: Callable[[slice], np.ndarray]) -> np.ndarray:
    """(height, width, 3) uint8 whose ranges of rows `rows` computes."""
    done = np.empty((height, width, 3), np.uint8)
    for band in _bands(height, width):
        done[band] = rows(band)
    return done


# --- resizing


def _taps(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours of each of `wanted` positions along a side, and the weight of the second
    in 1/2048. Beyond the middle of the first and last pixel the picture is constant."""
    position = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    first = np.floor(position).astype(np.intp)
    share = np.where((first < 0) | (first >= length - 1), 0.0, position - first)
    first = first.clip(0, length - 1)
    weight = np.rint(share * COEFFICIENT).astype(np.int32)
    return first, np.minimum(first + 1, length - 1), weight


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear without antialiasing: INTER_LINEAR. Of a picture that shrinks to less than half most
    pixels take no part.

    Raises:
        OSError: the result would have more than 179 megapixels.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if width * height > MOST_PIXELS:
        raise OSError(
            f"expected at most 179 megapixels after enlarging; found {width} x {height} px"
        )
    left, right, across = _taps(pixels.shape[1], width)
    upper, lower, down = _taps(pixels.shape[0], height)

    def rows(band: slice) -> np.ndarray:
        needed = pixels[np.concatenate([upper[band], lower[band]])]
        # In place: this is most of what a training picture costs.
        mixed = needed.take(right, axis=1).astype(np.int32)
        first = needed.take(left, axis=1).astype(np.int32)
        mixed -= first
        mixed *= across[:, None]
        first *= COEFFICIENT
        mixed += first
        # OpenCV cuts off bits here and below; rounding would make the mean an eighth brighter.
        mixed >>= 4
        above, below = np.split(mixed, 2)
        above *= (COEFFICIENT - down[band])[:, None, None]
        below *= down[band][:, None, None]
        above >>= 16
        below >>= 16
        return (above + below + 2) >> 2

    return _in_bands(height, width, rows)


def crop_resize(pixels: np.ndarray, box: tuple[int, int, int, int], side: int) -> np.ndarray:
    """The box (left, top, right, bottom), resized to `side` x `side`."""
    left, top, right, bottom = box
    return resize(pixels[top:bottom, left:right], side, side)


def shorter_side(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height with the shorter side at `side` px, the aspect kept: SmallestMaxSize."""
    scale = side / min(width, height)
    return round(width * scale), round(height * scale)


def scaled(width: int, height: int, factor: float) -> tuple[int, int]:
    """Width and height times `factor`, rounded down, at least 1 px: RandomScale."""
    return max(1, int(width * factor)), max(1, int(height * factor))


# --- rotation


def inner_box(width: int, height: int, degrees: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the largest upright rectangle of a `width` x `height` picture
    that was rotated about its centre, within the frame that it had before: without corners that
    nothing was turned into."""
    sine, cosine = (abs(f(math.radians(degrees))) for f in (math.sin, math.cos))
    long, short = max(width, height), min(width, height)
    if short <= 2 * sine * cosine * long or abs(sine - cosine) < 1e-10:
        # Two of its corners touch the long sides; the other two lie on the middle line.
        sides = (short / 2 / sine, short / 2 / cosine)
        w, h = sides if width >= height else sides[::-1]
    else:
        spread = cosine**2 - sine**2
        w = (width * cosine - height * sine) / spread
        h = (height * cosine - width * sine) / spread
    left, right = max(0, int(width / 2 - w / 2)), min(width, int(width / 2 + w / 2))
    top, bottom = max(0, int(height / 2 - h / 2)), min(height, int(height / 2 + h / 2))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def rotate(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise about the centre, bilinear, cut to `inner_box`."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = inner_box(width, height, degrees)
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    centre_x, centre_y = width / 2 - 0.5, height / 2 - 0.5
    across, down = np.arange(left, right), np.arange(top, bottom)
    # Source positions in 1/1024 px, by column and by row, then in 1/32.
    fine, half = 1024, 1024 // STEPS // 2
    start_x = (centre_x - cosine * centre_x + sine * centre_y) - sine * down
    start_y = (centre_y - sine * centre_x - cosine * centre_y) + cosine * down
    x = np.rint(start_x * fine)[:, None] + np.rint(cosine * across * fine) + half
    y = np.rint(start_y * fine)[:, None] + np.rint(sine * across * fine) + half
    steps = np.stack([np.floor(x / (fine // STEPS)), np.floor(y / (fine // STEPS))], axis=-1)
    # torch counts from -1 at the middle of the first pixel to 1 at that of the last.
    span = STEPS * np.maximum(1, np.array([width - 1, height - 1])) / 2
    grid = torch.from_numpy((steps / span - 1).astype(np.float32))[None]
    source = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None]
    mixed = F.grid_sample(source, grid, "bilinear", "reflection", align_corners=True)
    return mixed[0].permute(1, 2, 0).add(0.5).byte().numpy()


# --- filters


def _kernel(size: int, sigma: float | None) -> list[int]:
    """The taps of a Gaussian in 1/256, which sum to 256; what is rounded off a tap is carried to
    the next one inwards."""
    half = BINOMIAL.get(size) if sigma is None else None
    if half is None:
        deviation = 0.3 * ((size - 1) * 0.5 - 1) + 0.8 if sigma is None else sigma
        distance = np.arange(size // 2 + 1) - size // 2
        exact = np.exp(-0.5 * (distance / deviation) ** 2)
        exact *= 256 / (2 * exact.sum() - 1)
        half, carried = [], 0.0
        for value in exact[:-1].tolist():
            half.append(round(value + carried))
            carried += value - half[-1]
    return [*half, 256 - 2 * sum(half), *half[::-1]]


def blur(pixels: np.ndarray, size: int, sigma: float | None) -> np.ndarray:
    """Gaussian blur by a kernel of `size` (odd) px; `sigma` in px, or as the size has it."""
    kernel = _kernel(size, sigma)
    while len(kernel) > 1 and kernel[0] == 0:
        kernel = kernel[1:-1]
    height, width = pixels.shape[:2]
    reach = len(kernel) // 2
    column = reflected(np.arange(-reach, width + reach), width)
    row = reflected(np.arange(-reach, height + reach), height)

    def rows(band: slice) -> np.ndarray:
        around = pixels[row[band.start : band.stop + 2 * reach]]
        wide = around.take(column, axis=1).astype(np.uint16)
        # 255 * 256 fits 16 bits.
        lines = sum(wide[:, i : i + width] * np.uint16(k) for i, k in enumerate(kernel))
        tall = np.asarray(lines).astype(np.uint32)
        count = band.stop - band.start
        total = sum(tall[i : i + count] * np.uint32(k) for i, k in enumerate(kernel))
        return (np.asarray(total) + 2**15) >> 16

    return _in_bands(height, width, rows)


def sharpen(pixels: np.ndarray, alpha: float, lightness: float) -> np.ndarray:
    """(1 - `alpha`) of the picture and `alpha` of its 3 x 3 Laplacian, whose centre weighs 8 +
    `lightness`."""
    from scipy.ndimage import correlate

    kernel = np.full((3, 3, 1), -alpha)
    kernel[1, 1] = 1 - alpha + alpha * (8 + lightness)
    found = correlate(pixels.astype(np.float32), kernel, mode="mirror")
    return np.rint(found).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, coder: str, quality: int) -> np.ndarray:
    """Encoded as JPEG (4:2:0) or WEBP and decoded.

    Red and blue change places on the way, as in the published transform, which hands RGB to
    OpenCV's encoder, to which it is BGR: chroma is quantised otherwise.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).save(buffer, coder, quality=quality)
    return np.ascontiguousarray(np.asarray(Image.open(buffer).convert("RGB"))[..., ::-1])

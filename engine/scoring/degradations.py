"""The spelling of degradations: what --degrade takes, and what the rows, reports and plots call it.

A degradation changes a picture before the detector's own transform. It is written `name:value`,
numbers in plain decimal digits, several after each other joined by `+`: `crop:256+jpeg:90`. A sweep
is a list of words in which a step may take several values: `jpeg:95,75 crop:256+blur:1,2`. Must not
import what the pixels take: --help lists the steps.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from ..config import ConfigError
from . import superres

if TYPE_CHECKING:  # the help text and the plots need the names alone
    import numpy as np
    from PIL import Image

NONE, FLAG = "none", "--degrade"
MOST = 1000  # degradations in a sweep: a chain of long lists would multiply without end
DECIMAL = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
SHOWN = 60  # characters of a wrong part that an error repeats
# Longer side in px and JPEG quality of the first five: what toolkits for social networks' pictures
# take. WeChat's side is what users of its app measured; it saves by Apple's factor 0.5, of which no
# quality of libjpeg is known: 70 is our reading.
PLATFORMS = {
    "instagram": (1080, 70),
    "x": (4096, 85),
    "whatsapp": (1600, 50),
    "facebook": (2048, 75),
    "telegram": (2560, 80),
    "wechat": (1280, 70),
}
# Earlier names, still read; rows and reports have the others.
RENAMED_STEPS, RENAMED_PLATFORMS = {"platform": "social"}, {"twitter": "x"}
RANDOM = "random"
FILTERS = (
    "1977", "aden", "amaro", "ashby", "brannan", "brooklyn", "charmes", "clarendon", "crema",
    "dogpatch", "earlybird", "gingham", "ginza", "hefe", "helena", "hudson", "inkwell", "juno",
    "kelvin", "lark", "lofi", "ludwig", "maven", "mayfair", "moon", "nashville", "perpetua",
    "poprocket", "reyes", "rise", "sierra", "skyline", "slumber", "stinson", "sutro", "toaster",
    "valencia", "walden", "willow", "xpro2",
)  # fmt: skip

# Of a step; None where it takes none. A network is what the weights of `superres` are of.
Value = int | float | str | superres.Network | None


@dataclass(frozen=True)
class Step:
    """The spelling of a step: what may stand after its name, and what it does.

    `values` shows the range, `read` turns one value's text into the value (ValueError outside the
    range), `neutral` is the value that leaves a picture as it is (None where there is none),
    `coder` Pillow's name of the encoder that the step needs, and `package` one of the extra
    `derive`.
    """

    values: str
    text: str
    read: Callable[[str], Value]
    neutral: float | None = None
    coder: str | None = None
    package: str | None = None

    def spelling(self, name: str) -> str:
        """`name` with its values, such as `jpeg:1-100`."""
        return f"{name}:{self.values}" if self.values else name


def _within(low: float, high: float, number: float) -> float:
    """A number that is in a range. Raises ValueError outside."""
    if not low <= number <= high:  # which refuses nan too
        raise ValueError(number)
    return number


def _decimal(text: str) -> float:
    """The number that plain decimal digits spell. Raises ValueError for all other spellings that
    Python takes: 9_5, +95, 1e1, digits of other scripts; each value has one name in the rows."""
    if not DECIMAL.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers in a range."""

    def read(text: str) -> int:
        if "." in text:
            raise ValueError(text)
        return int(_within(low, high, _decimal(text)))

    return read


def _real(low: float, high: float) -> Callable[[str], float]:
    """A reader of numbers in a range; those without a fraction become ints, so that 1 and 1.0 are
    the same value."""

    def read(text: str) -> float:
        number = _within(low, high, _decimal(text))
        return int(number) if number == int(number) else number

    return read


def _crop(text: str) -> float:
    """The value of a crop: with a decimal point a share of each side (a float), without one a side
    in px (an int)."""
    if "." in text:
        return _within(0.01, 1, _decimal(text))
    return _whole(2, 8192)(text)


def _platform(text: str) -> str:
    """The name of a platform. Raises ValueError for others."""
    name = RENAMED_PLATFORMS.get(text, text)
    if name not in PLATFORMS:
        raise ValueError(text)
    return name


def _filter(text: str) -> str:
    """The name of a filter. Raises ValueError for others."""
    if text != RANDOM and text not in FILTERS:
        raise ValueError(text)
    return text


def _factor(text: str) -> int:
    """2 or 4. Raises ValueError for others."""
    if text not in ("2", "4"):
        raise ValueError(text)
    return int(text)


def _network(text: str) -> str:
    """2 or 4, with the digest of the network where a result names it: 2@0123abcd. Raises ValueError
    for others."""
    if not re.fullmatch(r"[24](@[0-9a-f]{8})?", text):
        raise ValueError(text)
    return text


def _nothing(text: str) -> None:
    """The value of a step without one. Raises ValueError where one is written."""
    if text:
        raise ValueError(text)


STEPS: dict[str, Step] = {
    "jpeg": Step("1-100", "JPEG of this quality, 4:2:0", _whole(1, 100)),
    "webp": Step("0-100", "lossy WebP of this quality", _whole(0, 100), coder="WEBP"),
    "avif": Step("0-100", "AVIF of this quality, 4:2:0", _whole(0, 100), coder="AVIF"),
    "blur": Step("0-50", "Gaussian blur, deviation in px", _real(0, 50), 0),
    "noise": Step("0-255", "Gaussian noise, deviation in grey levels", _real(0, 255), 0),
    "resize": Step("0.01-16", "both sides times this, bicubic", _real(0.01, 16), 1),
    "longest": Step(
        "16-16384", "reduced until the longer side has this many px, bicubic", _whole(16, 16384)
    ),
    "crop": Step(
        "2-8192|0.01-1.0",
        "the central square of this side in px (a smaller picture is enlarged), or, with a "
        "decimal point, this share of each side",
        _crop,
        1,
    ),
    "rotate": Step(
        "-180-180", "degrees counter-clockwise, corners filled by mirroring", _real(-180, 180), 0
    ),
    "flip": Step("", "mirrored left to right", _nothing),
    "brightness": Step("0-10", "all values times this", _real(0, 10), 1),
    "contrast": Step("0-10", "distance from the mean grey times this", _real(0, 10), 1),
    "saturation": Step("0-10", "distance from the grey picture times this", _real(0, 10), 1),
    "sharpen": Step("0-10", "distance from the smoothed picture times this", _real(0, 10), 1),
    "gamma": Step("0.1-10", "values in 0-1 to this power: above 1 darkens", _real(0.1, 10), 1),
    "social": Step(
        "|".join(PLATFORMS),
        "reduced and saved as JPEG as the platform does: "
        + ", ".join(f"{name} {side} px {quality}" for name, (side, quality) in PLATFORMS.items()),
        _platform,
    ),
    "instagram": Step(
        f"{RANDOM}|NAME",
        f"one of Instagram's filters, or a random one: {', '.join(FILTERS)}",
        _filter,
        package="pilgram2",
    ),
    "enlarge": Step("2|4", "reduced by this, enlarged again and sharpened", _factor),
    "superres": Step(
        "2|4",
        "reduced by this, enlarged again by a network: in scripts/derive.py and scripts/study.py",
        _network,
        package="spandrel",
    ),
    "repost": Step(
        "1-20",
        "saved so many times as JPEG or WebP of random quality, at times reduced",
        _whole(1, 20),
    ),
    "screenshot": Step("", "reduced to 0.5-1 of its sides, then JPEG 70-95", _nothing),
    "print-scan": Step("", "blurred, grained, tilted under 2 degrees, off-colour", _nothing),
    "meme": Step("", "with scrambled capitals and emoji on it", _nothing),
    "post": Step("", "inside the screenshot of a phone's post, 377 px wide", _nothing),
}


def describe() -> list[tuple[str, str]]:
    """Spelling and effect of each step, such as ("jpeg:1-100", "JPEG of this quality …")."""
    return [(step.spelling(name), step.text) for name, step in STEPS.items()]


@dataclass(frozen=True)
class Degradation:
    """A chain of steps; `name` is its canonical spelling."""

    name: str
    steps: tuple[tuple[str, Value], ...]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The degraded 8-bit RGB picture; `image` stays as it is.

        Raises OSError where a step would make it larger than 179 megapixels, or an encoder does
        not hold it.
        """
        from . import degradation_steps

        image = image.copy()
        image.info = {}  # an encoder would take a comment or profile along, and may refuse it
        for step, value in self.steps:
            image = degradation_steps.STEPS[step](image, value, rng)
        return image


class _Unusable(ValueError):
    """A text that spells no degradation, or one that this machine lacks something for."""


@contextmanager
def _of_flag(flag: str) -> Iterator[None]:
    """What is wrong with words becomes a ConfigError that names where they stood."""
    try:
        yield
    except _Unusable as error:
        raise ConfigError(f"{flag}: {error}") from error


def _expected(expected: str, text: str) -> _Unusable:
    """The error about a text that spells no degradation."""
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return _Unusable(f"expected {expected}; found {shown!r}")


def _split(part: str) -> tuple[str, str]:
    """The step's name in a part of a chain, and the text behind the colon."""
    name, colon, values = part.partition(":")
    name = RENAMED_STEPS.get(name, name)
    if name not in STEPS or (colon and not STEPS[name].values):
        raise _expected(f"{NONE} or a chain of {', '.join(s for s, _ in describe())}", part)
    return name, values


def _spelt(value: Value) -> str:
    """The text of a value as `read` takes it: Python would write 0.00001 as 1e-05."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


def _read(text: str) -> Degradation:
    """The chain that a text spells, whether or not this machine can run it."""
    steps: list[tuple[str, Value]] = []
    for part in text.split("+"):
        name, value = _split(part)
        try:
            steps.append((name, STEPS[name].read(value)))
        except ValueError as error:
            raise _expected(STEPS[name].spelling(name), part) from error
    name = "+".join(step if value is None else f"{step}:{_spelt(value)}" for step, value in steps)
    return Degradation(name, tuple(steps))


def _check_runs(chain: Degradation) -> None:
    """Raises _Unusable where an encoder of Pillow, or a package, that the chain needs is missing
    here."""
    from PIL import Image

    Image.init()
    for name, _ in chain.steps:
        coder, package = STEPS[name].coder, STEPS[name].package
        if package is not None and importlib.util.find_spec(package) is None:
            raise _Unusable(
                f"{name} expects the package {package}; found none (pip install '.[derive]')"
            )
        if coder is not None and coder not in Image.SAVE:
            raise _Unusable(
                f"{name} expects a Pillow with {coder}; found one without (install "
                "Pillow 11.3 or later)"
            )


def _with_network(chain: Degradation) -> Degradation:
    """The chain with the network that stands for `superres`, and its digest in the name: figures of
    two networks do not compare. Raises _Unusable where there is none, or another."""
    if all(step != "superres" for step, _ in chain.steps):
        return chain
    network = superres.current()
    if network is None:
        raise _Unusable(
            f"superres expects weights by --set {superres.OPTION}=FILE, in scripts/derive.py or "
            "scripts/study.py; found none: enlarge:2 stands in for it"
        )
    own = f"{network.scale}@{network.digest}"
    for step, value in chain.steps:
        if step == "superres" and value not in (own, str(network.scale)):
            raise _Unusable(f"expected superres:{own} of {network.path}; found superres:{value}")
    steps = tuple((s, network if s == "superres" else value) for s, value in chain.steps)
    names = [f"superres:{own}" if n.startswith("superres:") else n for n in chain.name.split("+")]
    return Degradation("+".join(names), steps)


def parse(text: str, flag: str = FLAG) -> Degradation | None:
    """The chain that `text` spells; None for `none`.

    Raises ConfigError, which names the `flag` or option that the text is of, listing the steps, or
    where an encoder or package is missing.
    """
    if text == NONE:
        return None
    with _of_flag(flag):
        chain = _read(text)
        _check_runs(chain)
        return _with_network(chain)


@dataclass(frozen=True)
class Choice:
    """One of several degradations for each picture, all as likely; None leaves it as it is."""

    chains: tuple[Degradation | None, ...]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after one of them. Raises OSError as `Degradation` does."""
        chain = self.chains[rng.integers(len(self.chains))]
        return chain(image, rng) if chain else image


def choice(words: str, flag: str) -> Choice | None:
    """A choice among the degradations that words spell, as --degrade takes them: `none meme
    jpeg:60,80`. None for `none` alone. Raises ConfigError as `parse` does, of `flag`."""
    with _of_flag(flag):
        names = [n for w in words.split() for n in ([NONE] if w == NONE else _expand(w))] or [NONE]
    return None if names == [NONE] else Choice(tuple(parse(name, flag) for name in names))


def _expand(word: str) -> list[str]:
    """Chains that a word with lists of values stands for, the first step's changing last. Raises
    _Unusable beyond MOST."""
    parts = []
    for part in word.split("+"):
        name, values = _split(part)
        parts.append([f"{name}:{v}" for v in values.split(",")] if STEPS[name].values else [name])
    if math.prod(map(len, parts)) > MOST:
        raise _expected(f"at most {MOST} degradations", word)
    return ["+".join(chain) for chain in itertools.product(*parts)]


def parse_sweep(words: Sequence[str]) -> list[str]:
    """Canonical names of the degradations that `words` stand for, in order, without repetitions.

    Where there are several, `none` is put first: curves need their origin. No words stand for
    `none`. Raises ConfigError as `parse` does, and beyond `MOST` degradations.
    """
    names: dict[str, None] = {}
    for word in words:
        with _of_flag(FLAG):
            texts = [NONE] if word == NONE else _expand(word)
        for text in texts:
            chain = parse(text)
            names[chain.name if chain else NONE] = None
        if len(names) > MOST:
            with _of_flag(FLAG):
                raise _expected(f"at most {MOST} degradations", " ".join(words))
    if len(names) == 1:
        return list(names)
    return [NONE, *(name for name in names if name != NONE)]


def then(base: str, name: str) -> str:
    """The degradation `base` followed by `name`: ("jpeg:95", "blur:2") -> "jpeg:95+blur:2"."""
    return "+".join(part for part in (base, name) if part != NONE) or NONE


def axis(name: str, base: str = NONE) -> tuple[str, float] | None:
    """The step and value of a degradation that is `base` and one step more: a point on the axis of
    a robustness curve.

    ("jpeg:95+blur:2", "jpeg:95") -> ("blur", 2.0). A crop to a side in px is called "crop px", as
    it has no scale in common with a "crop" to a share. None for `base` itself, longer chains,
    steps without a number, and anything that is no degradation.
    """
    if base != NONE:
        if not name.startswith(base + "+"):
            return None
        name = name[len(base) + 1 :]
    try:
        [(step, value)] = _read(name).steps
    except ValueError:  # of no or several steps, or _Unusable
        return None
    if not isinstance(value, (int, float)):
        return None
    return (f"{step} px" if step == "crop" and isinstance(value, int) else step), float(value)


def curves(names: Iterable[str], base: str = NONE) -> dict[str, list[tuple[float, str]]]:
    """The points (value, name) of each step's robustness curve, sorted by value.

    Where `base` is among `names`, it stands at the value that leaves a picture as it is (0 of
    blur, 1 of resize); steps without such a value, such as jpeg, are without it.
    """
    names = list(dict.fromkeys(names))
    points_of: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        point = axis(name, base)
        if point is not None:
            points_of.setdefault(point[0], []).append((point[1], name))
    for step, points in points_of.items():
        neutral = STEPS[step].neutral if step in STEPS else None
        if base in names and neutral is not None and all(value != neutral for value, _ in points):
            points.append((neutral, base))
        points.sort()
    return points_of

"""Threshold and band from a user's own real pictures: how they are chosen, their file, its reading.

scripts/own_threshold.py writes the file, `--threshold FILE` of main.py reads it. It serves one
detector with the weights and options that it was measured with, and no other. Imports neither torch
nor numpy at its top, for main.py reads the file before it needs them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ConfigError
from ..plain_data import read_yaml
from .probability import DECIMALS, sigmoid

if TYPE_CHECKING:
    from ..config import Config
    from ..weights.loaded import Loaded

LEAST = 50  # pictures: of fewer not even a rate of 5 % can be told from twice as much
CONFIDENCE = 0.95
SCRIPT = "scripts/own_threshold.py"
HEADER = f"""\
# Threshold and band of Uncertain for main.py --threshold FILE, measured by {SCRIPT}.
# Above the threshold, the upper end of the band, is called AI-Generated; a new real picture like
# these is with a probability of at most `asked`. `interval` is the exact 95 % one (Clopper-Pearson)
# of the true rate. Both hold for pictures drawn one by one: those of one folder, day or camera are
# alike, count for fewer than they are, and say nothing of others.
"""


@dataclass(frozen=True)
class OwnThreshold:
    """The content of a file of `--threshold FILE`. It serves a `detector`, whose `weights` have
    this sha256, with these `options`, as `changed_options` gives them."""

    path: Path
    detector: str
    weights: str
    options: dict[str, Any]
    threshold: float
    band: tuple[float, float] | None


@dataclass(frozen=True)
class Measured:
    """A threshold, and how many of the `pictures` that it was chosen by lie `above` it."""

    threshold: float
    above: int
    pictures: int

    def interval(self) -> tuple[float, float]:
        """The exact (Clopper-Pearson) interval of the rate of false alarms.

        Its upper end holds although the same pictures chose the threshold: the true rate above the
        (n - above)-th smallest of n scores is distributed as Beta(above + 1, n - above), of which
        it is the quantile; the lower end is lower than that law's.
        """
        from scipy.stats import binomtest

        interval = binomtest(self.above, self.pictures).proportion_ci(CONFIDENCE, method="exact")
        return float(interval.low), float(interval.high)


def needed(rate: float) -> int:
    """Number of readable pictures that a rate of false alarms takes: so many that a new picture
    exceeds the largest score with at most that probability, and LEAST."""
    return max(LEAST, math.ceil(1 / Fraction(str(rate))) - 1)


def check_enough(count: int, rate: float) -> None:
    """Raises ConfigError when so many pictures are too few to tell a rate of false alarms from."""
    if count < (least := needed(rate)):
        raise ConfigError(
            f"--false_alarms {rate:g}: expected at least {least} readable pictures, all different; "
            f"found {count}: bring more" + (", or ask for a higher rate" if least > LEAST else "")
        )


def choose(logits: Sequence[float], rate: float) -> Measured:
    """The smallest score of n real pictures that a new one like them exceeds with a probability of
    at most `rate`, whatever the distribution (split conformal prediction): the k-th smallest, with
    k = n + 1 - floor((n + 1) rate).

    It is rounded up, so that neither the logit nor the rounded score of that picture exceeds it.

    Raises:
        ConfigError: too few pictures.
    """
    n = len(logits)
    check_enough(n, rate)
    # Of n + 1 pictures that are alike, each is the largest with the same probability.
    above = math.floor((n + 1) * Fraction(str(rate)))
    scale = 10**DECIMALS
    scores = sorted(sigmoid(logit) for logit in logits)
    threshold = math.ceil(scores[n - above] * scale) / scale
    return Measured(threshold, sum(round(s, DECIMALS) > threshold for s in scores), n)


def own_band(threshold: float, band: tuple[float, float] | None) -> tuple[float, float] | None:
    """The weights' band with the threshold as its upper end; its lower end stays, or comes down to
    the threshold. Weights without a band have none here either."""
    return None if band is None else (min(band[0], threshold), threshold)


def changed_options(loaded: Loaded, config: Config) -> dict[str, Any]:
    """The options that scores rest on, where they are not the detector's defaults, by dotted names;
    of an ensemble also its members'. Plain values, as YAML gives them."""
    from detectors._options import describe_options

    changed: dict[str, Any] = {}
    for network in (loaded, *loaded.members):
        usual = describe_options(type(network.model.options)())
        options = describe_options(network.model.options)
        changed |= {f"{network.name}.{k}": v for k, v in options.items() if v != usual[k]}
    if config.data.decoding:
        changed["data.decoding"] = config.data.decoding
    return json.loads(json.dumps(changed))


def text(
    measured: Measured, rate: float, counts: dict[str, int], loaded: Loaded, config: Config
) -> str:
    """The content of the file, the same for the same pictures, weights and options.

    Args:
        measured: the threshold.
        rate: of false alarms, as it was asked for.
        counts: of pictures, by what became of them.
        loaded, config: whom the file serves.
    """
    import yaml

    band = own_band(measured.threshold, loaded.band)
    content = {
        "threshold": measured.threshold,
        "band": list(band) if band else None,
        "false_alarms": {
            "asked": rate,
            "measured": round(measured.above / measured.pictures, DECIMALS),
            "interval": [round(end, DECIMALS) for end in measured.interval()],
        },
        "pictures": counts,
        "detector": loaded.name,
        "weights": loaded.sha256,
        "options": changed_options(loaded, config),
    }
    return HEADER + yaml.safe_dump(content, sort_keys=False)


def _parsed(path: Path, values: Any) -> OwnThreshold:
    """The threshold in a file's values. Raises KeyError, TypeError or ValueError for what `text`
    never writes."""
    threshold, given = values["threshold"], values["band"]
    band = None if given is None else (given[0], given[1])
    low, high = band or (threshold, threshold)
    if not all(isinstance(value, float) for value in (threshold, low, high)):
        raise TypeError("threshold and band are no numbers with a point")
    if not 0 <= low <= high == threshold <= 1:
        raise ValueError(f"threshold {threshold} and band {given} do not go together")
    detector, weights, options = values["detector"], values["weights"], values["options"]
    if not (isinstance(detector, str) and isinstance(weights, str) and isinstance(options, dict)):
        raise TypeError("detector, weights and options are not what the script writes")
    return OwnThreshold(path, detector, weights, options, threshold, band)


def read(path: Path) -> OwnThreshold:
    """The threshold in a user's file. Raises ConfigError when it is none that the script wrote."""
    expected = f"expected a number, 0 to 1, or a file that {SCRIPT} wrote"
    try:
        return _parsed(path, read_yaml(path))
    except OSError as error:
        raise ConfigError(f"{expected}; found '{path}': {error.strerror}") from error
    except KeyError as error:
        raise ConfigError(f"{expected}; found {path} without {error}") from error
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{expected}; found {path}: {error}") from error


def value(given: float | OwnThreshold | None, loaded: Loaded) -> float:
    """The threshold that `--threshold` means; without it that of the weights."""
    if isinstance(given, OwnThreshold):
        return given.threshold
    return loaded.threshold if given is None else given


def check_serves(given: float | OwnThreshold | None, loaded: Loaded, config: Config) -> None:
    """Raises ConfigError for a file of another detector, other weights or other options than are
    used now. Numbers serve all.

    Args:
        given: --threshold; None where it was left out.
        loaded, config: the detector, its weights and the settings that are used now.
    """
    if not isinstance(given, OwnThreshold):
        return
    again = f"make it again by {SCRIPT} with what is used now"
    if given.detector != loaded.name:
        differs = f"the detector {loaded.name}; found one of {given.detector}"
    elif given.weights != loaded.sha256:
        differs = (
            f"the weights {loaded.path.name}, sha256 {loaded.sha256[:12]}…; found one of weights "
            f"with {given.weights[:12]}…"
        )
    elif (options := changed_options(loaded, config)) != given.options:
        names = sorted(map(str, options.keys() | given.options.keys()))
        others = [name for name in names if options.get(name) != given.options.get(name)]
        differs = f"the same options; found one of other {', '.join(others)}"
    else:
        return
    raise ConfigError(f"--threshold {given.path}: expected a file of {differs}: {again}")

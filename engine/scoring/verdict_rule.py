"""The verdict rule: from a score to "synthetic", "real" or "uncertain".

Phase test makes one from the weights, --threshold and --prevalence, and every verdict comes from
its `label`. It never changes a score.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..scoring.own_threshold import OwnThreshold
from .degradations import Degradation
from .probability import DECIMALS, EVEN, sigmoid, threshold_logit

if TYPE_CHECKING:
    from ..weights.loaded import Loaded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VerdictRule:
    """The threshold and band that turn scores into words. `band` holds the probabilities called
    "uncertain", ends included; `views` are the re-encodings that a verdict has to hold under.
    Scores are those for a share `prevalence` of generated pictures; threshold and band are compared
    with them as they are."""

    threshold: float
    band: tuple[float, float] | None
    prevalence: float = EVEN
    views: tuple[Degradation, ...] = ()

    def entries(self) -> dict[str, Any]:
        """Entries of run.json, and of each line of --json, that describe the rule but for its
        views."""
        band = list(self.band) if self.band else None
        return {"threshold": self.threshold, "band": band, "prevalence": self.prevalence}

    def label(self, score: float | None) -> str | None:
        """The label of a score: `synthetic` (strictly above the threshold), `real` or `uncertain`;
        None without score."""
        if score is None:
            return None
        if self.band and self.band[0] <= score <= self.band[1]:
            return "uncertain"
        return "synthetic" if score > self.threshold else "real"


def rule_of(
    loaded: Loaded, threshold: float | OwnThreshold | None, prevalence: float = EVEN
) -> VerdictRule:
    """The rule of phase test: the weights' own threshold and band; those of the user's file; or the
    user's threshold with the band moved along.

    Args:
        loaded: the weights, whose card has their threshold and band.
        threshold: --threshold; None where it was left out.
        prevalence: share of generated pictures that scores are restated for.
    """
    if isinstance(threshold, OwnThreshold):
        return VerdictRule(threshold.threshold, threshold.band, prevalence)
    if threshold is None or threshold == loaded.threshold:
        return VerdictRule(loaded.threshold, loaded.band, prevalence)
    if loaded.band is None:
        return VerdictRule(threshold, None, prevalence)
    if threshold in (0, 1):  # nothing is on the other side
        log.warning("--threshold %g: nothing is called uncertain", threshold)
        return VerdictRule(threshold, None, prevalence)
    # The ends stay as far from the threshold, in the logit: a verdict near it is no surer because
    # it is elsewhere.
    shift = threshold_logit(threshold) - threshold_logit(loaded.threshold)
    low, high = (round(sigmoid(threshold_logit(end) + shift), DECIMALS) for end in loaded.band)
    log.info(
        "--threshold %g: the band that is called uncertain moves along, to %.2f to %.2f",
        threshold, low, high,
    )  # fmt: skip
    return VerdictRule(threshold, (low, high), prevalence)

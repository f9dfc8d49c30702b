"""Probabilities of "synthetic": from a logit, and for another share of generated pictures.

Scores are calibrated for pictures of which one half is generated (`EVEN`); `restated` says what
they are where the share is another one. The tables of phase eval and the score cache hold the
calibrated ones, never restated ones. Standard library only: --help waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .table import ScoreRow

DECIMALS = 6  # of logits and scores in tables
EVEN = 0.5


def sigmoid(logit: float) -> float:
    """The probability 1 / (1 + exp(-logit)) of a logit, without overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def score_of(logit: float) -> float:
    """The score of a logit: its probability, rounded as results show it."""
    return round(sigmoid(logit), DECIMALS)


def log_odds(prevalence: float) -> float:
    """The log-odds log(P / (1 - P)) that a share of generated pictures, in (0, 1), adds to each
    logit, by Bayes' rule, from the one half that scores are calibrated for."""
    return math.log(prevalence / (1 - prevalence))


def calibrated(threshold: float, prevalence: float) -> float:
    """The threshold of calibrated scores that decides as `threshold` does of restated ones."""
    # At the ends nothing is on the other side, whatever the share.
    if prevalence == EVEN or threshold in (0, 1):
        return threshold
    return sigmoid(log_odds(threshold) - log_odds(prevalence))


def restated(rows: Iterable[ScoreRow], prevalence: float) -> list[ScoreRow]:
    """Rows whose logit and score are those for a share `prevalence` of generated pictures."""
    if prevalence == EVEN:
        return list(rows)
    shift, results = log_odds(prevalence), []
    for row in rows:
        if row.logit is not None:
            logit = round(row.logit + shift, DECIMALS)
            row = replace(row, logit=logit, score=score_of(logit))
        results.append(row)
    return results


def threshold_logit(threshold: float) -> float:
    """The logit of a threshold given as a probability in [0, 1]; ValueError outside."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"expected a threshold between 0 and 1 (a probability), found {threshold}")
    if threshold in (0.0, 1.0):
        return math.copysign(math.inf, threshold - 0.5)
    return math.log(threshold) - math.log1p(-threshold)

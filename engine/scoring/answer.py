"""The answer of phase test about one picture: its row, its verdict, and the words for them.

Also whether the verdict holds when the picture is re-encoded (--stability): one that a re-encoding
changes, as any platform makes them, says less about the picture than about its file, and becomes
`uncertain`. The scoring loop gives the rows; nothing here scores, or imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from datasets._notes import DOCUMENT, DRAWING, SMALL
from datasets._paths import visible

from .degradations import Degradation, parse
from .probability import restated
from .table import ScoreRow

if TYPE_CHECKING:  # which import torch
    from ..weights.loaded import Loaded
    from .verdict_rule import VerdictRule

# What a picture goes through when it is shared: mild, usual, another format, shrunk.
RECODINGS = ("jpeg:85", "jpeg:70", "webp:80", "resize:0.7+jpeg:90")
SCORE = "score"
COLUMNS = ("path", SCORE, "logit", "label", "error", "notes")  # of predictions.csv
STABILITY = ("held", "of", *RECODINGS)  # and more of them, where it was asked for
UNCERTAIN = "uncertain"
SPOKEN = {"synthetic": "AI-Generated", "real": "Real", UNCERTAIN: "Uncertain"}
REMARKS = {
    SMALL: "under 224 px",
    DOCUMENT: "like a screenshot or document",
    DRAWING: "like a line drawing or print",
}


def recodings() -> tuple[Degradation, ...]:
    """The degradations of RECODINGS."""
    return tuple(chain for name in RECODINGS if (chain := parse(name)))


@dataclass(frozen=True)
class Answer:
    """The row of a picture, the rows of its `views` under RECODINGS where they were asked for,
    notes as datasets/_notes.py has them, and what was `inspected` of its file besides, None where
    nobody asked or it cannot be read."""

    row: ScoreRow
    views: tuple[ScoreRow, ...] = ()
    notes: tuple[str, ...] = ()
    inspected: Any = None

    def restated(self, prevalence: float) -> Answer:
        """The answer for a share `prevalence` of generated pictures."""
        row, *views = restated((self.row, *self.views), prevalence)
        return replace(self, row=row, views=tuple(views))

    def held(self, rule: VerdictRule) -> tuple[int, int]:
        """Number of views whose label is the picture's own, and of all with a label: a view that an
        encoder cannot hold, as WebP over 16,383 px, does not count. Both `real` for `synthetic` and
        `uncertain` for either are changes: the band begins where verdicts are not sure enough."""
        labels = [rule.label(view.score) for view in self.views if view.score is not None]
        return labels.count(rule.label(self.row.score)), len(labels)

    def label(self, rule: VerdictRule) -> str | None:
        """The label of the picture, `uncertain` unless it held in all views; None without score."""
        held, total = self.held(rule)
        return rule.label(self.row.score) if held == total else UNCERTAIN


def _stability(answer: Answer, rule: VerdictRule) -> dict[str, Any] | None:
    """The object `stability` of --json; None for a picture that could not be read."""
    if not answer.views:
        return None
    held, total = answer.held(rule)
    return {"held": held, "of": total, "scores": {v.degradation: v.score for v in answer.views}}


@dataclass(frozen=True)
class Row:
    """The result of one picture, as --json has it; the names and meanings of these attributes are
    stable.

    `score`: probability of "synthetic", `logit` before it in natural-log odds, `label`:
    "synthetic", "real" or "uncertain"; these three are None exactly where `error` says what is
    wrong with the picture. `threshold`, `band` (called uncertain, ends included) and `prevalence`
    are those of the verdict; `weights`: name of their file; `width`, `height` in px of the decoded
    picture; `notes` as datasets/_notes.py has them; `more`: what was asked for besides, by its key.
    """

    path: str
    score: float | None
    logit: float | None
    label: str | None
    threshold: float
    band: tuple[float, float] | None
    prevalence: float
    detector: str
    weights: str
    width: int | None
    height: int | None
    error: str | None
    notes: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The object of --json; its keys are the command line's contract."""
        values = {column.name: getattr(self, column.name) for column in fields(self)}
        values |= {"band": list(self.band) if self.band else None, "notes": list(self.notes)}
        return values | values.pop("more")


def row_of(answer: Answer, rule: VerdictRule, loaded: Loaded, **more: Any) -> Row:
    """The result of a picture.

    Args:
        answer: about the picture.
        rule: of the verdict.
        loaded: the detector and its weights, which each row names.
        more: what was asked for beside the score and, where the rule has views, the stability.
    """
    row = answer.row
    stability = {"stability": _stability(answer, rule)} if rule.views else {}
    return Row(
        row.key, row.score, row.logit, answer.label(rule), rule.threshold, rule.band,
        rule.prevalence, loaded.name, loaded.path.name, row.width, row.height, row.error or None,
        answer.notes, stability | more,
    )  # fmt: skip


def prediction(answer: Answer, rule: VerdictRule) -> tuple[object, ...]:
    """A picture's values of COLUMNS, and of STABILITY where it was asked for."""
    row = answer.row
    values = (row.key, row.score, row.logit, answer.label(rule), row.error, " ".join(answer.notes))
    if not rule.views:
        return values
    if not answer.views:
        return (*values, *[None] * len(STABILITY))
    return (*values, *answer.held(rule), *(view.score for view in answer.views))


def remarks(answer: Answer, rule: VerdictRule) -> str:
    """The end of a line for people: `  (holds 3 of 4; under 224 px)`, or nothing."""
    held = ["holds {} of {}".format(*answer.held(rule))] if answer.views else []
    text = "; ".join([*held, *(REMARKS[note] for note in answer.notes)])
    return f"  ({text})" if text else ""


def as_text(answer: Answer, rule: VerdictRule) -> str:
    """The line of a picture for people: score, verdict, path, remarks; of an unreadable one its
    error."""
    row = answer.row
    if row.error:
        return f"{'-':>6}  {'error':<12}  {visible(row.key)}: {visible(row.error)}"
    label = SPOKEN[answer.label(rule) or UNCERTAIN]
    return f"{row.score:6.3f}  {label:<12}  {visible(row.key)}{remarks(answer, rule)}"


def spoken(answer: Answer, rule: VerdictRule, loaded: Loaded) -> str:
    """The line of a picture at the prompt, in the words of CO-SPY's published program; of an
    unreadable one the error in the same form.

    Args:
        answer, rule, loaded: as `row_of` takes them.
    """
    row = answer.row
    if row.error:
        return f"{loaded.model.title} Error: {visible(row.key)}: {visible(row.error)}"
    label = SPOKEN[answer.label(rule) or UNCERTAIN]
    return f"{loaded.model.title} Prediction: {row.score:.3f} - {label}"

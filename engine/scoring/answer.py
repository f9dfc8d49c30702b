"""What phase test tells of one picture: its row, whether its verdict holds when the picture is
re-encoded (--stability), the notes on its pixels, and the words for all of that.

A verdict that a re-encoding changes, as any platform makes them, says less about the picture than
about its file: it becomes `uncertain`. Nothing here scores; predict gives the rows. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from datasets._notes import DOCUMENT, DRAWING, SMALL
from datasets._paths import visible

from .degradations import Degradation, parse
from .probability import restated
from .table import ScoreRow

if TYPE_CHECKING:  # which import torch
    from ..weights.loading import Loaded
    from .verdict_rule import Judge

# What a picture goes through when it is shared: mild, usual, another format, shrunk.
RECODINGS = ("jpeg:85", "jpeg:70", "webp:80", "resize:0.7+jpeg:90")
COLUMNS = ("path", "score", "logit", "label", "error", "notes")  # of predictions.csv
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
    """The row of a picture, those of its `views` under RECODINGS where they were asked for, and
    notes as datasets/_notes.py has them."""

    row: ScoreRow
    views: tuple[ScoreRow, ...] = ()
    notes: tuple[str, ...] = ()

    def restated(self, prevalence: float) -> Answer:
        """The answer for a share `prevalence` of generated pictures."""
        row, *views = restated((self.row, *self.views), prevalence)
        return replace(self, row=row, views=tuple(views))

    def held(self, judge: Judge) -> tuple[int, int]:
        """In how many views the label is the picture's own, and of how many: a view that an encoder
        cannot hold, as WebP over 16,383 px, does not count. Both `real` for `synthetic` and
        `uncertain` for either are changes: the band begins where verdicts are not sure enough."""
        labels = [judge.label(view.score) for view in self.views if view.score is not None]
        return labels.count(judge.label(self.row.score)), len(labels)

    def label(self, judge: Judge) -> str | None:
        """The label of the picture, `uncertain` unless it held in all views; None without score."""
        held, of = self.held(judge)
        return judge.label(self.row.score) if held == of else UNCERTAIN


def _stability(told: Answer, judge: Judge) -> dict[str, Any] | None:
    """What --json has of the views; None for a picture without, which could not be read."""
    if not told.views:
        return None
    held, of = told.held(judge)
    return {"held": held, "of": of, "scores": {v.degradation: v.score for v in told.views}}


def as_json(told: Answer, judge: Judge, loaded: Loaded) -> dict[str, Any]:
    """The object of one picture; its keys are the command line's contract."""
    row = told.row
    asked = {"stability": _stability(told, judge)} if judge.views else {}
    return {
        "path": row.key,
        "score": row.score,
        "logit": row.logit,
        "label": told.label(judge),
        **judge.entries(),
        "detector": loaded.name,
        "weights": loaded.path.name,
        "width": row.width,
        "height": row.height,
        "error": row.error or None,
        "notes": list(told.notes),
        **asked,
    }


def prediction(told: Answer, judge: Judge) -> tuple[object, ...]:
    """The values of COLUMNS, and of STABILITY where it was asked for."""
    row = told.row
    own = (row.key, row.score, row.logit, told.label(judge), row.error, " ".join(told.notes))
    if not judge.views:
        return own
    if not told.views:
        return (*own, *[None] * len(STABILITY))
    return (*own, *told.held(judge), *(view.score for view in told.views))


def remarks(told: Answer, judge: Judge) -> str:
    """What follows a line for people: `  (holds 3 of 4; under 224 px)`, or nothing."""
    held = ["holds {} of {}".format(*told.held(judge))] if told.views else []
    said = "; ".join([*held, *(REMARKS[note] for note in told.notes)])
    return f"  ({said})" if said else ""


def as_text(told: Answer, judge: Judge) -> str:
    """One line: score, verdict, path, remarks; for an unreadable picture its error."""
    row = told.row
    if row.error:
        return f"{'-':>6}  {'error':<12}  {visible(row.key)}: {visible(row.error)}"
    label = SPOKEN[told.label(judge) or UNCERTAIN]
    return f"{row.score:6.3f}  {label:<12}  {visible(row.key)}{remarks(told, judge)}"


def spoken(told: Answer, judge: Judge, loaded: Loaded) -> str:
    """The published prompt's answer, or the error in its form."""
    row = told.row
    if row.error:
        return f"{loaded.model.title} Error: {visible(row.key)}: {visible(row.error)}"
    label = SPOKEN[told.label(judge) or UNCERTAIN]
    return f"{loaded.model.title} Prediction: {row.score:.3f} - {label}"

"""A detector as the server's judge: its scores are those that phase test prints.

A request's pictures are scored by the library's `Scorer`, as one run of the command line scores
them, and so have the same numbers: by a graph where there is one, but for explanations by PyTorch,
which is loaded with the first of them. Nothing is written.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from datasets import Record
from detectors._errors import OptionError

from ..api import Explanation, Scorer
from ..credentials import reading
from ..credentials.manifests import TrustList
from .scoring_queue import About, Wishes

EXPLANATION = "explanation"


def _explains(scorer: Scorer) -> bool:
    """Whether a detector has something that a drawing could show."""
    try:
        scorer.check_explain()
    except OptionError:
        return False
    return True


def _as_base64(drawing: Image.Image | None) -> str | None:
    """A drawing as PNG in base64; None for none."""
    if drawing is None:
        return None
    buffer = io.BytesIO()
    drawing.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class DetectorJudge:
    """A judge by a `scorer`; files' own signatures are trusted by `trust`."""

    def __init__(self, scorer: Scorer, trust: TrustList | None = None) -> None:
        loaded = scorer.loaded
        self._scorer, self._trust = scorer, trust
        self.about = About(
            loaded.name, loaded.model.title, loaded.path, loaded.sha256, scorer.rule.entries(),
            _explains(scorer),
        )  # fmt: skip

    def __call__(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        """The objects of --json; with `explain` each has a PNG in base64, or None."""
        scorer = self._scorer.stable() if wishes.stability else self._scorer
        if wishes.explain:
            results = scorer.explained(records)
        else:
            results = [Explanation(row, None) for row in scorer.stream(records)]
        objects = [result.row.as_dict() for result in results]
        if wishes.explain:
            for result, entry in zip(results, objects, strict=True):
                entry[EXPLANATION] = _as_base64(result.picture)
        if wishes.credentials:
            for record, entry in zip(records, objects, strict=True):
                entry["credentials"] = reading.as_json(reading.of_record(record, self._trust))
        return objects

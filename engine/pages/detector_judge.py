"""A detector as the server's judge: its scores are those that phase test prints.

A request's pictures are scored by phase test's own `judged`, as one run of the command line scores
them, and so have the same numbers: by a graph where there is one, but for explanations by PyTorch,
which is loaded with the first of them. Nothing is written.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from datasets import Record
from datasets._images import decode, read_bytes
from detectors._errors import OptionError

from ..credentials import reading
from ..phases.test import TestRequest, credentials_of, judged
from ..scoring.answer import as_json, recodings
from ..weights.graph import GraphDetector
from .scoring_queue import About, Wishes

EXPLANATION = "explanation"


def _explains(model: Any) -> bool:
    """Whether a detector has something that a drawing could show; one of a graph has."""
    try:
        if not isinstance(model, GraphDetector):
            model.check_explain()
    except OptionError:
        return False
    return True


class DetectorJudge:
    """The detector of phase test's `request`, whose own pictures are not looked at; `by_torch`
    gives the same request with PyTorch, where a graph computes it."""

    def __init__(self, request: TestRequest, by_torch: Callable[[], TestRequest]) -> None:
        loaded = request.loaded
        self.request, self._by_torch = request, by_torch
        self._explaining = None if isinstance(loaded.model, GraphDetector) else request
        self.about = About(
            loaded.name, loaded.model.title, loaded.path, loaded.sha256, request.rule.entries(),
            _explains(loaded.model),
        )  # fmt: skip

    def _request(self, wishes: Wishes) -> TestRequest:
        """The request that does what is asked for."""
        if wishes.explain and self._explaining is None:
            self._explaining = self._by_torch()
        request = (wishes.explain and self._explaining) or self.request
        if wishes.stability:
            request = replace(request, rule=replace(request.rule, views=recodings()))
        return replace(request, credentials=wishes.credentials)

    def __call__(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        """The objects of --json; with `explain` each has a PNG in base64, or None."""
        request = self._request(wishes)
        drawings: dict[int, str] = {}  # by the record, for names of uploads may be the same
        workers, model = request.workers, request.loaded.model

        def show(record: Record, relevance: Any) -> None:
            image = decode(read_bytes(record), workers.limits, workers.decoding)
            buffer = io.BytesIO()
            model.overlay(image, relevance).save(buffer, "PNG")
            drawings[id(record)] = base64.b64encode(buffer.getvalue()).decode()

        batches = judged(request, records, show if wishes.explain else None)
        answers = [answer for batch in batches for answer in batch]
        objects = [as_json(answer, request.rule, request.loaded) for answer in answers]
        if wishes.explain:
            for record, entry in zip(records, objects, strict=True):
                entry[EXPLANATION] = drawings.get(id(record))
        if wishes.credentials:
            for record, entry in zip(records, objects, strict=True):
                entry["credentials"] = reading.as_json(credentials_of(request, record))
        return objects

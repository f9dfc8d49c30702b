"""A detector as the server's judge: its scores are those that phase test prints.

A request's pictures are scored by phase test's own `judged`, as one run of the command line scores
them, and so have the same numbers. Nothing is written.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets import Record
from datasets._images import decode, read_bytes
from detectors._errors import OptionError

from ..credentials import reading
from ..phases.test import TestRequest, credentials_of, judged
from ..scoring.answer import as_json, recodings
from .scoring_queue import About, Wishes

EXPLANATION = "explanation"


def about(request: TestRequest) -> About:
    """What the pages say of a request's detector."""
    loaded = request.loaded
    try:
        loaded.model.check_explain()
        explains = True
    except OptionError:
        explains = False
    title, rule = loaded.model.title, request.rule.entries()
    return About(loaded.name, title, loaded.path, loaded.sha256, rule, explains)


class DetectorJudge:
    """The detector of phase test's request, whose own pictures are not looked at."""

    def __init__(self, request: TestRequest) -> None:
        self.request, self.about = request, about(request)

    def __call__(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        """The objects of --json; with `explain` each has a PNG in base64, or None."""
        request = replace(self.request, credentials=wishes.credentials)
        if wishes.stability:
            request = replace(request, rule=replace(request.rule, views=recodings()))
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

"""The questionnaire's part of the server: its page, its pictures, and what its page asks.

A browser gets to know what a picture is after the answer, if at all. Bodies are small JSON, and an
answer is on its way to the disk before it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from .guard import Refusal
from .quiz import PICTURES, REAL, SYNTHETIC, Trial
from .quiz_answers import Answers, Beginning, Given, Session, WrongAnswer, parsed
from .quiz_stats import Rate, detector_right, kind_of, wilson
from .site import render
from .uploads import UploadError, UploadLimits, read_json

QUIZ, BEGIN = "/quiz", "/api/quiz/begin"
SMALL = UploadLimits(megabytes=1 / 16, seconds=20)


def trial_shown(answers: Answers, trial: Trial) -> dict[str, Any]:
    """A trial as a browser gets it."""
    hints = [answers.quiz.hint(name) for name in trial.pictures] if trial.hinted else None
    return {
        "number": trial.number,
        "pictures": list(trial.pictures),
        "check": trial.check,
        "hints": hints,
    }


def session_shown(answers: Answers, session: Session) -> dict[str, Any]:
    """Trials and options of a person, and which trials have their answers."""
    options = answers.quiz.options
    last = 2 if options.hint == "after" else 1
    done = [t.number for t in session.trials if (t.number, _last(t, last)) in session.answers]
    return {
        "participant": session.participant,
        "mode": options.mode,
        "seconds": options.seconds,
        "reasons": list(options.reasons),
        "trials": [trial_shown(answers, trial) for trial in session.trials],
        "done": done,
    }


def _last(trial: Trial, last: int) -> int:
    """The stage that ends a trial: a check is not revised."""
    return 1 if trial.check is not None else last


def told(answers: Answers, given: Given, trial: Trial, right: bool | None) -> dict[str, Any]:
    """What a person is told after an answer: the hint, or the truth where that is wanted."""
    options = answers.quiz.options
    if trial.check is not None:
        return {}
    if options.hint == "after" and given.stage == 1:
        return {"hints": [answers.quiz.hint(name) for name in trial.pictures]}
    if not options.feedback:
        return {}
    truth = [SYNTHETIC if answers.quiz.pictures[n].label else REAL for n in trial.pictures]
    return {"right": bool(right), "truth": truth}


def _rate(rate: Rate) -> dict[str, Any] | None:
    return asdict(rate) if rate.total else None


def summary(answers: Answers, session: Session) -> dict[str, Any]:
    """The end page: rates of a person, of others so far and of detectors, on the same pictures."""
    quiz, own = answers.quiz, session.scored()
    trials = [answer.trial for answer in own]
    kinds: dict[str, list[bool]] = {}
    for answer in own:
        kinds.setdefault(kind_of(quiz, answer.trial), []).append(bool(answer.right))
    seen = {name for trial in trials for name in trial.pictures}
    others = [
        bool(answer.right)
        for other in answers.sessions.values()
        if other is not session
        for answer in other.scored()
        if seen.issuperset(answer.trial.pictures)
    ]
    detectors = {}
    for name in quiz.detectors:
        verdicts = [detector_right(quiz, name, trial) for trial in trials]
        known = [bool(verdict) for verdict in verdicts if verdict is not None]
        detectors[name] = _rate(wilson(sum(known), len(known)))
    return {
        "you": _rate(wilson(sum(bool(a.right) for a in own), len(own))),
        "kinds": {kind: _rate(wilson(sum(k), len(k))) for kind, k in sorted(kinds.items())},
        "everyone": _rate(wilson(sum(others), len(others))),
        "detectors": detectors,
        "reference": quiz.options.reference,
        "reference_text": quiz.options.reference_text,
    }


def add_quiz(app: FastAPI, answers: Answers, places: Mapping[str, str]) -> None:
    """Adds the questionnaire's routes to the server."""
    quiz = answers.quiz
    page = render(
        "quiz.j2", title=quiz.options.title, here=QUIZ, places=places, options=quiz.options,
        pictures=len(quiz.pictures),
    )  # fmt: skip

    async def taken(
        http: Request, kind: type[Any], use: Callable[[Any], dict[str, Any]]
    ) -> Response:
        """The answer to a body that is to be one of a class."""
        try:
            content = await read_json(http, SMALL, "expected JSON")
            return JSONResponse(use(parsed(kind, content)))
        except UploadError as error:
            return error.refusal.response()
        except WrongAnswer as error:
            return Refusal(400, str(error)).response()

    def known(participant: str, show: Callable[[Answers, Session], dict[str, Any]]) -> Response:
        session = answers.sessions.get(participant)
        if session is None:
            return Refusal(404, "expected a participant who has begun").response()
        return JSONResponse(show(answers, session))

    def answered(given: Given) -> dict[str, Any]:
        answer = answers.answer(given)
        return told(answers, given, answer.trial, answer.right)

    @app.get(QUIZ, include_in_schema=False)
    async def questionnaire() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get(QUIZ + "/{name}", include_in_schema=False)
    async def picture(name: str) -> Response:
        if name not in quiz.pictures:  # names are of the table, so none leads elsewhere
            return Refusal(404, "no such picture").response()
        path = quiz.folder / PICTURES / name
        # Kept by the browser, which asks for the next one ahead; the server's usual is no-store.
        headers = {"Cache-Control": "private, max-age=3600"}
        return FileResponse(path, media_type="image/jpeg", headers=headers)

    @app.post(BEGIN, include_in_schema=False)
    async def begin(http: Request) -> Response:
        return await taken(http, Beginning, lambda b: session_shown(answers, answers.begin(b)))

    @app.post("/api/quiz/answer", include_in_schema=False)
    async def answer(http: Request) -> Response:
        return await taken(http, Given, answered)

    @app.get("/api/quiz/session/{participant}", include_in_schema=False)
    async def session(participant: str) -> Response:
        return known(participant, session_shown)

    @app.get("/api/quiz/end/{participant}", include_in_schema=False)
    async def end(participant: str) -> Response:
        return known(participant, summary)

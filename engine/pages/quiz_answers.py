"""Answers of a questionnaire: the file they are appended to, and who has answered what.

A line of JSON is flushed before an answer is acknowledged, so that a kill loses none. Nothing is
kept of a person but a random id and what quiz.yaml asks. Imports no torch.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from ..config import ConfigError
from .quiz import REAL, SYNTHETIC, Quiz, Trial, trials_of

ANSWERS = "answers.jsonl"
LONGEST = 500  # characters of a free answer
Words = Annotated[str, Field(max_length=LONGEST)]


@checked(frozen=True)
class Given:
    """An answer as a browser sends it. `choice`: what the picture, or of two the left one, is said
    to be, None when time was up; `confidence`: percent, 50 = a guess; `stage` 2 revises an answer
    after the detector's hint; `milliseconds`: from the picture's appearance on."""

    participant: Annotated[str, Field(max_length=64)]
    trial: Annotated[int, Field(ge=0)]
    choice: Literal["real", "synthetic"] | None
    confidence: Annotated[int, Field(ge=50, le=100)]
    milliseconds: Annotated[int, Field(ge=0, le=10**9)]
    reasons: Annotated[tuple[Words, ...], Field(max_length=50)] = ()
    stage: Literal[1, 2] = 1


@checked(frozen=True)
class Beginning:
    """A person's agreement and answers to the questions, by name."""

    consent: Literal[True]
    answers: Annotated[dict[Words, Words], Field(max_length=100)] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer with what is known of its trial. `right`: None where time was up; an attention
    check's pictures have no truth to be right about, so that `right` is whether the person heeded
    it."""

    given: Given
    trial: Trial
    right: bool | None


class Session:
    """The answers of one person, by trial and stage."""

    def __init__(self, quiz: Quiz, participant: str) -> None:
        self.participant = participant
        self.trials = trials_of(quiz, participant)
        self.answers: dict[tuple[int, int], Answer] = {}

    def scored(self) -> list[Answer]:
        """The first answers that count: no checks, none that came too late."""
        return [
            answer
            for (_, stage), answer in sorted(self.answers.items())
            if stage == 1 and answer.right is not None and answer.trial.check is None
        ]

    @property
    def attentive(self) -> bool:
        """Whether no attention check was missed."""
        checks = [a for a in self.answers.values() if a.trial.check is not None]
        return all(answer.right for answer in checks)

    @property
    def finished(self) -> bool:
        """Whether every trial has an answer."""
        return all((trial.number, 1) in self.answers for trial in self.trials)


class WrongAnswer(ValueError):
    """An answer of nobody we know, to no trial of theirs, or to one that has its answer."""


def _right(quiz: Quiz, trial: Trial, choice: str | None) -> bool | None:
    if choice is None:
        return None
    truth = SYNTHETIC if quiz.pictures[trial.pictures[0]].label else REAL
    return choice == (trial.check or truth)


class Answers:
    """All answers to a questionnaire: those of its file, and those that come."""

    def __init__(self, quiz: Quiz) -> None:
        self.quiz = quiz
        self.sessions: dict[str, Session] = {}
        self._path = quiz.folder / ANSWERS
        for number, line in enumerate(self._lines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{self._path}, line {number}: expected an answer to this questionnaire; "
                    f"found {line[:100]!r}"
                ) from error

    def _lines(self) -> list[str]:
        """Whole lines of the file; half a last one, which a kill may leave, is cut off."""
        if not self._path.is_file():
            return []
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self._path.open("r+b") as stream:
                stream.truncate(len(whole))
        return whole.decode("utf-8").splitlines()

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["event"] == "begin":
            self.sessions[line["participant"]] = Session(self.quiz, line["participant"])
            return
        values = {name: line[name] for name in Given.__dataclass_fields__}
        given = TypeAdapter(Given).validate_python(values)
        answer = self._checked(given)
        self.sessions[given.participant].answers[given.trial, given.stage] = answer

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=True) + "\n")

    def _checked(self, given: Given) -> Answer:
        """The answer. Raises WrongAnswer."""
        session = self.sessions.get(given.participant)
        if session is None:
            raise WrongAnswer("expected a participant who has begun")
        if given.trial >= len(session.trials):
            raise WrongAnswer(f"expected a trial below {len(session.trials)}; found {given.trial}")
        if (given.trial, given.stage) in session.answers:
            raise WrongAnswer(f"trial {given.trial} has its answer")
        may_revise = self.quiz.options.hint == "after" and (given.trial, 1) in session.answers
        if given.stage == 2 and not may_revise:
            raise WrongAnswer(f"trial {given.trial} has no answer to revise")
        trial = session.trials[given.trial]
        return Answer(given, trial, _right(self.quiz, trial, given.choice))

    def begin(self, beginning: Beginning) -> Session:
        """The session of a new person. Raises WrongAnswer for answers to other questions."""
        known = {question.name for question in self.quiz.options.questions}
        if others := beginning.answers.keys() - known:
            raise WrongAnswer(f"expected answers to {', '.join(known)}; found {min(others)!r}")
        participant = secrets.token_hex(12)
        line = {"event": "begin", "participant": participant, "answers": beginning.answers}
        self._append(line)
        self._take(line)
        return self.sessions[participant]

    def answer(self, given: Given) -> Answer:
        """Takes an answer. Raises WrongAnswer."""
        answer = self._checked(given)
        seen = {"pictures": answer.trial.pictures, "check": answer.trial.check,
                "hinted": answer.trial.hinted, "right": answer.right}  # fmt: skip
        self._append({"event": "answer"} | asdict(given) | seen)
        self.sessions[given.participant].answers[given.trial, given.stage] = answer
        return answer


def parsed(kind: type[Any], content: Any) -> Any:
    """What a browser sent, as one of the classes here. Raises WrongAnswer saying what is wrong."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the body"
        raise WrongAnswer(f"{where}: {fault['msg']}") from error

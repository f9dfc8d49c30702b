"""A questionnaire as a folder: options, pictures, detectors' scores of them; and its trials.

`scripts/quiz.py` makes the folder, the server runs it, the report reads it. What a person sees is
decided by the person's id alone, so that nothing of a session need be kept but its answers. Imports
no torch.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from datasets._csv import read_csv

from ..config import FILE, ConfigError, read_yaml, validated
from ..evaluation.comparison import read_run
from ..scoring.answer import SPOKEN

OPTIONS, TABLE, PICTURES, DETECTORS = "quiz.yaml", "pictures.csv", "pictures", "detectors"
COLUMNS = ("image", "class", "generator", "source", "kind", "original")
REAL, SYNTHETIC = "real", "synthetic"
Choice = Literal["real", "synthetic"]
Text = Annotated[str, Field(max_length=10_000)]


@dataclass(frozen=True, config=FILE)
class Question:
    """A question that is asked once, before the pictures."""

    name: Annotated[str, Field(pattern=r"^\w{1,40}$")]
    """Its key in the answers."""
    text: Text
    choices: tuple[Text, ...] = ()
    """What can be answered; any text where there are none."""


@dataclass(frozen=True, config=FILE)
class QuizOptions:
    """The content of quiz.yaml."""

    title: Text = "Real or generated?"
    mode: Literal["one", "pair"] = "one"
    """One: a picture is real or AI-generated. Pair: which of two pictures is real."""
    trials: Annotated[int | None, Field(ge=1)] = None
    """Pictures, or pairs, that each person sees; null = all."""
    seconds: Annotated[float | None, Field(gt=0, le=3600)] = None
    """Time limit of a trial; null = none."""
    feedback: bool = False
    """Whether each answer is followed by the truth."""
    hint: Literal["none", "before", "after"] = "none"
    """A detector's verdict: before the answer, in every other trial by chance, or after it, when
    the answer may be changed."""
    hint_by: str | None = None
    """The detector of the hint, a folder below detectors/; null = the first."""
    attention: Annotated[int, Field(ge=0, le=20)] = 1
    """Trials that ask for a stated answer; who misses one is left out of the report."""
    reasons: tuple[Text, ...] = ()
    """What a person may tick as a reason."""
    consent: Text = ""
    """Shown first; who goes on agrees."""
    questions: tuple[Question, ...] = ()
    """Asked after the consent, all of them voluntary."""
    reference: Annotated[float | None, Field(ge=0, le=1)] = 0.387
    """Share of wrong answers that the end page states of another study; null = none."""
    reference_text: Text = "People in a study of 2023, on other pictures (arXiv 2304.13023)"


@dataclass(frozen=True)
class Picture:
    """A picture of the questionnaire. `name`: of its file, which says nothing of what it is."""

    name: str
    label: int
    generator: str = ""
    source: str = ""
    kind: str = ""

    @property
    def key(self) -> str:
        """Its name in tables of scores."""
        return f"{PICTURES}/{self.name}"


@dataclass(frozen=True)
class Verdict:
    """What a detector says of a picture: its score, and whether it calls it synthetic."""

    score: float
    synthetic: bool


@dataclass(frozen=True)
class Trial:
    """What a person sees at a time: one picture or two, left and right. `check`: the answer that an
    attention check asks for; `hinted`: whether the detector's verdict stands beside it."""

    number: int
    pictures: tuple[str, ...]
    check: Choice | None = None
    hinted: bool = False


@dataclass(frozen=True)
class Quiz:
    """A questionnaire. `detectors`: name -> picture -> verdict."""

    folder: Path
    options: QuizOptions
    pictures: Mapping[str, Picture]
    detectors: Mapping[str, Mapping[str, Verdict]] = field(default_factory=dict)

    def hint(self, name: str) -> str | None:
        """The hint on a picture, in words; None where there is none."""
        by = self.options.hint_by or next(iter(self.detectors), "")
        verdict = self.detectors.get(by, {}).get(name)
        if verdict is None:
            return None
        word = SPOKEN[SYNTHETIC if verdict.synthetic else REAL]
        return f"{by}: {word}, score {verdict.score:.2f}"


def _pictures(folder: Path) -> dict[str, Picture]:
    """The pictures that the folder's table lists. Raises ConfigError where one is missing."""
    columns, rows = read_csv(folder / TABLE, "a folder that quiz.py make wrote")
    if missing := set(COLUMNS[:5]) - set(columns):
        raise ConfigError(f"{folder / TABLE}: expected a column {min(missing)}")
    pictures = {}
    for row in rows:
        name = Path(row["image"]).name
        if row["class"] not in ("0", "1") or not (folder / PICTURES / name).is_file():
            raise ConfigError(f"{folder / TABLE}: expected class 0 or 1 and the file of {name!r}")
        pictures[name] = Picture(
            name, int(row["class"]), row["generator"], row["source"], row["kind"]
        )
    return pictures


def _verdicts(folder: Path, pictures: Mapping[str, Picture]) -> dict[str, Verdict]:
    """The verdicts of a folder of phase eval on the questionnaire's pictures."""
    run = read_run(folder)
    rows = {key: row for (key, _), row in run.rows.items() if row.score is not None}
    return {
        name: Verdict(row.score, row.score > run.threshold)
        for name, picture in pictures.items()
        if (row := rows.get(picture.key)) is not None and row.score is not None
    }


def read_quiz(folder: Path) -> Quiz:
    """The questionnaire of a folder.

    Raises:
        ConfigError, LayoutError: none, or a wrong one; a detector for the hint that has no scores.
    """
    options = validated(QuizOptions, OPTIONS, read_yaml(folder / OPTIONS))
    pictures = _pictures(folder)
    if len({picture.label for picture in pictures.values()}) < 2:
        raise ConfigError(f"{folder / TABLE}: expected pictures of both classes")
    runs = sorted(path for path in (folder / DETECTORS).glob("*") if path.is_dir())
    quiz = Quiz(folder, options, pictures, {run.name: _verdicts(run, pictures) for run in runs})
    if options.hint != "none" and (options.hint_by or next(iter(quiz.detectors), "")) not in (
        quiz.detectors
    ):
        there = ", ".join(quiz.detectors) or "none"
        raise ConfigError(
            f"{folder / OPTIONS}: hint: expected a folder of phase eval in {DETECTORS}/ named by "
            f"hint_by; found {there}: main.py --phase eval --data {folder / TABLE} --output "
            f"{folder / DETECTORS}/NAME makes one"
        )
    return quiz


def _pairs(pictures: Sequence[Picture], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Pairs of a real picture and a synthetic one, of one kind where there are, sides by chance."""
    pools: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for picture in pictures:
        pools[picture.kind][picture.label].append(picture.name)
    pairs: list[tuple[str, ...]] = []
    left: tuple[list[str], list[str]] = ([], [])
    for kind in [*sorted(pools), None]:
        pool = left if kind is None else pools[kind]
        reals, fakes = (list(rng.permutation(names)) for names in pool)
        count = min(len(reals), len(fakes))
        for real, fake in zip(reals[:count], fakes[:count], strict=True):
            both = (str(real), str(fake))
            pairs.append(both if rng.random() < 0.5 else both[::-1])
        if kind is not None:
            left[0].extend(map(str, reals[count:]))
            left[1].extend(map(str, fakes[count:]))
    return pairs


def _balanced(pictures: Sequence[Picture], count: int, rng: np.random.Generator) -> list[str]:
    """So many pictures, one half of each class where there are enough."""
    by_label = [
        [str(n) for n in rng.permutation([p.name for p in pictures if p.label == label])]
        for label in (0, 1)
    ]
    first = min(len(by_label[0]), max(count // 2, count - len(by_label[1])))
    return [*by_label[0][:first], *by_label[1][: count - first]]


def trials_of(quiz: Quiz, participant: str) -> list[Trial]:
    """What a person sees, in order; the same for the same id."""
    options, pictures = quiz.options, list(quiz.pictures.values())
    digest = hashlib.blake2b(participant.encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    if options.mode == "pair":
        shown = _pairs(pictures, rng)
        chosen = [shown[i] for i in rng.permutation(len(shown))[: options.trials]]
    else:
        count = min(options.trials or len(pictures), len(pictures))
        names = _balanced(pictures, count, rng)
        chosen = [(names[i],) for i in rng.permutation(count)]
    # Checks lie among the trials, never first, and show a picture like any other.
    places = set(rng.choice(np.arange(1, len(chosen) + 1), min(options.attention, len(chosen)),
                            replace=False).tolist())  # fmt: skip
    trials: list[Trial] = []
    for index, names_of in enumerate([*chosen, ()]):
        if index in places:
            asked: Choice = "real" if rng.random() < 0.5 else "synthetic"
            spare = chosen[int(rng.integers(len(chosen)))]
            trials.append(Trial(len(trials), spare, check=asked))
        if names_of:
            hinted = options.hint == "before" and rng.random() < 0.5
            trials.append(Trial(len(trials), names_of, hinted=hinted))
    return trials

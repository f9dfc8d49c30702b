"""The report of a questionnaire: people against detectors on the very same pictures.

`scripts/quiz.py report` writes it, `export` turns people into an entry of the leaderboard. People
who missed an attention check are counted and left out. Imports no torch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from ..config import ConfigError
from ..reporting import drawing
from ..reporting.document import Plot, Table, render_markdown, render_page
from ..reporting.tables import UNDEFINED
from ..runtime.files import write_file
from ..runtime.table_writer import csv_text
from .quiz import Quiz, Trial
from .quiz_answers import Answer, Answers, Session
from .quiz_stats import (
    Rate,
    agreement,
    calibration,
    calibration_error,
    detector_right,
    generator_of,
    interval,
    kind_of,
    sensitivity,
    wilson,
)

NAME = "report"
FEWEST = 2  # people, below which nothing can be said of their agreement


def attentive(answers: Answers) -> list[Session]:
    """The sessions that count: with an answer, and no attention check missed."""
    return [s for s in answers.sessions.values() if s.attentive and s.scored()]


def _percent(rate: Rate) -> str:
    if not rate.total:
        return UNDEFINED
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.2f}"


def _of_detector(quiz: Quiz, name: str, trials: Iterable[Trial]) -> Rate:
    """A detector's rate over trials, each set of pictures once."""
    distinct = {tuple(sorted(trial.pictures)): trial for trial in trials}
    verdicts = [detector_right(quiz, name, trial) for trial in distinct.values()]
    known = [bool(verdict) for verdict in verdicts if verdict is not None]
    return wilson(sum(known), len(known))


def _groups(
    quiz: Quiz, answers: Sequence[Answer], group: Callable[[Quiz, Trial], str], title: str
) -> Table:
    """People and detectors in each group of trials."""
    groups: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[group(quiz, answer.trial)].append(answer)
    rows = []
    for name, members in sorted(groups.items()):
        trials = [answer.trial for answer in members]
        detectors = [_percent(_of_detector(quiz, d, trials)) for d in quiz.detectors]
        rows.append([name or "real", str(len(members)), _percent(interval(members)), *detectors])
    return Table([title, "answers", "people", *quiz.detectors], rows)


def _people_table(quiz: Quiz, sessions: Sequence[Session]) -> Table:
    """The main figures of all people together."""
    answers = [answer for session in sessions for answer in session.scored()]
    signal = sensitivity(quiz, answers)
    alpha = math.nan
    if quiz.options.mode == "one" and len(sessions) >= FEWEST:
        alpha = agreement(answers)
    rows = [
        ["people", str(len(sessions))],
        ["answers", str(len(answers))],
        ["right, percent", _percent(interval(answers))],
        ["d'", _number(signal.d_prime)],
        ["criterion (above 0: leans to real)", _number(signal.criterion)],
        ["agreement (Krippendorff's alpha)", _number(alpha)],
        ["calibration error of confidence", _number(calibration_error(answers))],
        ["median time, s", f"{median(a.given.milliseconds for a in answers) / 1000:.1f}"],
    ]
    return Table(["of people", "value"], rows)


def _hint_table(quiz: Quiz, sessions: Sequence[Session]) -> Table | None:
    """Right answers without and with the detector's hint, and where the hint was right or wrong."""
    plain: list[Answer] = []
    hinted: list[Answer] = []
    for session in sessions:
        first = session.scored()
        if quiz.options.hint == "after":
            revised = [session.answers.get((a.trial.number, 2)) for a in first]
            pairs = [
                (a, b) for a, b in zip(first, revised, strict=True) if b and b.right is not None
            ]
            plain += [a for a, _ in pairs]
            hinted += [b for _, b in pairs]
        else:
            plain += [a for a in first if not a.trial.hinted]
            hinted += [a for a in first if a.trial.hinted]
    if not hinted:
        return None
    by = quiz.options.hint_by or next(iter(quiz.detectors))

    def row(name: str, keep: Callable[[Answer], bool]) -> list[str]:
        sides = [interval([a for a in side if keep(a)]) for side in (plain, hinted)]
        return [name, *map(_percent, sides)]

    rows = [
        row("all", lambda _: True),
        row("where it is right", lambda a: detector_right(quiz, by, a.trial) is True),
        row("where it is wrong", lambda a: detector_right(quiz, by, a.trial) is False),
    ]
    return Table([f"hint of {by}", "without", "with"], rows)


def _calibration_table(answers: Sequence[Answer]) -> Table:
    rows = [
        [f"{100 * b.confidence:.0f}", f"{100 * b.right:.1f}", str(b.total)]
        for b in calibration(answers)
    ]
    return Table(["mean confidence", "right", "answers"], rows)


def _plots(quiz: Quiz, answers: Sequence[Answer]) -> list[Plot]:
    """Confidence against right answers, and people and detectors by kind. Raises ImportError
    without matplotlib."""
    canvas, axes = drawing.single(4.6, 4.2, "mean confidence, %", "right, %")
    bins = calibration(answers)
    axes.plot([50, 100], [50, 100], **drawing.REFERENCE)
    axes.plot([100 * b.confidence for b in bins], [100 * b.right for b in bins],
              color=drawing.BLUE, marker="o")  # fmt: skip
    axes.set_ylim(*drawing.within_percent(0, 100))
    figures = [Plot(f"{NAME}_confidence.png", "Confidence of people", drawing.png(canvas))]
    groups: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        groups[kind_of(quiz, answer.trial)].append(answer)
    names = sorted(groups)
    canvas, axes = drawing.single(6.4, 1.4 + 0.5 * len(names), "right, %", "")
    drawing.name_rows(axes, [name or "all" for name in names])
    axes.set_xlim(*drawing.within_percent(0, 100))
    rates = {"people": [interval(groups[name]) for name in names]} | {
        detector: [_of_detector(quiz, detector, [a.trial for a in groups[n]]) for n in names]
        for detector in quiz.detectors
    }
    for index, (who, values) in enumerate(rates.items()):
        colour, marker = drawing.series(index)
        places = [row + 0.12 * (index - len(rates) / 2) for row in range(len(names))]
        spans = [[max(0.0, 100 * (r.value - r.low)) for r in values],
                 [max(0.0, 100 * (r.high - r.value)) for r in values]]  # fmt: skip
        axes.errorbar([100 * r.value for r in values], places, xerr=spans, color=colour,
                      marker=marker, linestyle="", label=who)  # fmt: skip
    drawing.plain(axes.legend(frameon=False, loc="best"))
    figures.append(Plot(f"{NAME}_kinds.png", "People and detectors by kind", drawing.png(canvas)))
    return figures


def people_csv(quiz: Quiz, sessions: Sequence[Session]) -> str:
    """A row for each person."""
    header = ("participant", "answers", "right", "d_prime", "criterion", "confidence", "seconds")
    rows: list[Sequence[object]] = [header]
    for session in sessions:
        answers = session.scored()
        signal = sensitivity(quiz, answers)
        confidence = sum(a.given.confidence for a in answers) / len(answers)
        seconds = sum(a.given.milliseconds for a in answers) / 1000
        right = sum(bool(a.right) for a in answers)
        rows.append((session.participant, len(answers), right, signal.d_prime, signal.criterion,
                     round(confidence, 2), round(seconds, 3)))  # fmt: skip
    return csv_text(rows)


def scores_of(quiz: Quiz, sessions: Sequence[Session]) -> dict[str, float]:
    """The mean probability of synthetic that people's answers give each picture, by its key: the
    confidence where they say synthetic, one minus it where they say real."""
    given: defaultdict[str, list[float]] = defaultdict(list)
    for session in sessions:
        for answer in session.scored():
            said = answer.given.choice == "synthetic"
            for place, name in enumerate(answer.trial.pictures):
                share = answer.given.confidence / 100
                # Of two, what is said of the left one is the opposite of what is said of the right.
                given[quiz.pictures[name].key].append(share if said == (place == 0) else 1 - share)
    return {key: sum(values) / len(values) for key, values in sorted(given.items())}


def pictures_csv(quiz: Quiz, sessions: Sequence[Session]) -> str:
    """A row for each picture: what it is, what people and detectors say of it."""
    scores = scores_of(quiz, sessions)
    rows: list[Sequence[object]] = [
        ("image", "class", "generator", "source", "kind", "people", *quiz.detectors)
    ]
    for name, picture in quiz.pictures.items():
        verdicts = [quiz.detectors[d].get(name) for d in quiz.detectors]
        known = (picture.key, picture.label, picture.generator, picture.source, picture.kind)
        rows.append((*known, scores.get(picture.key), *(v.score if v else None for v in verdicts)))
    return csv_text(rows)


def scores_csv(quiz: Quiz, sessions: Sequence[Session]) -> str:
    """People's scores as the leaderboard takes them."""
    return csv_text([("key", "score"), *scores_of(quiz, sessions).items()])


def write(answers: Answers) -> Path:
    """Writes report.html, report.md, the plots, people.csv and people_by_picture.csv into the
    questionnaire's folder. Returns the page's path.

    Raises:
        ConfigError: nobody has answered.
    """
    quiz, sessions = answers.quiz, attentive(answers)
    if not sessions:
        raise ConfigError(f"{quiz.folder}: expected answers; found none that count")
    scored = [answer for session in sessions for answer in session.scored()]
    detectors = [
        [name, _percent(_of_detector(quiz, name, [a.trial for a in scored]))]
        for name in quiz.detectors
    ]
    try:
        plots: list[Plot] | None = _plots(quiz, scored)
    except ImportError:
        plots = None
    late = sum(a.right is None for s in sessions for a in s.answers.values())
    content = {
        "left_out": sum(not s.attentive for s in answers.sessions.values()),
        "unfinished": sum(not s.finished for s in sessions),
        "late": late,
        "people": _people_table(quiz, sessions),
        "detectors": Table(["detector", "right, percent"], detectors) if detectors else None,
        "kinds": _groups(quiz, scored, kind_of, "kind"),
        "generators": _groups(quiz, scored, generator_of, "generator"),
        "confidence": _calibration_table(scored),
        "hint": _hint_table(quiz, sessions),
        "plots": plots,
    }
    title = f"People and detectors: {quiz.options.title}"
    files: dict[str, bytes | str] = {plot.name: plot.content for plot in plots or []}
    files["people.csv"] = people_csv(quiz, sessions)
    files["people_by_picture.csv"] = pictures_csv(quiz, sessions)
    files[f"{NAME}.md"] = render_markdown("quiz_report.j2", title, **content)
    files[f"{NAME}.html"] = render_page("quiz_report.j2", title, **content)
    for name, data in files.items():
        write_file(quiz.folder / name, data)
    return quiz.folder / f"{NAME}.html"

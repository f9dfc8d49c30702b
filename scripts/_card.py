"""Tables of the shipped detector's card: several detectors on the same pictures.

ship_default.py writes them. All figures derive from score tables, none is fitted here, and every
interval is one of a bootstrap that draws whole generators and sources.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import LayoutError
from datasets._csv import read_csv
from engine.config import ConfigError
from engine.evaluation import clusters, estimates, metrics
from engine.evaluation.estimates import Estimate
from engine.reporting.tables import percent
from engine.scoring.probability import threshold_logit
from engine.scoring.table import ScoreRow

SHOWN = (estimates.AUROC, estimates.AP, estimates.TPR_AT_1, estimates.TPR_AT_5)
RESAMPLES, SEED = 1000, 0
FEWEST = 10  # pictures of a kind that get a row
VERDICTS = (SYNTHETIC, UNCERTAIN, REAL) = ("synthetic", "uncertain", "real")


@dataclass(frozen=True)
class Judged:
    """A picture's row under one degradation, and the detector's verdict on it."""

    row: ScoreRow
    verdict: str

    @property
    def unit(self) -> str:
        """What a resample draws whole: the generator, or the source of a real picture."""
        return self.row.generator if self.row.label else f"real {self.row.source}"


Pictures = Sequence[Judged]


@dataclass(frozen=True)
class Results:
    """A detector's results: by degradation the pictures, always the same ones in the same order.
    The first degradation is that of the pictures as they are."""

    name: str
    runs: Mapping[str, Pictures]

    @property
    def clean(self) -> str:
        """The degradation that verdicts may flip from."""
        return next(iter(self.runs))


def judged(name: str, rows: Iterable[ScoreRow], verdict: Callable[[float], str]) -> Results:
    """The detector of a table of scores. Raises ConfigError for a picture without a score."""
    runs: defaultdict[str, list[Judged]] = defaultdict(list)
    for row in rows:
        if row.score is None or row.label is None:
            raise ConfigError(f"{name}: expected a label and a score of {row.key}; found none")
        runs[row.degradation].append(Judged(row, verdict(row.score)))
    return Results(name, dict(runs))


def read_rival(name: str, path: Path, own: Results) -> Results:
    """Another detector on the pictures of ours, from a CSV of its scores, under those of our
    degradations that it names.

    The columns are key and degradation as phase eval writes them, score (a probability), and, where
    the detector has a rule of its own, verdict; without one a score above 0.5 is synthetic.

    Raises:
        LayoutError: other columns.
        ConfigError: a picture without a score, or a value that is none.
    """
    columns, table = read_csv(path, "a rival's scores")
    if missing := {"key", "degradation", "score"} - set(columns):
        raise LayoutError(f"{path}: expected columns {', '.join(sorted(missing))}")
    given = {(line["key"], line["degradation"]): line for line in table}

    def theirs(picture: Judged) -> Judged:
        row = picture.row
        line = given.get((row.key, row.degradation), {"score": ""})
        try:
            score = float(line["score"])
            logit = threshold_logit(score)
        except ValueError as error:
            raise ConfigError(
                f"{path}: expected a probability for {row.key} at {row.degradation}; found "
                f"{line['score']!r}"
            ) from error
        verdict = line.get("verdict") or (SYNTHETIC if score > 0.5 else REAL)
        if verdict not in VERDICTS:
            raise ConfigError(f"{path}: expected one of {', '.join(VERDICTS)}; found {verdict!r}")
        return Judged(replace(row, score=score, logit=logit), verdict)

    measured = {degradation for _, degradation in given}
    runs = {t: [*map(theirs, pictures)] for t, pictures in own.runs.items() if t in measured}
    if not runs:
        raise ConfigError(f"{path}: expected scores under {', '.join(own.runs)}; found none")
    return Results(name, runs)


# --- figures


def ranking(pictures: Pictures) -> dict[str, Estimate]:
    """The metrics of SHOWN, intervals over generators and sources, one alone drawn always."""
    rows = [picture.row for picture in pictures]
    measured = metrics.evaluate_rows(rows, 0.5, 0, SEED)
    drawn = clusters.samples(rows, 0.5, RESAMPLES, SEED)
    return {
        name: estimates.estimate(name, measured[name].value, drawn[name], clusters.CONFIDENCE)
        for name in SHOWN
    }


def share(pictures: Pictures, marks: Iterable[bool]) -> Estimate:
    """The share of marked pictures."""
    units = [picture.unit for picture in pictures]
    return clusters.share(list(marks), units, RESAMPLES, SEED)


def called(pictures: Pictures, verdict: str) -> Estimate:
    """The share of pictures with a verdict."""
    return share(pictures, (picture.verdict == verdict for picture in pictures))


def of_class(pictures: Pictures, label: int) -> list[Judged]:
    """The real (0) or the generated pictures (1)."""
    return [picture for picture in pictures if picture.row.label == label]


def by(pictures: Pictures, key: Callable[[ScoreRow], str]) -> dict[str, list[Judged]]:
    """Pictures by a name of their rows, names sorted."""
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for picture in pictures:
        groups[key(picture.row)].append(picture)
    return dict(sorted(groups.items()))


# --- tables: lines of Markdown, without their heads where those do not depend on the pictures


def line(cells: Iterable[object]) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(columns: Sequence[str]) -> list[str]:
    """The first lines of a table."""
    return [line(columns), "|" + "---|" * len(columns)]


def results_table(detectors: Sequence[Results]) -> list[str]:
    """Ranking of all pictures by each detector under each degradation."""
    lines = []
    for detector in detectors:
        for tier, pictures in detector.runs.items():
            counts = f"{len(of_class(pictures, 0))} / {len(of_class(pictures, 1))}"
            shown = (percent(value) for value in ranking(pictures).values())
            lines.append(line([detector.name, tier, counts, *shown]))
    return lines


def verdict_table(detector: Results) -> list[str]:
    """Verdicts on all generated and all real pictures under each degradation."""
    return [
        line([name, tier, len(group), *(percent(called(group, verdict)) for verdict in VERDICTS)])
        for tier, pictures in detector.runs.items()
        for name, group in (("generated", of_class(pictures, 1)), ("real", of_class(pictures, 0)))
    ]


def group_table(
    detector: Results, tier: str, label: int, least: int, key: Callable[[ScoreRow], str]
) -> list[str]:
    """AUROC of groups of a class against all of the other under each degradation, the worst first.

    Args:
        detector: whose results these are.
        tier: the degradation of the verdicts, and of the order.
        label: of the pictures that are grouped.
        least: pictures of a group that gets a row.
        key: gives the name of a row's group.
    """
    groups = {name: group for name, group in by(of_class(detector.runs[tier], label), key).items()
              if len(group) >= least}  # fmt: skip
    rows = []
    for name, group in groups.items():
        aurocs = []
        for pictures in detector.runs.values():
            members = [picture for picture in of_class(pictures, label) if key(picture.row) == name]
            others = of_class(pictures, 1 - label)
            aurocs.append(ranking([*members, *others])[estimates.AUROC])
        shares = (sum(picture.verdict == verdict for picture in group) / len(group)
                  for verdict in VERDICTS)  # fmt: skip
        cells = [name, len(group), *map(percent, shares), *map(percent, aurocs)]
        rows.append((aurocs[list(detector.runs).index(tier)].value, line(cells)))
    named = ["", "pictures", "AI-Generated", "Uncertain", "Real"]
    return head([*named, *(f"AUROC {name}" for name in detector.runs)]) + [
        text for _, text in sorted(rows)
    ]


def alarm_table(detectors: Sequence[Results], kinds: Callable[[ScoreRow], str]) -> list[str]:
    """Share of real pictures called AI-Generated, by what they show, and of generated ones."""
    reals = of_class(detectors[0].runs[detectors[0].clean], 0)
    names = [name for name, group in by(reals, kinds).items() if len(group) >= FEWEST]
    lines = head(["detector", "degradation", "all real", *names, "generated"])
    for detector in detectors:
        for tier, pictures in detector.runs.items():
            groups = by(of_class(pictures, 0), kinds)
            shown = [of_class(pictures, 0), *(groups[name] for name in names)]
            shares = (called(group, SYNTHETIC) for group in [*shown, of_class(pictures, 1)])
            lines.append(line([detector.name, tier, *map(percent, shares)]))
    return lines


def flipped(detector: Results, clean: str) -> list[tuple[str, str, str]]:
    """Of each degradation but that of pictures as they are, `clean`: its name, the share of
    pictures whose verdict is another than there, and that of verdicts turned into their contrary.
    None where the detector has no scores of pictures as they are."""
    before = {picture.row.key: picture.verdict for picture in detector.runs.get(clean, ())}
    rows = []
    for tier, pictures in detector.runs.items():
        if before and tier != clean:
            pairs = [(before[picture.row.key], picture.verdict) for picture in pictures]
            changed = share(pictures, (a != b for a, b in pairs))
            turned = share(pictures, ({SYNTHETIC, REAL} == {a, b} for a, b in pairs))
            rows.append((tier, percent(changed), percent(turned)))
    return rows


def flip_table(detectors: Sequence[Results]) -> list[str]:
    """`flipped` of each detector; pictures as they are are those of the first one."""
    clean = detectors[0].clean
    return [
        line([detector.name, *row]) for detector in detectors for row in flipped(detector, clean)
    ]

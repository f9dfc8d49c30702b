"""Score tables whose reports are kept in tests/golden/reports, and how they are written.

python tests/report_cases.py    # writes them anew, for a change that is meant: read the diff
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.evaluation.analysis import View, analyse  # noqa: E402
from engine.evaluation.benchmark_file import Facts, Part, Published, Reported  # noqa: E402
from engine.evaluation.cells import Pairing  # noqa: E402
from engine.phases import compare  # noqa: E402
from engine.reporting import report, results  # noqa: E402
from engine.runtime.table_writer import TableWriter  # noqa: E402
from engine.scoring.table import COLUMNS, ScoreRow  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "reports"
RUN: dict[str, object] = {
    "command": "main.py --phase eval",
    "weights": {"sha256": "ab12", "step": 1.23456789},
    "timings": [1.5, 2],
    "deep": [{"y": True}],
    "none": {},
}
NASTY = "<b>|\n$_a_\udcff"


def row(label: int | None, logit: float, source: str, generator: str, key: str) -> ScoreRow:
    score = 1 / (1 + math.exp(-logit))
    return ScoreRow(key, source, generator, label, logit, score, "", "none", 64, 64)


def broken(key: str, error: str = "truncated") -> ScoreRow:
    return ScoreRow(key, "coco", "glide", 1, None, None, error, "none", None, None)


def table(sources: Iterable[str] = ("coco",), n: int = 40) -> list[ScoreRow]:
    """In each source `n` real pictures, and half as many of each of two generators."""
    rng = np.random.default_rng(0)
    rows = []
    for source in sources:
        rows += [row(0, rng.normal(-2, 1), source, "real", f"{source}/r{i}") for i in range(n)]
        for generator, mean in (("glide", 0.0), ("sd_v1_4", 2.0)):
            rows += [
                row(1, rng.normal(mean, 1), source, generator, f"{source}/{generator}{i}")
                for i in range(n // 2)
            ]
    return rows


def degraded(rows: Iterable[ScoreRow], name: str, shift: float = 0.0) -> list[ScoreRow]:
    """The rows under a degradation, their logits shifted; those of no logit stay so."""
    return [
        replace(each, degradation=name, logit=None if each.logit is None else each.logit + shift)
        for each in rows
    ]


def jpeg(colour: str) -> bytes:
    """A thumbnail of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def published(**tables: Mapping[str, Mapping[str, object]]) -> Published:
    """Figures of a paper in some of the four tables."""
    empty: dict[str, object] = {name: {} for name in ("cells", "generators", "sources", "averages")}
    return Published("Paper, table 1", "default", {}, (), **(empty | tables))  # type: ignore[arg-type]


def section(text: str, heading: str) -> str:
    """What stands under a heading of a Markdown report."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@dataclass(frozen=True)
class Case:
    """One evaluation to be reported; `thumbnails` by key."""

    rows: list[ScoreRow]
    view: View = field(default_factory=View)
    title: str = "Report"
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


def _plain() -> Case:
    """Names that would break a page, unreadable pictures, too few of one generator."""
    rows = [*table(), row(None, 0.0, "", "", "unlabelled")]
    rows += [row(1, 1.0, "coco", f"rare{NASTY}", f"k{NASTY}{i}") for i in range(2)]
    rows += [broken(f"{NASTY}{i:02}", f"<i>bad</i> | header\r\n# {NASTY}") for i in range(22)]
    view = View(notes=("a note of the benchmark",))
    return Case(rows, view, f"<u>{NASTY}", {"coco/glide14": jpeg("red")})


def _crossed() -> Case:
    """Two sources of real pictures, each against all generators; the mean over cells counts."""
    figures = published(
        cells={"AP": {"coco": {"glide": 95.0, "sd_v1_4": 99.04}, "flickr": {"glide": 85.0}}},
        sources={"AP": {"coco": 92.6, "flickr": 82.4}},
    )
    view = View(Pairing("crossed"), average="cells", published=figures)
    return Case(table(("coco", "flickr")), view)


def _swept() -> Case:
    """Three degradations, one generator unreadable under one of them, reals of two sources."""
    rows = [each for each in table(("coco", "flickr")) if each.source == "coco" or not each.label]
    rows += [replace(broken(f"b{n}"), generator="lost") for n in range(3)]
    blurred = [
        replace(each, error="x", logit=None) if each.generator == "glide" else each
        for each in degraded(rows, "blur:1", 0.5)
    ]
    return Case([*rows, *blurred, *degraded(rows, "jpeg:50", -0.5)])


def _one_class() -> Case:
    """Synthetic pictures alone."""
    return Case([each for each in table() if each.label])


def _reported() -> Case:
    """Figures of a paper, one of them of another number of pictures, and some to name only."""
    figures = published(
        generators={"accuracy": {"glide": 70.0, "sd_v1_4": 90.0}},
        averages={"accuracy": {"generators": 80.5}},
    )
    parts = {"coco": Part(real=40), "glide": Part(synthetic=20), "sd_v1_4": Part(synthetic=21)}
    others = (Reported("Paper, table 9", {"people": 38.7}),)
    return Case(table(), View(published=figures, facts=Facts(parts=parts), reported=others))


CASES = {
    "plain": _plain, "crossed": _crossed, "swept": _swept, "one_class": _one_class,
    "reported": _reported,
}  # fmt: skip


def write(name: str, folder: Path) -> None:
    """Writes the report of a case with its plots, and beside it what else is kept of it."""
    case = CASES[name]()
    found = analyse(case.rows, 0.5, 200, view=case.view)
    report.write_report(folder, case.rows, 0.5, RUN, case.title, found, case.thumbnails)
    (folder / "summary.txt").write_text(report.summary_text(case.rows, 0.5, found) + "\n", "utf-8")
    files = {
        "result": results.result_json(case.rows, 0.5, case.view, found),
        "metrics": results.metrics_json(found),
    }
    for stem, content in files.items():
        text = json.dumps(content, indent=1, allow_nan=False)
        (folder / f"{stem}.json").write_text(text + "\n", "utf-8")


def write_comparison(folder: Path) -> None:
    """Writes three runs, what compares them, and its summary; their folders are named RUNS."""
    folders = []
    for place, name in enumerate(("a", "b|<i>", "c")):
        rng = np.random.default_rng(place)
        rows = [
            replace(each, logit=(each.logit or 0.0) + rng.normal(0, place), degradation=degradation)
            for degradation in ("none", "blur:2")
            for each in table()[place:]
        ]
        folders.append(folder / name)
        folders[-1].mkdir()
        with TableWriter(folders[-1] / "scores.csv", COLUMNS, (), False) as out:
            out.append(astuple(each) for each in rows)
        info = {
            "threshold": 0.5,
            "degradations": ["none", "blur:2"],
            "counts": {},
            "protocol": name,
        }
        (folders[-1] / "run.json").write_text(json.dumps(info))
    (folder / "summary.txt").write_text(compare.compare(folders, folder) + "\n", "utf-8")
    text = (folder / "compare.md").read_text("utf-8").replace(str(folder), "RUNS")
    (folder / "compare.md").write_text(text, "utf-8")


KEPT = ("report.md", "summary.txt", "result.json")
KEPT_COMPARISON = ("compare.md", "summary.txt")

if __name__ == "__main__":
    import tempfile

    for name in (*CASES, "comparison"):
        with tempfile.TemporaryDirectory() as made:
            folder, kept = Path(made), KEPT_COMPARISON if name == "comparison" else KEPT
            write_comparison(folder) if name == "comparison" else write(name, folder)
            (GOLDEN / name).mkdir(parents=True, exist_ok=True)
            for file in kept:
                (GOLDEN / name / file).write_bytes((folder / file).read_bytes())

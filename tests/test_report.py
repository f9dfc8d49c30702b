"""The report's files, what they say, and what they must not say."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import report
from engine.metrics import Estimate, Metrics
from engine.table import ScoreRow

RUN: dict[str, object] = {
    "command": "main.py --phase eval",
    "weights": {"sha256": "ab12"},
    "timings": [1.5, 2],
}
NASTY = "<b>|\n"


def row(label: int | None, logit: float, source: str, generator: str, key: str) -> ScoreRow:
    score = 1 / (1 + math.exp(-logit))
    return ScoreRow(key, source, generator, label, logit, score, "", "", 64, 64)


def broken(key: str, error: str = "truncated") -> ScoreRow:
    return ScoreRow(key, "coco", "glide", 1, None, None, error, "", None, None)


def table(sources: Iterable[str] = ("coco",), n: int = 40) -> list[ScoreRow]:
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


def written(
    folder: Path, rows: list[ScoreRow], run: dict[str, object] = RUN, title: str = "T"
) -> tuple[str, str]:
    report.write_report(folder, rows, 0.5, run, title)
    return (folder / "report.md").read_text("utf-8"), (folder / "report.html").read_text("utf-8")


def without_plots(page: str) -> str:
    return re.sub(r'src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", page)


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_all_files_are_written_and_the_plots_open(tmp_path: Path) -> None:
    files = report.write_report(tmp_path / "new", table(), 0.5, RUN, "Title")
    names = {"report.md", "report.html", "roc.png", "pr.png", "histogram.png", "generators.png"}
    assert {path.name for path in files} == names
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert min(picture.size) > 200
                assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_the_html_holds_its_plots_and_refers_to_nothing_else(tmp_path: Path) -> None:
    _, page = written(tmp_path, table())
    assert page.count('src="data:image/png;base64,') == 4
    rest = without_plots(page)
    assert "http" not in rest and "src=" not in rest and "href=" not in rest
    assert "url(" not in rest and "@import" not in rest
    assert 'name="viewport"' in rest and "prefers-color-scheme: dark" in rest


def test_names_are_escaped(tmp_path: Path) -> None:
    rows = [*table(), broken(f"a{NASTY}b", error="<i>bad</i> | header\r\n# not a heading")]
    rows.append(row(1, 1.0, f"src{NASTY}", f"gen{NASTY}", "x\udcff.png"))
    run = {"command": f"<script>{NASTY}", "undecodable": "\udcff"}
    text, page = written(tmp_path, rows, title=f"<u>{NASTY}", run=run)
    for tag in ("<b>", "<i>", "<u>", "<script>|"):
        assert tag not in text and tag not in page
    assert "a&lt;b&gt;|\\nb" in page
    assert "a&lt;b&gt;\\|\\\\nb" in text
    assert "\n# not a heading" not in text


def test_markdown_tables_keep_their_columns(tmp_path: Path) -> None:
    rows = [*table(), broken("a|b|c\nd|e"), row(1, 1.0, "s|", "g|\n|", "k")]
    text, _ = written(tmp_path, rows)
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_numbers_are_percent_with_their_interval(tmp_path: Path) -> None:
    assert report.percent(Estimate(0.9314, 0.91, 0.949)) == "93.1 [91.0, 94.9]"
    assert report.percent(0.5) == "50.0" and report.percent(None) == "–"
    assert report.percent(Estimate(0.5, math.nan, math.nan)) == "50.0"
    found = report.analyse(table(), 0.5)
    text, page = written(tmp_path, table())
    for name, estimate in found.pooled.estimates.items():
        label = report.NAMES.get(name, name)
        assert f"| {label} | {report.percent(estimate)} |" in text
        assert report.percent(estimate) in page
    cell = found.cells["coco", "sd_v1_4"]
    line = next(line for line in text.splitlines() if line.startswith("| sd_v1_4 |"))
    assert line.startswith("| sd_v1_4 | coco | 40 | 20 | 0 |")
    for name in report.WIDE:
        assert report.percent(cell.estimates[name]) in line


def test_run_information_is_flattened(tmp_path: Path) -> None:
    run = {"a": {"b": 1.23456789, "c": None}, "list": ["x", 2], "deep": [{"y": True}], "none": {}}
    text, _ = written(tmp_path, table(n=4), run=run)
    for line in ("a.b | 1.23457", "a.c | None", "list | x, 2", "deep.0.y | True", "none | {}"):
        assert f"| {line} |" in text


def test_the_first_twenty_unreadable_pictures_are_named(tmp_path: Path) -> None:
    rows = table() + [broken(f"bad{i:02}.png") for i in range(25)]
    rows.append(dataclasses.replace(rows[0], key="nan.png", logit=math.nan))
    for text in written(tmp_path, rows):
        assert "26 without a score; the first 20" in text
        assert "bad19.png" in text and "bad20.png" not in text
    text, _ = written(tmp_path, table())
    assert "None." in text and "without a score" not in text


def test_degradations_have_a_line_each(tmp_path: Path) -> None:
    jpeg = [dataclasses.replace(each, degradation="jpeg 50") for each in table()]
    text, _ = written(tmp_path, table() + jpeg)
    assert "| none | 40 | 40 | 0 |" in text and "| jpeg 50 | 40 | 40 | 0 |" in text
    assert "Degradations" not in written(tmp_path, jpeg)[0]


def test_averages_are_named_and_differ() -> None:
    def cell(value: float) -> Metrics:
        return Metrics(1, 1, {"AP": Estimate(value, value, value)})

    found = report.cell_means({("a", "x"): cell(0.2), ("b", "x"): cell(0.4), ("a", "y"): cell(0.9)})
    assert found["mean over 2 generators"]["AP"] == pytest.approx(0.6)
    assert found["mean over 3 cells"]["AP"] == pytest.approx(0.5)
    assert list(report.cell_means({("a", "x"): cell(0.2)})) == ["mean over 1 generator"]
    assert report.cell_means({}) == {}


def test_each_set_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = table()
    found = report.analyse(rows, 0.5)
    monkeypatch.setattr(report.metrics, "evaluate", lambda *_: pytest.fail("measured again"))
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    assert report.summary_text(rows, 0.5, found)


def test_fakes_alone_have_a_detection_rate_and_no_ranking(tmp_path: Path) -> None:
    fakes = [each for each in table() if each.label == 1]
    text, page = written(tmp_path, fakes)
    for content in (text, without_plots(page), report.summary_text(fakes, 0.5)):
        assert "detection rate" in content
        assert "AUROC" not in content and not re.search(r"\bAP\b", content)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.md", "report.html", "histogram.png", "generators.png"}
    cell = report.result_json(fakes, 0.5)["coco"]["glide"]
    assert cell["AP"] is None and cell["size"] == 20
    rate = report.analyse(fakes, 0.5).cells["coco", "glide"].estimates["detection_rate"]
    assert cell["Accuracy"] == rate.value
    assert set(report.output_json(fakes)["coco"]["glide"]["y_true"]) == {1}


def test_reals_alone_have_their_accuracy(tmp_path: Path) -> None:
    reals = [each for each in table() if each.label == 0]
    text, _ = written(tmp_path, reals)
    assert "accuracy on real" in text and "AUROC" not in text
    assert "accuracy on real" in report.summary_text(reals, 0.5)
    assert report.result_json(reals, 0.5)["coco"]["real"]["size"] == 40
    assert report.output_json(reals)["coco"]["real"]["y_true"] == [0] * 40


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [broken("a.png")],
        [row(None, 1.0, "s", "g", "k")],
        [row(1, 1.0, "s", "g", "k")],
        [row(0, -1.0, "s", "", "k"), row(1, 1.0, "s", "$a^$", "l")],
    ],
    ids=["empty", "error", "unlabelled", "one fake", "two pictures"],
)
def test_tiny_tables_are_reported(tmp_path: Path, rows: list[ScoreRow]) -> None:
    text, page = written(tmp_path, rows)
    assert "Run" in text and "</html>" in page
    assert report.summary_text(rows, 0.5).startswith("percent")
    json.dumps([report.result_json(rows, 0.5), report.output_json(rows)], allow_nan=False)


def test_without_matplotlib_the_tables_remain(tmp_path: Path, no_matplotlib: None) -> None:
    (tmp_path / "roc.png").write_bytes(b"of an earlier report")
    text, page = written(tmp_path, table())
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html"}
    for content in (text, page):
        assert "matplotlib is not installed" in content and "AUROC" in content
        assert "<img" not in content and "![" not in content


def test_a_failed_write_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, _ = written(tmp_path, table())

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path, table(n=8))
    assert (tmp_path / "report.md").read_text("utf-8") == earlier
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]


def test_summary_is_aligned_and_complete() -> None:
    lines = report.summary_text(table(("coco", "flickr")), 0.5).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "pooled over pictures",
        "coco/glide",
        "coco/sd_v1_4",
        "flickr/glide",
        "flickr/sd_v1_4",
        "mean over 2 generators",
        "mean over 4 cells",
    ]
    assert len({len(line) for line in lines}) == 1
    single = report.summary_text(table(), 0.5)
    assert "\nglide  " in single and "cells" not in single


def test_published_json_has_a_cell_per_generator() -> None:
    rows = [*table(("coco", "flickr")), broken("bad.png")]
    result, output = report.result_json(rows, 0.5), report.output_json(rows)
    found = report.analyse(rows, 0.5).cells
    for source in ("coco", "flickr"):
        assert set(result[source]) == set(output[source]) == {"glide", "sd_v1_4"}
        for generator, cell in result[source].items():
            estimates = found[source, generator].estimates
            assert cell["size"] == 60
            assert cell["AP"] == pytest.approx(estimates["AP"].value)
            assert cell["Accuracy"] == pytest.approx(estimates["accuracy"].value)
            lists = output[source][generator]
            assert lists["y_true"] == [0] * 40 + [1] * 20
            scores = [each.score for each in rows if each.source == source and each.score]
            assert set(lists["y_pred"]) <= set(scores)
    json.dumps([result, output], allow_nan=False)


def test_plots_survive_infinite_logits_and_odd_names(tmp_path: Path) -> None:
    rows = [*table(), row(1, 3.0, "coco", "$a^b$", "k"), row(1, 3.0, "coco", "new\nline", "l")]
    rows += [dataclasses.replace(rows[0], logit=-math.inf, score=0.0)]
    files = report.write_report(tmp_path, rows, 0.5, RUN, "T")
    assert "generators.png" in {path.name for path in files}
    with Image.open(io.BytesIO((tmp_path / "histogram.png").read_bytes())) as picture:
        picture.load()

"""The report of an evaluation, its summary and its files: as kept, whole, and safe to open."""

from __future__ import annotations

import base64
import dataclasses
import errno
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from report_cases import (
    CASES,
    GOLDEN,
    KEPT,
    NASTY,
    RUN,
    broken,
    degraded,
    jpeg,
    row,
    section,
    table,
    write,
)  # fmt: skip

from engine.evaluation import metrics
from engine.evaluation.analysis import View, analyse, averages, means, worst_errors
from engine.evaluation.cells import Pairing
from engine.evaluation.estimates import Estimate, Metrics
from engine.reporting import drawing, report, results
from engine.reporting.tables import percent, points
from engine.scoring.table import ScoreRow


def written(
    folder: Path, rows: list[ScoreRow], run: dict[str, object] = RUN, title: str = "T"
) -> tuple[str, str]:
    report.write_report(folder, rows, 0.5, run, title)
    return (folder / "report.md").read_text("utf-8"), (folder / "report.html").read_text("utf-8")


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Plots are laid out, but their files are empty, which saves most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "png", lambda figure: b"a figure")
        yield


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, undrawn: None) -> Path:
    """A folder with the reports of all cases."""
    folder = tmp_path_factory.mktemp("reports")
    for name in CASES:
        (folder / name).mkdir()
        write(name, folder / name)
    return folder


def rounded(number: str) -> str:
    return f"{float(number):.9f}"


@pytest.mark.parametrize("file", KEPT)
@pytest.mark.parametrize("name", CASES)
def test_reports_are_as_kept(reports: Path, name: str, file: str) -> None:
    ours, kept = ((folder / name / file).read_text("utf-8") for folder in (reports, GOLDEN))
    if file.endswith(".json"):  # the last digits may be those of another numpy
        ours, kept = (
            json.loads(text, parse_float=lambda x: f"{float(x):.9f}") for text in (ours, kept)
        )
    assert ours == kept


class Page(HTMLParser):
    """The texts, the addresses and the names of the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.mark.parametrize("name", CASES)
def test_a_page_says_what_the_markdown_says_and_needs_nothing_else(
    reports: Path, name: str
) -> None:
    page = Page((reports / name / "report.html").read_text("utf-8"))
    text = (reports / name / "report.md").read_text("utf-8")
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.tags.count("h2") == text.count("\n## ") and not {"u", "i"} & set(page.tags)
    # The gallery of errors is a table in Markdown alone.
    cells = [
        re.sub(r"\\(.)", r"\1", cell).replace("&lt;", "<").replace("&gt;", ">")
        for line in text.split("## Worst errors")[0].splitlines() if line.startswith("| ")
        for cell in re.split(r" (?<!\\)\| ", line[2:-2]) if not re.fullmatch("---:?|", cell)
    ]  # fmt: skip
    assert len(cells) > 10 and set(cells) <= set(page.texts)
    if name == "plain":
        assert page.tags.count("img") == 1 + 5 and page.texts.count("no picture to show") == 7


def test_the_page_runs_and_loads_nothing_but_its_own(reports: Path) -> None:
    """Its policy names what stands inline by its sum, and refuses the rest."""
    page = (reports / "plain/report.html").read_text("utf-8")
    [rules] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    policy = dict(rule.strip().split(" ", 1) for rule in rules.split(";"))
    assert (policy["default-src"], policy["img-src"]) == ("'none'", "data:")
    for tag in ("style", "script"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_numbers_are_percent_with_their_interval() -> None:
    assert percent(Estimate(0.9314, 0.91, 0.949)) == "93.1 [91.0, 94.9]"
    assert percent(0.5) == "50.0" and percent(None) == "–"
    assert percent(Estimate(0.5, math.nan, math.nan)) == "50.0"
    differences = [points(value) for value in (-0.025, 0.0004, -0.0004, 0.1)]
    assert differences == ["-2.5", "+0.0", "+0.0", "+10.0"]


def test_the_sweep_is_apart_from_the_main_numbers() -> None:
    alone, swept = table(), [*table(), *degraded(table(), "blur:2", 3.0)]
    plain = analyse(alone, 0.5)
    # The order in which a table was filled decides nothing.
    for rows in (swept, swept[::-1]):
        found = analyse(rows, 0.5)
        assert list(found.degradations) == ["none", "blur:2"]
        values = {name: value.value for name, value in found.pooled.estimates.items()}
        assert values == {name: value.value for name, value in plain.pooled.estimates.items()}
    assert plain.degradations == {}
    blurred = analyse(degraded(table(), "blur:2", 3.0), 0.5)
    assert analyse(swept, 0.5).degradations["blur:2"].pooled == blurred.pooled


def test_the_base_is_what_the_view_says() -> None:
    rows = [*table(), *degraded(table(), "jpeg:95", -9.0)]
    found = analyse(rows, 0.5, view=View(base="jpeg:95"))
    assert found.base == "jpeg:95" and list(found.degradations) == ["jpeg:95", "none"]
    assert found.pooled["accuracy_real"].value == 1.0
    result = results.result_json(rows, 0.5, View(base="jpeg:95"))
    assert result["coco"]["glide"]["size"] == 60
    # A table without the base is read by its first degradation.
    assert analyse(degraded(table(), "webp:80"), 0.5).base == "webp:80"


@pytest.mark.parametrize(("unreadable", "warned"), [(0, False), (2, False), (3, True)])
def test_more_than_one_percent_unreadable_is_a_warning(
    tmp_path: Path, unreadable: int, warned: bool
) -> None:
    rows = [*table(n=100)[:198], *(broken(f"{n}.png") for n in range(unreadable))]
    for text in written(tmp_path, rows):
        assert ("could not be scored. Every" in text) == warned


def cell(value: float) -> Metrics:
    return Metrics(1, 1, {"AP": Estimate(value, value, value)})


def test_averages_are_named_and_differ() -> None:
    cells = {("a", "x"): cell(0.2), ("b", "x"): cell(0.4), ("a", "y"): cell(0.9)}
    found = {
        each.kind: each
        for each in averages(cell(0.5), cells, View(average="cells", min_pictures=1))
    }
    assert found["generators"].name == "mean over 2 generators"
    assert found["generators"].values["AP"] == pytest.approx(0.6)
    assert found["cells"].name == "mean over 3 cells"
    assert found["cells"].values["AP"] == pytest.approx(0.5)
    assert found["pictures"].values["AP"] == 0.5
    assert means(cells, 0) == {"a": {"AP": pytest.approx(0.55)}, "b": {"AP": 0.4}}
    alone = averages(cell(0.2), {("a", "x"): cell(0.2)}, View(min_pictures=1))
    assert [each.name for each in alone] == ["pooled over pictures", "mean over 1 generator"]
    assert [each.kind for each in averages(cell(0.2), {}, View())] == ["pictures"]


@pytest.mark.parametrize("headline", ["generators", "cells", "pictures"])
def test_one_average_is_marked(tmp_path: Path, headline: str) -> None:
    rows = table(("coco", "flickr"))
    found = analyse(rows, 0.5, 50, view=View(average=headline))
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    names = {
        "generators": "mean over 2 generators",
        "cells": "mean over 4 cells",
        "pictures": "pooled over pictures",
    }
    for text in ((tmp_path / "report.md").read_text(), report.summary_text(rows, 0.5, found)):
        for kind, name in names.items():
            assert (f"{name} (headline)" in text) == (kind == headline)


def test_a_mean_over_cells_is_marked_where_there_is_one_cell_a_generator() -> None:
    """Where cells and generators are the same, there is but one mean."""
    found = analyse(table(), 0.5, 0, view=View(average="cells"))
    assert found.headline.name == "mean over 2 generators"


def test_each_set_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = table()
    found = analyse(rows, 0.5)
    monkeypatch.setattr(metrics, "evaluate", lambda *_: pytest.fail("measured again"))
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    assert report.summary_text(rows, 0.5, found)


def test_one_class_alone_has_its_rate_and_files() -> None:
    fakes, reals = ([each for each in table() if each.label == label] for label in (1, 0))
    cell = results.result_json(fakes, 0.5)["coco"]["glide"]
    assert cell["AP"] is None and cell["size"] == 20
    rate = analyse(fakes, 0.5).cells["coco", "glide"].estimates["detection_rate"]
    assert cell["Accuracy"] == rate.value
    assert set(results.output_json(fakes)["coco"]["glide"]["y_true"]) == {1}
    summary = report.summary_text(reals, 0.5)
    assert "accuracy on real" in summary and "AUROC" not in summary
    assert results.result_json(reals, 0.5)["coco"]["real"]["size"] == 40
    assert results.output_json(reals)["coco"]["real"]["y_true"] == [0] * 40


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
    json.dumps([results.result_json(rows, 0.5), results.output_json(rows)], allow_nan=False)


def test_without_matplotlib_the_tables_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
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
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        written(tmp_path, table(n=8))
    assert (tmp_path / "report.md").read_text("utf-8") == earlier
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_summary_of_many_cells_has_means_instead(tmp_path: Path) -> None:
    sources = [f"s{place}" for place in range(16)]
    rows = table(sources, n=2)
    found = analyse(rows, 0.5, 0, view=View(min_pictures=1))
    assert len(found.cells) == 32
    lines = report.summary_text(rows, 0.5, found).splitlines()
    names = [line.split("  ")[0] for line in lines[1 : lines.index("")]]
    assert names == [
        "pooled over pictures",
        *sorted(f"source {source}" for source in sources),
        "glide",
        "sd_v1_4",
        "mean over 2 generators (headline)",
        "mean over 32 cells",
    ]
    assert "all 32 cells" in lines[-1]
    report.write_report(tmp_path, rows, 0.5, RUN, "T", found)
    text = (tmp_path / "report.md").read_text()
    assert section(text, "Cells").count("| glide |") == 16


def test_crossed_pairing_and_caps_reach_every_number() -> None:
    rows = table(("coco", "flickr"))
    crossed = analyse(rows, 0.5, 0, view=View(Pairing("crossed")))
    assert set(crossed.cells) == {(s, g) for s in ("coco", "flickr") for g in ("glide", "sd_v1_4")}
    assert {(c.n_real, c.n_synthetic) for c in crossed.cells.values()} == {(40, 40)}
    view = View(Pairing(cap=15, balanced=True))
    capped = analyse(rows, 0.5, 0, view=view)
    assert {(c.n_real, c.n_synthetic) for c in capped.cells.values()} == {(15, 15)}
    assert results.result_json(rows, 0.5, view)["coco"]["glide"]["size"] == 30
    truth = results.output_json(rows, view)["flickr"]["sd_v1_4"]["y_true"]
    assert truth == [0] * 15 + [1] * 15


@pytest.mark.parametrize("source", ["", "glide"])
def test_the_data_set_names_what_has_no_source(source: str) -> None:
    rows = [row(0, -1.0, source, "", "r"), row(1, 1.0, source, "glide", "f")]
    view = View(dataset="Bench")
    assert list(results.result_json(rows, 0.5, view)) == ["Bench"]
    assert list(results.output_json(rows, view)["Bench"]) == ["glide"]
    assert list(results.result_json(table(), 0.5, view)) == ["coco"]


def test_published_json_has_a_cell_per_generator() -> None:
    rows = [*table(("coco", "flickr")), broken("bad.png")]
    result, output = results.result_json(rows, 0.5), results.output_json(rows)
    found = analyse(rows, 0.5).cells
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


def test_worst_errors_are_the_most_confident_ones() -> None:
    rows = [
        row(0, 3.0, "s", "", "b"), row(0, 3.0, "s", "", "a"), row(1, -5.0, "s", "g", "c"),
        row(0, -9.0, "s", "", "right"), row(1, 9.0, "s", "g", "right too"),
        row(None, 9.0, "s", "", "unlabelled"), broken("broken"),
        dataclasses.replace(row(1, 0.0, "s", "g", "nan"), logit=math.nan),
        row(1, 0.0, "s", "g", "on the line"),
    ]  # fmt: skip
    found = [each.key for each in worst_errors(rows, 0.5)]
    assert found == ["c", "a", "b", "on the line"]
    assert [each.key for each in worst_errors(rows, 0.5, count=2)] == ["c", "a"]
    again = [*rows, row(1, -1.0, "s", "g", "c")]
    assert [each.key for each in worst_errors(again, 0.5)] == found
    assert worst_errors(rows[3:5], 0.5) == []


@pytest.mark.parametrize(("threshold", "keys"), [(0.0, ["b", "a"]), (1.0, ["c", "d"])])
def test_worst_errors_of_the_outermost_thresholds(threshold: float, keys: list[str]) -> None:
    rows = [
        row(0, -3.0, "s", "", "a"), row(0, 3.0, "s", "", "b"),
        row(1, -3.0, "s", "g", "c"), row(1, 3.0, "s", "g", "d"),
    ]  # fmt: skip
    assert [each.key for each in worst_errors(rows, threshold)] == keys


def test_worst_errors_are_shown_where_there_are_thumbnails(tmp_path: Path) -> None:
    rows = [row(0, 3.0, "s", "", f"a{NASTY}"), row(1, -2.0, "", "g", "b.png")]
    files = report.write_report(
        tmp_path, rows, 0.5, RUN, "T", thumbnails={rows[0].key: jpeg("red")}
    )
    assert tmp_path / "errors.png" in files
    with Image.open(tmp_path / "errors.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or []}
    assert any(red > 240 and green < 20 for red, green, _ in colours)
    text, _ = written(tmp_path, rows)
    assert "| b.png | synthetic: g | 0.1192 | -2.00 | real |" in text
    assert "errors.png" not in text and not (tmp_path / "errors.png").exists()
    assert "Worst errors" not in written(tmp_path, [row(0, -3.0, "s", "", "a.png")])[0]

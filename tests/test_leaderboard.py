"""The leaderboard: ranks, groups, strangers' tables, what is marked, and its page in a browser."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from cli_runner import script
from page_server import WIDTHS, browser, check_accessible, opened, served  # noqa: F401
from playwright.sync_api import Browser, expect

from engine.evaluation.metrics import auroc
from engine.pages.board_page import plot_of, render, shade
from engine.pages.server import Parts, ServerOptions, application
from engine.runtime.table_writer import TableWriter, csv_text
from engine.scoring.probability import score_of
from engine.scoring.table import COLUMNS, ScoreRow
from scripts import leaderboard

GENERATORS = ("glide", "sd", "flux", "gan", "dalle", "<b>\u202e")


def rows(gap: float, seed: int = 0) -> list[ScoreRow]:
    """Six generators and five sources of 20 pictures each under two degradations; synthetic logits
    are `gap` above real ones."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    results = []
    for fake, names in ((1, GENERATORS), (0, ("a", "b", "c", "d", "e"))):
        for name in names:
            for number in range(20):
                logit = round(float(gap * (fake - 0.5) + shared.normal() + rng.normal() / 4), 6)
                key, digest = f"{name}/{number}", f"{name}{number}"
                pool, maker = ("", name) if fake else (name, "")
                results.append(ScoreRow(key, pool, maker, fake, logit, score_of(logit), "", "none",
                                        9, 9, digest))  # fmt: skip
    weaker = [replace(row, degradation="jpeg:50", logit=(row.logit or 0) / 2) for row in results]
    return [*results, *weaker]


def write_run(folder: Path, table: list[ScoreRow], **info: object) -> Path:
    folder.mkdir(parents=True)
    with TableWriter(folder / "scores.csv", COLUMNS, (), False) as out:
        out.append(astuple(row) for row in table)
    said = {"threshold": 0.5, "degradations": ["none", "jpeg:50"], "device": "cpu", **info}
    (folder / "run.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two good runs that differ in nothing but noise, a weak one, and two strangers' tables."""
    root = tmp_path_factory.mktemp("runs")
    timed = {"seconds": 2.2, "counts": {"scored_now": 220}, "peak_memory_gib": 1.25}
    good = write_run(root / "good", rows(4), trained_on=["glide"], **timed)
    twin = write_run(root / "twin", rows(4, seed=1), **timed | {"seconds": 44.0})
    weak = write_run(root / "weak", rows(1))
    turned, partial = root / "turned.csv", root / "partial.csv"
    table = [row for row in rows(3) if row.degradation == "none"]
    with turned.open("w", newline="") as stream:
        csv.writer(stream).writerows([["digest", "logit"], *((r.digest, -r.logit) for r in table)])
    with partial.open("w", newline="") as stream:
        lines = [(row.key, row.score) for row in table if row.key != "sd/3"]
        csv.writer(stream).writerows([["key", "score"], *lines, ("sd/3", ""), ("other", 0.5)])
    return [str(good), str(twin), f"Weak one={weak}", f"theirs={turned}", str(partial)]


@pytest.fixture(scope="module")
def page(entries: list[str]) -> str:
    return render(leaderboard.board_of(entries, resamples=200))


def test_files_of_a_board(
    entries: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = script(capsys, "leaderboard.py: ", leaderboard.main)
    kinds = tmp_path / "kinds.csv"
    kinds.write_text("image,kind\n" + "".join(f"a/{n},photo\nb/{n},art\n" for n in range(20)))
    options = ("--resamples", 200, "--kinds", kinds, "--benchmark", "spai")
    done = run(*entries, "--output", tmp_path / "board", *options)
    assert (done.status, done.out) == (0, f"{tmp_path / 'board' / 'index.html'}\n")
    assert "turned round" in done.err and "1 of 220 pictures have no score" in done.err
    table = list(csv.DictReader((tmp_path / "board" / "leaderboard.csv").open()))
    names = [row["entry"] for row in table]
    assert set(names[:2]) == {"good", "twin"} and names[2:] == ["partial", "Weak one", "theirs"]
    assert table[0]["group"] == table[1]["group"] == "1" < table[3]["group"] < table[4]["group"]
    base = [row for row in rows(1) if row.degradation == "none"]
    value = auroc([row.label for row in base], [row.logit for row in base])
    assert float(table[3]["AUROC"]) == pytest.approx(value)
    assert float(table[3]["auroc_low"]) < value < float(table[3]["auroc_high"])
    assert table[names.index("good")]["milliseconds"] == "10.0"
    assert [row["missing"] for row in table] == ["0", "0", "1", "0", "0"]
    assert [row["turned"] for row in table] == ["False"] * 4 + ["True"]
    weak = table[3]
    assert weak["degradation: jpeg:50"] == weak["degradation: none"] == weak["AUROC"]
    assert weak["kind: photo"] == weak["source: a"] and weak["generator: flux"]
    markdown = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "Weak one" in markdown and "Learnt from glide" in markdown
    page = (tmp_path / "board" / "index.html").read_text()
    assert "arXiv 2411.19417" in page and "Reported, not measured" in page and "†" in page


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("key\na\n", "logit or score"),
        ("name,score\na,1\n", "digest"),
        ("key,score\nsd/1,2\n", "0 to 1"),
        ("key,logit\nsd/1,nan\n", "finite"),
        ("key,score\nnothere,0.5\n", "found none by key"),
        ("key,score\nsd/1,0.5\nsd/1,0.6\n", "found 'sd/1' again"),
        ("key,score\nsd/1,0.5\n", "found 0 real and 1 synthetic"),
    ],
)
def test_tables_that_are_refused(
    entries: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    named: str,
) -> None:
    (tmp_path / "theirs.csv").write_text(text)
    run = script(capsys, "leaderboard.py: ", leaderboard.main)
    refused = run(entries[0], tmp_path / "theirs.csv", "--output", tmp_path / "out")
    assert named in refused.complaint and not (tmp_path / "out").exists()


def test_labels_come_from_one_evaluation_at_least(
    entries: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = script(capsys, "leaderboard.py: ", leaderboard.main)
    assert "phase eval" in run(entries[4], "--output", tmp_path / "out").complaint
    other = [replace(row, label=1 - (row.label or 0)) for row in rows(4)]
    opposite = write_run(tmp_path / "opposite", other)
    assert "one label" in run(entries[0], opposite, "--output", tmp_path / "out").complaint


def test_shades_and_the_plot(entries: list[str]) -> None:
    assert [shade(value) for value in (0, 0.5, 0.549, 0.55, 0.999, 1)] == [0, 0, 0, 1, 9, 10]
    plot = plot_of(leaderboard.board_of(entries[:3], resamples=20))
    assert plot is not None and len(plot.dots) == 2  # the weak run's time is not known
    first, second = sorted(plot.dots, key=lambda dot: dot.x)
    assert (first.name, second.name) == ("good", "twin")
    assert plot_of(leaderboard.board_of([entries[2]], resamples=20)) is None


def test_names_of_strangers_are_harmless(page: str) -> None:
    assert "&lt;b&gt;\\u202e" in page and "<b>" not in page and "\u202e" not in page
    assert csv_text([("=1", 2.5, None)]) == "'=1,2.5,\n"


# --- in a browser


@pytest.fixture(scope="module")
def address(page: str) -> Iterator[str]:
    with served(application(Parts(board=page), ServerOptions())) as at:
        yield at


def names(page: object) -> list[str]:
    return page.locator("#ranking tbody tr:visible").evaluate_all(  # type: ignore[attr-defined]
        "rows => rows.map(row => row.dataset.name)"
    )


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_sorts_filters_and_keeps_its_state(
    browser: Browser,  # noqa: F811
    address: str,
    page: str,
    tmp_path: Path,
    width: int,
) -> None:
    file = tmp_path / "index.html"
    file.write_text(page, encoding="utf-8")
    with opened(browser, file.as_uri(), width) as shown:
        assert len(names(shown)) == 5
        check_accessible(shown)
        shown.locator("#ranking").get_by_role("button", name="Detector").click()
        assert names(shown)[0] == "good"
        shown.locator("#ranking").get_by_role("button", name="Detector").click()
        assert names(shown) == ["Weak one", "twin", "theirs", "partial", "good"]
        shown.get_by_label("Show entries named").fill("t")
        expect(shown.locator("#shown")).to_have_text("3 of 5")
        state = shown.url.partition("#")[2]
    with opened(browser, f"{address}leaderboard#{state}", width, color_scheme="dark") as shown:
        assert names(shown) == ["twin", "theirs", "partial"]
        assert shown.get_by_label("Show entries named").input_value() == "t"
        check_accessible(shown)


def test_the_server_shows_the_page_by_the_pages_own_policy(address: str) -> None:
    answer = httpx.get(address, follow_redirects=True)
    assert answer.url.path == "/leaderboard"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'sha256-" in policy and "frame-ancestors 'none'" in policy
    assert httpx.post(f"{address}api/score").status_code == 404

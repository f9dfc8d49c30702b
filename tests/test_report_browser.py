"""The reports in a browser: they need no network, show all pictures, and fit any window."""

from __future__ import annotations

import html
import io
import json
import math
import shutil
import subprocess
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.evaluation import analysis
from engine.phases import compare
from engine.reporting import report
from engine.runtime.table_writer import TableWriter
from engine.scoring.table import COLUMNS, ScoreRow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]
# The page stands in a frame, for a window has a least width, and says what it finds there.
WRAPPER = """<!DOCTYPE html><body><iframe width="{width}" height="900" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  const images = [...page.images];
  document.body.textContent = JSON.stringify({{
    images: images.length,
    loaded: images.filter(image => image.complete && image.naturalWidth > 0).length,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    width: page.documentElement.clientWidth,
    requests: frame.performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:")),
    buttons: page.querySelectorAll("button").length,
    tables: page.querySelectorAll("table").length,
    background: frame.getComputedStyle(page.body).backgroundColor,
  }});
}};
</script>"""


def opened(folder: Path, page: str, width: int) -> dict[str, Any]:
    """What the wrapper finds in a page; fails where the console has an error."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(width=width, page=html.escape(page)), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom",
            wrapper.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    start, end = done.stdout.index("{"), done.stdout.rindex("}") + 1
    return dict(json.loads(html.unescape(done.stdout[start:end])))


def rows(name: str) -> list[ScoreRow]:
    """Pictures of two sources and two generators under two degradations, one with a long name."""
    rng = np.random.default_rng(0)
    found = []
    for source in ("coco", "a" * 80):
        for generator in ("", "glide", f"org@{'long-' * 20}{name}"):
            for i in range(8):
                logit = rng.normal(1 if generator else -1, 1.5)
                key = f"{source}/{generator}/{i}" + "x" * (150 if i == 0 else 0)
                score = 1 / (1 + math.exp(-logit))
                label = int(bool(generator))
                found.append(
                    ScoreRow(key, source, generator, label, logit, score, "", "none", 9, 9)
                )
    found.append(ScoreRow("b", "coco", "glide", 1, None, None, "e" * 200, "none", None, None))
    return found + [
        replace(each, degradation="jpeg:50", logit=each.logit and each.logit - 0.5)
        for each in found
    ]


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (90, 40), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """Pages and how many pictures each has."""
    folder = tmp_path_factory.mktemp("pages")
    table = rows("<b>é")
    found = analysis.analyse(table, 0.5, 50)
    worst = analysis.worst_errors(found.rows, 0.5)
    thumbnails = {row.key: jpeg() for row in worst[1:]}
    run = {"command": "y" * 500, "<script>throw 1</script>": "</script><script>throw 2</script>"}
    report.write_report(folder, table, 0.5, run, "T" * 200, found, thumbnails)
    runs = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        with TableWriter(folder / name / "scores.csv", COLUMNS, (), False) as out:
            out.append(astuple(row) for row in table)
        (folder / name / "run.json").write_text('{"threshold": 0.5}')
        runs.append(folder / name)
    compare.compare(runs, folder)
    return {
        "report": ((folder / "report.html").read_text("utf-8"), 7 + len(thumbnails)),
        "compare": ((folder / "compare.html").read_text("utf-8"), 2),
    }


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_page_is_whole_offline_and_fits(
    tmp_path: Path, pages: dict[str, tuple[str, int]], name: str, width: int
) -> None:
    page, pictures = pages[name]
    found = opened(tmp_path, page, width)
    assert found["images"] == found["loaded"] == pictures
    assert found["requests"] == []
    assert found["overflow"] == 0 and width - 20 <= found["width"] <= width
    assert found["buttons"] == found["tables"] > 3


def test_the_browser_would_tell(tmp_path: Path) -> None:
    """The checks above fail where they should."""
    page = (
        '<body><img src="data:image/png;base64,AAAA"><img src="http://example.invalid/a.png">'
        '<div style="width: 2000px">wide</div>'
    )
    with pytest.raises(AssertionError, match="CONSOLE"):
        opened(tmp_path, "<script>throw 1</script>", 400)
    found = opened(tmp_path, page, 400)
    assert found["requests"] == ["http://example.invalid/a.png"]
    assert found["images"] == 2 and found["loaded"] == 0 and found["overflow"] > 1000

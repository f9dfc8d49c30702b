"""The demo in a real browser: pictures in, verdicts out, with the keyboard, at a phone's width."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLE, make_picture
from page_server import WIDTHS, StubJudge, browser, check_accessible, opened, served  # noqa: F401
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from engine.pages.scoring_queue import ScoringQueue
from engine.pages.server import Parts, ServerOptions, application
from engine.pages.uploads import UploadLimits

pytestmark = pytest.mark.browser
PASTE = """async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
  const png = await new Promise(done => canvas.toBlob(done, "image/png"));
  const data = new DataTransfer();
  data.items.add(new File([png], "pasted.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server with a judge whose card has a table."""
    path = tmp_path_factory.mktemp("demo") / "stub.safetensors"
    path.with_suffix(".md").write_text("# T\n\n## Results\n\n| a | b |\n|---|---|\n| c | 9 |\n")
    options = ServerOptions(per_minute=1000, uploads=UploadLimits(megabytes=1))
    with served(application(Parts(ScoringQueue(StubJudge(path), 8)), options)) as at:
        yield at


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures, a broken file, and one that is too large."""
    paths = [tmp_path / name for name in ("one.png", "two.png", "broken.png", "huge.bmp")]
    for number, path in enumerate(paths[:2]):
        make_picture(number, bool(number), (300, 200)).save(path)
    paths[2].write_bytes(b"broken")
    Image.fromarray(np.zeros((700, 700, 3), dtype=np.uint8)).save(paths[3])
    return paths


def card(page: Page, name: str) -> Locator:
    return page.locator(".card").filter(has=page.get_by_role("heading", name=name, exact=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_get_verdicts(
    browser: Browser,  # noqa: F811
    address: str,
    pictures: list[Path],
    width: int,
    scheme: str,
) -> None:
    with opened(browser, address, width, color_scheme=scheme) as page:
        page.locator("#pictures").set_input_files(pictures)
        expect(page.locator("#summary tbody tr")).to_have_count(4)
        expect(page.locator(".verdict")).to_have_count(2)
        expect(page.locator(".error")).to_have_count(2)
        expect(card(page, "broken.png")).to_contain_text("not a picture")
        expect(card(page, "huge.bmp")).to_contain_text("larger than 1")
        expect(page.locator(".card details").first).to_contain_text("painter 1")
        page.locator(".reading summary").click()
        expect(page.locator(".card_text")).to_contain_text("9")
        check_accessible(page)


def test_more_is_told_on_demand(browser: Browser, address: str, pictures: list[Path]) -> None:  # noqa: F811
    permitted = ["clipboard-read", "clipboard-write"]
    with opened(browser, address, permissions=permitted) as page:
        page.locator("#pictures").set_input_files(pictures[0])
        explain = page.get_by_role("button", name="What it rests on")
        explain.focus()
        page.keyboard.press("Enter")
        drawing = page.get_by_alt_text("What the score of one.png rests on")
        expect(drawing).to_be_visible()
        assert drawing.evaluate("image => image.naturalWidth") >= 480
        expect(explain).to_be_focused()
        explain.click()
        expect(drawing).to_have_count(0)
        page.get_by_role("button", name="Does it hold?").click()
        expect(page.locator("dl").first).to_contain_text("of 4 re-encodings")
        page.get_by_role("button", name="Copy JSON").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText().then(JSON.parse)")
        assert copied["path"] == "one.png" and copied["stability"]["of"] == 4
        page.get_by_role("button", name="Remove").click()
        expect(page.locator(".card")).to_have_count(0)


def test_several_pictures_are_a_table(
    browser: Browser,  # noqa: F811
    address: str,
    pictures: list[Path],
) -> None:
    with opened(browser, address) as page:
        page.locator("#pictures").set_input_files([EXAMPLE, *pictures[:3]])
        page.evaluate(PASTE)
        expect(page.locator(".verdict")).to_have_count(4)
        page.get_by_role("button", name="Score", exact=True).click()
        shown = page.locator("#summary tbody td:nth-child(2)").all_inner_texts()
        assert shown[-1] == "–" and sorted(shown[:-1], reverse=True) == shown[:-1]
        expect(page.locator("th[aria-sort=descending]")).to_have_text("Score")
        with page.expect_download() as waited:
            page.get_by_role("button", name="Download CSV").click()
        rows = list(csv.DictReader(io.StringIO(waited.value.path().read_text())))
        assert [row["path"] for row in rows][1:] == ["one.png", "two.png", "broken.png",
                                                     "pasted.png"]  # fmt: skip
        assert rows[3]["error"]
        scores = {f"{float(row['score']):.3f}" for row in rows if row["score"]}
        assert scores == set(shown[:-1])

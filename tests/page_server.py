"""The server of the pages inside the tests' process, and a browser to look at it with."""

from __future__ import annotations

import base64
import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from datasets import Record
from datasets._images import UnreadablePicture, decode, read_bytes
from engine.pages.scoring_queue import About, Wishes

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
WIDTHS = (360, 1280)


class StubJudge:
    """A judge without a detector: the mean of a picture's pixels is its score. `pause`: seconds
    that each request takes."""

    def __init__(self, weights: Path = Path("stub.safetensors"), pause: float = 0.0) -> None:
        rule = {"threshold": 0.5, "band": [0.4, 0.6], "prevalence": 0.5}
        self.about, self.pause = About("default", "Stub", weights, "0" * 64, rule, True), pause

    def __call__(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        time.sleep(self.pause)
        return [self._answer(record, wishes) for record in records]

    def _answer(self, record: Record, wishes: Wishes) -> dict[str, Any]:
        answer: dict[str, Any] = {"path": record.key, "score": None, "logit": None, "label": None}
        answer |= {"width": None, "height": None, "error": None, "notes": [], **self.about.rule}
        try:
            image = decode(read_bytes(record))
        except UnreadablePicture as error:
            return answer | {"error": str(error)}
        score = round(float(np.asarray(image).mean()) / 255, 6)
        answer |= {"score": score, "logit": 0.0, "width": image.width, "height": image.height}
        answer["label"] = "synthetic" if score > 0.6 else "real" if score < 0.4 else "uncertain"
        if wishes.stability:
            answer["stability"] = {"held": 3, "of": 4, "scores": {"jpeg:85": score, "b": None}}
        if wishes.credentials:
            told = [{"kind": "generator", "text": "painter 1", "where": "PNG parameters"}]
            signed = {"state": "none", "reasons": [], "manifests": []}
            answer["credentials"] = {"statements": told, "c2pa": signed, "problems": []}
        if wishes.explain:
            buffer = io.BytesIO()
            image.resize((480, 320)).save(buffer, "PNG")
            answer["explanation"] = base64.b64encode(buffer.getvalue()).decode()
        return answer


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """The address at which a thread of this process serves an application."""
    from engine.pages.server import address_of, listening, server_of

    with listening("127.0.0.1", 0) as listener:
        server = server_of(app)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Where there is none the skip says how to get it; CI must have it."""
    if not CHROMIUM:
        assert not os.environ.get("NEEDS_BROWSER"), "expected Chromium; found none"
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        expect.set_options(timeout=20_000)
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, address: str, width: int = 1280, **options: object) -> Iterator[Page]:
    """A page at an address, in a context of its own. Fails afterwards where its console had an
    error, or it asked another host."""
    host = address.split("/")[2] if address.startswith("http") else ""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.on("request", lambda sent: problems.append(sent.url) if foreign(sent.url, host) else None)
    try:
        page.goto(address)
        yield page
    finally:
        context.close()
    assert problems == []


def foreign(url: str, host: str) -> bool:
    """Whether an address is of another host than the page's; pictures in memory are of none."""
    return not url.startswith((f"http://{host}/", "blob:", "data:", "file:"))


def check_accessible(page: Page) -> None:
    """Fails for findings of axe-core that are serious or critical, and for a page that is wider
    than its window."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"], v["nodes"][0].get("failureSummary"))
               for v in found if v["impact"] in ("serious", "critical")]  # fmt: skip
    assert serious == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

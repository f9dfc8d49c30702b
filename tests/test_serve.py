"""scripts/serve.py with a detector: the numbers of the command line, and how the program ends."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cli_runner import Cli, cli, script, weights  # noqa: F401
from conftest import EXAMPLE, ROOT, make_picture
from page_server import free_port
from PIL import Image
from starlette.testclient import TestClient

from engine.pages.server import Parts, ServerOptions, application
from scripts import serve


@pytest.fixture(scope="module")
def client(weights: Path) -> Iterator[TestClient]:  # noqa: F811
    queue = serve.queue_of(serve.parse(["--weights", str(weights), "--device", "cpu"]))
    with TestClient(application(Parts(queue), ServerOptions()), "http://localhost") as made:
        yield made


def png(number: int, size: tuple[int, int] = (72, 64)) -> bytes:
    buffer = io.BytesIO()
    make_picture(number, bool(number % 2), size).save(buffer, "PNG")
    return buffer.getvalue()


def form(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", content)) for number, content in enumerate(pictures)]


def test_scores_are_those_of_the_command_line(
    client: TestClient,
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = [png(0), png(1, (200, 31)), EXAMPLE.read_bytes(), b"no picture"]
    for number, content in enumerate(contents):
        Path(f"{number}.png").write_bytes(content)
    names = [f"{number}.png" for number in range(len(contents))]
    expected = cli("--json", "--stability", "--credentials", "--input", *names).rows
    assert [bool(row["error"]) for row in expected] == [False, False, False, True]
    answer = client.post("/api/score?stability=true&credentials=true", files=form(*contents))
    assert answer.status_code == 200 and answer.json() == expected
    [alone] = client.post("/api/score", files=form(contents[1])).json()
    assert alone == {**cli("--json", "--input", "1.png").rows[0], "path": "0.png"}


def test_the_explanation_is_a_drawing_and_moves_no_score(client: TestClient) -> None:
    same = png(3)
    plain = client.post("/api/score", files=form(same, b"broken")).json()
    explained = client.post("/api/score?explain=true", files=form(same, b"broken")).json()
    drawing = Image.open(io.BytesIO(base64.b64decode(explained[0].pop("explanation"))))
    assert drawing.format == "PNG" and drawing.width >= 480
    assert explained[1].pop("explanation") is None
    assert explained == plain


def test_wrong_use_is_told(
    weights: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = script(capsys, "serve.py: ", serve.main)
    assert "--port" in run("--port", "x").err
    assert "--runs" in run("--no_scoring").err
    assert "nothere" in run("--port", free_port(), "--weights", "nothere").complaint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in run("--port", port, "--weights", weights).complaint


@pytest.mark.slow
def test_sigterm_lets_answers_in_work_end(weights: Path) -> None:  # noqa: F811
    port = free_port()
    words = [sys.executable, ROOT / "scripts" / "serve.py", "--weights", weights, "--port", port]
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stderr is not None
        address = server.stdout.readline().strip()
        assert address == f"http://127.0.0.1:{port}/"
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                httpx.post, f"{address}api/score?stability=true",
                files=form(*[png(1, (600, 600))] * 3), timeout=120,
            )  # fmt: skip
            while not httpx.get(f"{address}health", timeout=120).json()["queue"]["taken"]:
                time.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            assert len(asked.result().json()) == 3
        assert server.wait(60) == -signal.SIGTERM
        assert "Traceback" not in server.stderr.read()

"""The server's JSON API: the command line's numbers, its limits, and what it refuses."""

from __future__ import annotations

import base64
import io
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
from conftest import make_picture
from page_server import StubJudge, served
from PIL import Image
from starlette.testclient import TestClient

from engine.pages.guard import Rate, host_of
from engine.pages.scoring_queue import ScoringQueue
from engine.pages.server import Parts, ServerOptions, application
from engine.pages.uploads import UploadLimits

LIMITS = UploadLimits(megabytes=4, pictures=5, seconds=5)


def parts(places: int = 8, pause: float = 0.0) -> Parts:
    return Parts(ScoringQueue(StubJudge(pause=pause), places))


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = application(parts(), ServerOptions(per_minute=10_000, uploads=LIMITS))
    with TestClient(app, base_url="http://localhost") as made:
        yield made


def png(number: int = 0, size: tuple[int, int] = (72, 64)) -> bytes:
    buffer = io.BytesIO()
    make_picture(number, bool(number % 2), size).save(buffer, "PNG")
    return buffer.getvalue()


def noise(megabytes: float) -> bytes:
    """A bitmap, of which nothing is compressed."""
    side = int((megabytes * 2**20 / 3) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def form(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.png", content)) for number, content in enumerate(pictures)]


# --- what is answered


def test_nothing_touches_the_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form's file of over 1 MB would be spooled; here there is no folder to spool to."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with pytest.raises(OSError, match="nonexistent"), tempfile.TemporaryFile():
        pass
    answer = client.post("/api/score", files=form(noise(3)))
    assert answer.status_code == 200 and answer.json()[0]["error"] is None


def test_names_and_order_are_kept(client: TestClient) -> None:
    files = [("files", (name, png())) for name in ("a\u202eb.png", "ä/b.png", "x" * 500)]
    answers = client.post("/api/score", files=files).json()
    assert [answer["path"] for answer in answers] == ["a_b.png", "ä/b.png", "x" * 200]
    images = [base64.b64encode(png(number)).decode() for number in range(3)]
    by_json = client.post("/api/score", json={"images": images}).json()
    assert [answer["path"] for answer in by_json] == ["images[0]", "images[1]", "images[2]"]
    by_form = client.post("/api/score", files=form(*map(png, range(3)))).json()
    assert [a["score"] for a in by_json] == [a["score"] for a in by_form]


def test_what_there_is_besides(client: TestClient) -> None:
    rule = client.get("/api/detector").json()
    assert (rule["detector"], rule["threshold"], rule["band"]) == ("default", 0.5, [0.4, 0.6])
    assert client.get("/health").json()["queue"] == {"taken": 0, "places": 8}
    described = client.get("/openapi.json").json()["paths"]["/api/score"]["post"]
    assert "multipart/form-data" in described["requestBody"]["content"]
    assert client.get("/docs").status_code == 404


# --- what is refused


@pytest.mark.parametrize(
    ("sent", "status", "named"),
    [
        ({}, 415, "no Content-Type"),
        ({"content": b"a", "headers": {"Content-Type": "text/plain"}}, 415, "text/plain"),
        ({"data": {"files": "text"}, "files": [("other", b"a")]}, 400, "found 0"),
        ({"files": form(*[b"a"] * 6)}, 400, "files is 5"),
        ({"files": form(noise(4.2))}, 413, "4 MB"),
        ({"json": {"images": ["a" * 5 * 2**20]}}, 413, "4 MB"),
        ({"json": {"images": []}}, 400, "found 0"),
        ({"json": {"images": ["aGk="] * 6}}, 400, "found 6"),
        ({"json": {"images": ["äöü"]}}, 400, "base64"),
        ({"json": {"images": ["http://localhost/a.png"]}}, 400, "base64"),
        ({"json": ["a"]}, 400, "other JSON"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "JSON"),
        (
            {"content": b"garbage", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            "form",
        ),
        ({"content": b"a", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        (
            {
                "content": b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n',
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            "found 0",
        ),
    ],
    ids=lambda value: value if isinstance(value, (int, str)) else "",
)
def test_bodies_that_are_refused(
    client: TestClient, sent: dict[str, object], status: int, named: str
) -> None:
    answer = client.post("/api/score", **sent)  # type: ignore[arg-type]
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert named in answer.json()["error"] and "\n" not in answer.json()["error"]
    assert client.get("/health").json()["queue"]["taken"] == 0


def test_other_hosts_and_other_sites_are_refused(client: TestClient) -> None:
    def status(method: str = "GET", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.request(method, "/api/score", headers=named).status_code

    assert status(Host="evil.example") == status("POST", Host="localhost.evil.example") == 421
    assert status("POST", Origin="http://evil.example") == 403
    assert status("POST", Origin="null") == 403
    assert status("POST", Origin="http://localhost:1") == 403
    assert status("POST", Sec_Fetch_Site="cross-site") == 403
    assert status("POST", Origin="http://localhost") == 415
    assert status("POST", Host="127.0.0.1:8000", Origin="http://127.0.0.1:8000") == 415
    assert status("POST", Host="[::1]:8000") == 415
    answer = client.post("/api/score", headers={"Origin": "http://localhost"})
    assert "access-control-allow-origin" not in answer.headers


def test_every_answer_has_the_policy(client: TestClient) -> None:
    paths = ("/", "/static/demo.js", "/health", "/nothing")
    for answer in [*map(client.get, paths), client.get("/", headers={"Host": "evil"})]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert "<script>" not in page and "style=" not in page and "onclick" not in page


def test_hosts_are_read_out_of_headers() -> None:
    named = ["a:1", "A", "http://a:1", "[::1]:8", "", "a:b", "[", "user@a"]
    assert [host_of(text) for text in named] == ["a", "a", "a", "::1", "", "a", "", "a"]


def test_the_rate_is_each_clients_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rate = Rate(2)
    assert [rate.wait("a"), rate.wait("a"), rate.wait("b")] == [0, 0, 0]
    assert rate.wait("a") == 60
    now = 59
    assert rate.wait("a") == 1
    now = 60
    assert [rate.wait("a"), rate.wait("a"), rate.wait("a")] == [0, 0, 60]


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    app = application(parts(), ServerOptions(per_minute=2))
    with TestClient(app, "http://localhost") as made:
        statuses = [made.post("/api/score", files=form(b"x")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert 0 < int(made.post("/api/score").headers["retry-after"]) <= 60
        assert made.get("/health").status_code == 200


# --- many at once


def test_a_slow_client_is_given_up_and_others_are_answered() -> None:
    options = ServerOptions(uploads=UploadLimits(seconds=3))
    app = application(parts(places=2), options)
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as http:
        port = int(address.rsplit(":", 1)[1].strip("/"))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as slow:
            head = "POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
            slow.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
            assert http.post("/api/score", files=form(png())).status_code == 200
            assert b" 408 " in slow.recv(100)
        assert http.get("/health").json()["queue"]["taken"] == 0


def test_two_hundred_requests_at_once() -> None:
    """Each is answered, by a score or by the word that all places are taken."""
    content, started = noise(0.25), threading.Barrier(200)
    options = ServerOptions(per_minute=1000, uploads=UploadLimits(seconds=120))
    app = application(parts(places=4, pause=0.02), options)
    patient = httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None))
    with served(app) as address, ThreadPoolExecutor(200) as pool, patient as http:
        expected = http.post(f"{address}api/score", files=form(content)).json()

        def ask(_: int) -> httpx.Response:
            started.wait()
            return http.post(f"{address}api/score", files=form(content))

        before = psutil.Process().memory_info().rss
        answers = list(pool.map(ask, range(200)))
        grown = psutil.Process().memory_info().rss - before
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429} and counts[200] >= 4, counts
    assert all(a.json() == expected for a in answers if a.status_code == 200)
    assert all(a.headers["retry-after"] for a in answers if a.status_code == 429)
    # The clients of this process hold a form each, too.
    assert grown < 200 * 6 * len(content), grown

"""A local web server that stands for the hub, for ModelScope and for Zenodo."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from archive_makers import pictures
from huggingface_hub import constants

from engine.fetching import download
from engine.fetching import services as _services
from engine.fetching.download import Remote

CONTENT = b"".join(pictures(8, "a", 40_000).values())
PIECE = 1000  # bytes that a slow site sends at once


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Site:
    """What a local server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)  # answered first, one each
    cuts: list[int] = field(default_factory=list)  # bytes after which answers break off, one each
    ranges: bool = True
    lengths: bool = True
    kind: str = "application/octet-stream"
    more: bytes = b""  # sent behind every file, again and again, up to 64 MB
    pace: float = 0.0  # seconds between chunks of PIECE bytes
    retry_after: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    commit: str = ""  # as the hub states it, with a sum of each file
    following: dict[str, str] = field(default_factory=dict)  # the next page
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def requests(self) -> list[str]:
        """`PATH` or `PATH RANGE` of each GET."""
        asked = (f"{path} {h.get('Range', '')}" for how, path, h in self.asked if how == "GET")
        return [request.strip() for request in asked]


class Server(ThreadingHTTPServer):
    """A server of the site of the test that runs."""

    site: Site


class Handler(BaseHTTPRequestHandler):
    server: Server

    def setup(self) -> None:
        super().setup()
        self.site = self.server.site  # of an answer that takes longer than its test, too

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site, parts = self.site, urlsplit(self.path)
        path = unquote(parts.path)
        wanted = parse_qs(parts.query).get("FilePath")
        path = f"{path}/{wanted[0]}" if wanted else path
        site.asked.append((self.command, path, dict(self.headers.items())))
        code = site.codes.pop(0) if site.codes else 0
        page = parse_qs(parts.query).get("PageNumber", ["1"])[0]
        content = site.files.get(f"{path}#{page}", site.files.get(path))
        if path in site.moved:
            self.send_response(302)
            self.send_header("Location", site.moved[path])
            self.end_headers()
        elif code or content is None:
            self.send_response(code or 404)
            if site.retry_after:
                self.send_header("Retry-After", site.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send(path, content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def send(self, path: str, content: bytes) -> None:
        site, start, total = self.site, 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and site.ranges:
            start = int(wanted[1])
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if site.lengths:
            self.send_header("Content-Length", str(total - start))
        if site.commit:
            self.send_header("X-Repo-Commit", site.commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        for name, value in site.headers.items():
            self.send_header(name, value)
        if path in site.following:
            self.send_header("Link", f'<{site.following[path]}>; rel="next"')
        self.send_header("Content-Type", site.kind)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = start + site.cuts.pop(0) if site.cuts else total
        with suppress(ConnectionError):  # the other side had enough
            self.write(content[start:end])

    def write(self, content: bytes) -> None:
        site = self.site
        step = PIECE if site.pace else len(content) or 1
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            time.sleep(site.pace)
        for _ in range((64 << 20) // len(site.more) if site.more else 0):
            self.wfile.write(site.more)


@cache
def server() -> Server:
    """The one server of the tests' process."""
    started = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=started.serve_forever, daemon=True).start()
    return started


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    server().site = Site(url=f"http://127.0.0.1:{server().server_port}")
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return server().site


def remote(site: Site, content: bytes = CONTENT, checked: bool = True, **more: Any) -> Remote:
    """A file of the site, as a service with checksums lists it, or one without."""
    site.files["/x.bin"] = content
    known = {"size": len(content), "checksum": sha(content)} if checked else {}
    return Remote("x.bin", f"{site.url}/x.bin", **(known | more))


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def hub(site: Site, repo: str, files: dict[str, bytes], plain: tuple[str, ...] = ()) -> None:
    """Puts a data set on the hub; `plain`: files that it keeps without a checksum."""
    rows: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "oid": "0" * 40}]
    for name, content in files.items():
        row = {"type": "file", "path": name, "size": len(content), "oid": "1" * 40}
        if name not in plain:
            digest = hashlib.sha256(content).hexdigest()
            row["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        rows.append(row)
        site.files[f"/datasets/{repo}/resolve/main/{name}"] = content
    site.files[f"/api/datasets/{repo}/tree/main"] = json.dumps(rows).encode()


def modelscope(site: Site, repo: str, files: dict[str, bytes]) -> None:
    base = f"/api/v1/datasets/{repo}/repo"
    rows: list[dict[str, Any]] = [{"Path": "images", "Type": "tree", "Size": 0}]
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        rows.append({"Path": name, "Type": "blob", "Size": len(content), "Sha256": digest})
        site.files[f"{base}/{name}"] = content
    for start in range(0, len(rows) + 1, _services.PAGE):
        page = {"Success": True, "Data": {"Files": rows[start : start + _services.PAGE]}}
        site.files[f"{base}/tree#{start // _services.PAGE + 1}"] = json.dumps(page).encode()


def zenodo(site: Site, record: str, files: dict[str, bytes]) -> None:
    rows = []
    for name, content in files.items():
        link = f"{site.url}/api/records/{record}/files/{name}/content"
        rows.append(
            {
                "key": name, "size": len(content), "links": {"self": link},
                "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
            }
        )  # fmt: skip
        site.files[link.removeprefix(site.url)] = content
    site.files[f"/api/records/{record}"] = json.dumps({"files": rows}).encode()


@pytest.fixture
def services(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site stands for every service."""
    template = f"{site.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(_services, "MODELSCOPE", site.url)
    monkeypatch.setattr(_services, "ZENODO", site.url)
    return site

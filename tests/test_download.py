"""Downloads that break off, change or are refused; what services list."""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import json
import socket
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from web_site import CONTENT, Site, hub, left, modelscope, remote, services, sha, site, zenodo

from engine import _http, _services
from engine._http import DownloadError, Remote, UnreachableError, download, get_json, get_size
from engine.sources import Origin

__all__ = ["services", "site"]  # fixtures


# --- downloads


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b""], ids=["bytes", "empty"])
def test_a_download(site: Site, tmp_path: Path, checked: bool, content: bytes) -> None:
    seen: list[int] = []
    target = tmp_path / "deep" / "x.bin"
    assert download(remote(site, content, checked), target, seen.append) == sha(content)
    assert target.read_bytes() == content and sum(seen) == len(content)
    assert left(tmp_path) == {"deep/x.bin"}


def test_md5_where_the_service_states_that(site: Site, tmp_path: Path) -> None:
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert download(remote(site, checksum=checksum), tmp_path / "x.bin") == checksum


@pytest.mark.parametrize("checked", [True, False])
def test_a_cut_connection_goes_on(site: Site, tmp_path: Path, checked: bool) -> None:
    site.cuts = [100_000, 0, 50_000]
    seen: list[int] = []
    site.tags["/x.bin"] = '"one"'
    download(remote(site, checked=checked), tmp_path / "x.bin", seen.append)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and sum(seen) == len(CONTENT)
    assert site.requests() == [
        "/x.bin", "/x.bin bytes=100000-", "/x.bin bytes=100000-", "/x.bin bytes=150000-",
    ]  # fmt: skip
    conditions = [headers.get("If-Range") for _, _, headers in site.asked]
    assert conditions == ([None] * 4 if checked else [None, *['"one"'] * 3])


@pytest.mark.parametrize("checked", [True, False])
def test_a_later_call_goes_on(site: Site, tmp_path: Path, checked: bool) -> None:
    site.cuts = [100_000, *[0] * _http.TRIES]
    with pytest.raises(DownloadError, match=r"ended after 100000 of 320000 bytes.* goes on"):
        download(remote(site, checked=checked), tmp_path / "x.bin")
    assert left(tmp_path) == {"x.bin.part", "x.bin.part.json"}
    site.asked.clear()
    site.cuts.clear()
    seen: list[int] = []
    download(remote(site, checked=checked), tmp_path / "x.bin", seen.append)
    assert site.requests() == ["/x.bin bytes=100000-"]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and sum(seen) == len(CONTENT)


def test_progress_lets_failures_be_forgotten(site: Site, tmp_path: Path) -> None:
    site.cuts = [10_000, 0, 0, 0] * 6
    download(remote(site), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("checked", [True, False])
def test_a_server_that_ignores_ranges(site: Site, tmp_path: Path, checked: bool) -> None:
    site.ranges = False
    site.cuts = [100_000]
    seen: list[int] = []
    download(remote(site, checked=checked), tmp_path / "x.bin", seen.append)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and sum(seen) == len(CONTENT)
    assert len(site.asked) == 2


def test_a_file_that_changed_meanwhile(site: Site, tmp_path: Path) -> None:
    """By its tag, and where a server heeds no condition, by the tag of its answer."""
    for heeds in (True, False):
        old, site.tags["/x.bin"], site.cuts = CONTENT, '"old"', [100_000, *[0] * _http.TRIES]
        target = tmp_path / str(heeds) / "x.bin"
        with pytest.raises(DownloadError):
            download(remote(site, old, checked=False), target)
        new = old[::-1]
        site.tags["/x.bin"], site.cuts = '"new"', []
        if not heeds:
            note = target.with_name("x.bin.part.json")
            seen = json.loads(note.read_text()) | {"seen": {"ETag": 'W/"old"'}}
            note.write_text(json.dumps(seen))
        download(remote(site, new, checked=False), target)
        assert target.read_bytes() == new


def test_a_file_that_is_listed_otherwise_now(site: Site, tmp_path: Path) -> None:
    site.cuts = [100_000, *[0] * _http.TRIES]
    with pytest.raises(DownloadError):
        download(remote(site), tmp_path / "x.bin")
    site.cuts.clear()
    site.asked.clear()
    download(remote(site, CONTENT[::-1]), tmp_path / "x.bin")
    assert site.requests() == ["/x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"size": 320000, "seen": 3}'])
def test_a_part_without_its_note(site: Site, tmp_path: Path, note: str) -> None:
    (tmp_path / "x.bin.part").write_bytes(b"of something else")
    if note:
        (tmp_path / "x.bin.part.json").write_text(note)
    download(remote(site), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_a_part_that_is_too_long_or_complete(site: Site, tmp_path: Path) -> None:
    listed = remote(site)
    note = json.dumps({"size": listed.size, "checksum": listed.checksum, "seen": {}})
    for content in (CONTENT + b"more", CONTENT):
        (tmp_path / "x.bin.part").write_bytes(content)
        (tmp_path / "x.bin.part.json").write_text(note)
        site.asked.clear()
        download(listed, tmp_path / "x.bin")
        assert (tmp_path / "x.bin").read_bytes() == CONTENT
        (tmp_path / "x.bin").unlink()
    assert site.asked == []  # the complete one needed no request


def test_a_complete_part_of_unknown_size(site: Site, tmp_path: Path) -> None:
    note = json.dumps({"size": None, "checksum": None, "seen": {}})
    for content in (CONTENT, CONTENT + b"more"):
        (tmp_path / "x.bin.part").write_bytes(content)
        (tmp_path / "x.bin.part.json").write_text(note)
        download(remote(site, checked=False), tmp_path / "x.bin")
        assert (tmp_path / "x.bin").read_bytes() == CONTENT


def test_what_is_there_is_checked(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    target.write_bytes(CONTENT)
    assert download(remote(site), target) == sha(CONTENT) and site.asked == []
    target.write_bytes(CONTENT[::-1])
    seen: list[int] = []
    assert download(remote(site), target, seen.append) == sha(CONTENT)
    assert target.read_bytes() == CONTENT and sum(seen) == len(CONTENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checksum": sha(b"")}, "x.bin: expected sha256:e3b0.*; found sha256:.*: get it again"),
        ({"size": 7}, "x.bin: expected 7 bytes, as listed; the server has 320000"),
    ],
)
def test_other_content_than_listed(
    site: Site, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        download(remote(site, **change), tmp_path / "x.bin")
    assert not (tmp_path / "x.bin").exists()
    assert download(remote(site), tmp_path / "x.bin") == sha(CONTENT)


def test_more_than_listed_from_a_server_that_says_no_length(site: Site, tmp_path: Path) -> None:
    site.lengths = False
    with pytest.raises(DownloadError, match="expected 7 bytes; more came"):
        download(remote(site, size=7), tmp_path / "x.bin")
    assert download(remote(site), tmp_path / "x.bin") == sha(CONTENT)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([404], "answered 404 Not Found: it is not there any more"),
        ([403], "answered 403 Forbidden: it wants you to log in, or to accept its terms"),
        ([401], "answered 401 Unauthorized: it wants you to log in"),
        ([503] * 5, "answered 503 Service Unavailable: the same command goes on"),
    ],
)
def test_refusals(site: Site, tmp_path: Path, codes: list[int], message: str) -> None:
    site.codes = codes
    with pytest.raises(DownloadError, match=message) as caught:
        download(remote(site), tmp_path / "x.bin")
    assert "\n" not in str(caught.value) and site.codes == []
    assert not isinstance(caught.value, UnreachableError)


def test_a_busy_server(site: Site, tmp_path: Path) -> None:
    site.codes = [503, 429, 500]
    assert download(remote(site), tmp_path / "x.bin") == sha(CONTENT)


def test_a_web_page_in_its_place(site: Site, tmp_path: Path) -> None:
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="expected a file; found a web page"):
        download(remote(site), tmp_path / "x.bin")


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "PAUSES", (0.0,))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnreachableError, match=r"127.0.0.1:1/x.*goes on"):
        download(Remote("x", "http://127.0.0.1:1/x"), tmp_path / "x")
    with pytest.raises(DownloadError, match="expected an address that starts with http"):
        download(Remote("x", "file:///etc/passwd"), tmp_path / "x")


def test_what_is_meant_for_one_host_goes_to_no_other(site: Site, tmp_path: Path) -> None:
    listed = remote(site, headers={"Authorization": "Bearer secret"})
    site.files["/here"] = CONTENT
    site.moved = {"/x.bin": f"{site.url.replace('127.0.0.1', 'localhost')}/here"}
    download(listed, tmp_path / "x.bin")
    assert [headers.get("Authorization") for _, _, headers in site.asked] == ["Bearer secret", None]
    site.asked.clear()
    site.moved = {"/x.bin": "/here"}
    download(listed, tmp_path / "y.bin")
    assert [headers.get("Authorization") for _, _, headers in site.asked] == ["Bearer secret"] * 2
    site.moved = {"/x.bin": "ftp://example.org/here"}
    with pytest.raises(DownloadError, match="refused: it leads to ftp"):
        download(listed, tmp_path / "z.bin")


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("https://a.org/x", "https://a.org/y", True),
        ("http://a.org/x", "https://a.org/x", False),
        ("https://a.org/x", "https://a.org:8443/x", False),
        ("https://a.org/x", "http://a.org/x", None),
        ("https://a.org/x", "file:///etc/passwd", None),
    ],
)
def test_redirects(old: str, new: str, shown: bool | None) -> None:
    """Whether the other address is shown who asks; None: it is not asked at all."""
    asked = urllib.request.Request(old, headers={"Authorization": "Bearer secret"})
    follow = functools.partial(
        _http._Redirects().redirect_request,
        asked, io.BytesIO(), 302, "Found", http.client.HTTPMessage(), new,
    )  # fmt: skip
    if shown is None:
        with pytest.raises(DownloadError, match="refused: it leads to"):
            follow()
        return
    found = follow()
    assert found is not None and found.full_url == new
    assert found.has_header("Authorization") == shown


@pytest.mark.parametrize(
    ("seen", "condition"),
    [
        ({"ETag": '"a"', "Last-Modified": "Mon"}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": "Mon"}, "Mon"),
        ({"Last-Modified": "Mon"}, "Mon"),
        ({"ETag": 'W/"a"'}, None),
        ({}, None),
    ],
)
def test_the_condition_of_a_request_that_goes_on(
    site: Site, tmp_path: Path, seen: dict[str, str], condition: str | None
) -> None:
    """Weak tags do not say that bytes are the same (RFC 9110, 13.1.5)."""
    (tmp_path / "x.bin.part").write_bytes(CONTENT[:1000])
    note = {"size": None, "checksum": None, "seen": seen}
    (tmp_path / "x.bin.part.json").write_text(json.dumps(note))
    download(remote(site, checked=False), tmp_path / "x.bin")
    assert site.requests()[0] == "/x.bin bytes=1000-"
    assert site.asked[0][2].get("If-Range") == condition
    assert (tmp_path / "x.bin").read_bytes() == CONTENT


def refusal(code: int, **headers: str) -> urllib.error.HTTPError:
    message = http.client.HTTPMessage()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://a.org/x", code, "no", message, io.BytesIO())


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        (None, 1, 1), ("7", 7, 7), ("0", 1, 1), ("9999999999", 120, 120), ("soon", 1, 1),
        ("-5", 1, 1), (formatdate(1_000_060), 60, 60), (formatdate(0), 1, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_says_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch, code: int, after: str | None, least: float, most: float
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(_http.time, "sleep", slept.append)
    monkeypatch.setattr(_http.time, "time", lambda: 1_000_000.0)
    _http._Tries("x").failed(refusal(code, **({"Retry_After": after} if after else {})))
    assert least <= slept[0] <= most and len(slept) == 1


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (http.client.IncompleteRead(b"1", 5), False),
        (http.client.BadStatusLine("?"), False),
        (refusal(503), False),
        (http.client.RemoteDisconnected("gone"), True),
        (urllib.error.URLError("no route"), True),
        (TimeoutError("timed out"), True),
    ],
)
def test_hosts_that_answer(monkeypatch: pytest.MonkeyPatch, error: Exception, away: bool) -> None:
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    tries = _http._Tries("x")
    with pytest.raises(DownloadError, match="goes on") as caught:
        for _ in range(_http.TRIES):
            tries.failed(error)
    assert isinstance(caught.value, UnreachableError) == away


def test_an_answer_that_stalls_comes_from_a_host(site: Site, tmp_path: Path) -> None:
    listed = remote(site)

    def stall(_: int) -> bytes:
        raise TimeoutError("timed out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_http.http.client.HTTPResponse, "read", lambda _, size=-1: stall(size))
        with pytest.raises(DownloadError, match="timed out") as caught:
            download(listed, tmp_path / "x.bin")
        assert not isinstance(caught.value, UnreachableError)
        with pytest.raises(DownloadError, match="timed out") as caught:
            get_json(listed.url)
        assert not isinstance(caught.value, UnreachableError)


def test_interrupted_downloads_keep_what_came(site: Site, tmp_path: Path) -> None:
    seen = 0

    def stop(count: int) -> None:
        nonlocal seen
        seen += count
        if seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(remote(site), tmp_path / "x.bin", stop)
    assert (tmp_path / "x.bin.part").stat().st_size == seen > 0
    assert download(remote(site), tmp_path / "x.bin") == sha(CONTENT)
    assert left(tmp_path) == {"x.bin"}


def test_a_disk_that_refuses(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="file"):
        download(remote(site), tmp_path / "file" / "x.bin")
    assert site.asked == []


# --- what services list


def test_the_hub(services: Site) -> None:
    hub(services, "a/b", {"x/1.tar.gz": b"one", "README.md": b"text"}, plain=("README.md",))
    found = {file.name: file for file in _services.list_files(Origin("hub", "a/b"))}
    assert set(found) == {"x/1.tar.gz", "README.md"}
    assert (found["x/1.tar.gz"].size, found["x/1.tar.gz"].checksum) == (3, sha(b"one"))
    assert found["README.md"].checksum is None
    assert found["x/1.tar.gz"].url == f"{services.url}/datasets/a/b/resolve/main/x/1.tar.gz"


def test_the_hub_without_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is set.*unset it, or .* --extract"):
        _services.list_files(Origin("hub", "a/b"))


@pytest.mark.parametrize("failure", [ConnectionRefusedError(111, "no"), socket.gaierror(-2, "no")])
def test_the_hub_that_cannot_be_reached(
    services: Site, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("its transport's own") from failure

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_tree", fail)
    with pytest.raises(DownloadError, match=r"cannot reach http://127.*: check the connection, or"):
        _services.list_files(Origin("hub", "a/b"))


def test_the_hub_has_no_such_repository(services: Site) -> None:
    with pytest.raises(DownloadError, match="a/b") as caught:
        _services.list_files(Origin("hub", "a/b"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 3, 99, 100, 250])
def test_modelscope(services: Site, count: int) -> None:
    modelscope(services, "a/b", {f"images/a b&{n}.zip": str(n).encode() for n in range(count)})
    found = _services.list_files(Origin("modelscope", "a/b"))
    assert [file.name for file in found] == [f"images/a b&{n}.zip" for n in range(count)]
    if count:
        with _http.request(found[-1].url) as answer:
            assert answer.read() == str(count - 1).encode()
        assert found[-1].checksum == sha(str(count - 1).encode())


def test_modelscope_that_knows_no_pages(services: Site) -> None:
    rows = [{"Path": f"{n}", "Type": "blob", "Size": 1} for n in range(_services.PAGE)]
    answer = {"Success": True, "Data": {"Files": rows}}
    services.files["/api/v1/datasets/a/b/repo/tree"] = json.dumps(answer).encode()
    assert len(_services.list_files(Origin("modelscope", "a/b"))) == _services.PAGE


def test_zenodo(services: Site, tmp_path: Path) -> None:
    zenodo(services, "123", {"x.zip": CONTENT})
    (found,) = _services.list_files(Origin("zenodo", "123"))
    assert found.checksum == f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    download(found, tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_plain_addresses(site: Site) -> None:
    site.files["/zips/x.zip"] = CONTENT
    url = f"{site.url}/zips/x.zip"
    assert _services.list_files(Origin("url", url)) == [Remote("x.zip", url, len(CONTENT))]
    site.lengths = False
    assert get_size(url) is None


@pytest.mark.parametrize("code", [403, 405, 501, 404])
def test_a_server_that_knows_no_head(
    site: Site, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    site.files["/x.zip"] = CONTENT
    plain = _http.request

    def request(url: str, headers: Any = None, method: str = "GET") -> Any:
        if method == "HEAD":
            raise refusal(code)
        return plain(url, headers, method)

    monkeypatch.setattr(_http, "request", request)
    if code == 404:
        with pytest.raises(DownloadError, match="answered 404"):
            get_size(f"{site.url}/x.zip")
    else:
        assert get_size(f"{site.url}/x.zip") == len(CONTENT)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "expected JSON; found b'<html>': is there a log-in page in between"),
        (b"[]", "expected a list of files; its answer has another form"),
        (b'{"Data": {}}', "expected a list of files; its answer has another form"),
        (b'{"Success": false, "Message": "no such set"}', "modelscope:a/b: no such set"),
    ],
)
def test_answers_of_another_form(services: Site, answer: bytes, message: str) -> None:
    services.files["/api/v1/datasets/a/b/repo/tree"] = answer
    with pytest.raises(DownloadError, match=message):
        _services.list_files(Origin("modelscope", "a/b"))


def test_json_after_a_pause(site: Site) -> None:
    site.files["/x"], site.codes = b'{"a": 1}', [503, 502]
    assert get_json(f"{site.url}/x") == {"a": 1}

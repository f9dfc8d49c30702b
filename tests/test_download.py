"""Downloads that break off, change or are refused; what services list."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from web_site import CONTENT, Site, hub, left, modelscope, remote, services, sha, site, zenodo

from engine.fetching import download as downloading
from engine.fetching import services as _services
from engine.fetching.catalogue import Origin
from engine.fetching.download import (
    TRIES,
    FetchError,
    Remote,
    UnreachableError,
    download,
    get_json,
    get_size,
)

__all__ = ["services", "site"]  # fixtures


# --- downloads


@pytest.mark.parametrize(
    ("content", "checked"),
    [
        pytest.param(CONTENT, True, id="bytes"),
        pytest.param(CONTENT, False, id="bytes without a sum"),
        pytest.param(b"", True, id="empty"),
    ],
)
def test_a_download(site: Site, tmp_path: Path, checked: bool, content: bytes) -> None:
    seen: list[int] = []
    target = tmp_path / "deep" / "x.bin"
    assert download(remote(site, content, checked), target, seen.append) == sha(content)
    assert target.read_bytes() == content and sum(seen) == len(content)
    assert left(tmp_path) == {"deep/x.bin"}


def test_nothing_is_no_file_where_nobody_says_how_large_it_is(site: Site, tmp_path: Path) -> None:
    listed = remote(site, b"", checked=False)
    for code, lengths in ((204, True), (200, True), (200, False)):
        site.codes, site.lengths = [code] if code != 200 else [], lengths
        site.asked.clear()
        with pytest.raises(FetchError, match=rf"x.bin: expected a file; found {code} "):
            download(listed, tmp_path / "x.bin")
        assert left(tmp_path) == set() and len(site.asked) == 1


def test_md5_where_the_service_states_that(site: Site, tmp_path: Path) -> None:
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert download(remote(site, checksum=checksum), tmp_path / "x.bin") == checksum


def test_a_cut_connection_goes_on(site: Site, tmp_path: Path) -> None:
    """Where a sum tells in the end whether all is of one version; else it begins again."""
    for checked, starts in ((True, (100_000, 100_000, 150_000)), (False, (0, 0, 0))):
        site.cuts, seen = [100_000, 0, 50_000], list[int]()
        site.asked.clear()
        download(remote(site, checked=checked), tmp_path / f"{checked}", seen.append)
        assert (tmp_path / f"{checked}").read_bytes() == CONTENT and sum(seen) == len(CONTENT)
        ranges = [f"/x.bin bytes={start}-" if start else "/x.bin" for start in (0, *starts)]
        assert site.requests() == ranges


def test_a_later_call_goes_on(site: Site, tmp_path: Path) -> None:
    for checked in (True, False):
        site.cuts = [100_000, *[0] * TRIES]
        with pytest.raises(FetchError, match=r"ended after \d+ .* goes on"):
            download(remote(site, checked=checked), tmp_path / "x.bin")
        assert left(tmp_path) == ({"x.bin.part"} if checked else set())
        site.asked.clear()
        site.cuts.clear()
        seen: list[int] = []
        download(remote(site, checked=checked), tmp_path / "x.bin", seen.append)
        assert site.requests() == ["/x.bin bytes=100000-" if checked else "/x.bin"]
        assert (tmp_path / "x.bin").read_bytes() == CONTENT and sum(seen) == len(CONTENT)
        (tmp_path / "x.bin").unlink()


def test_progress_lets_failures_be_forgotten_for_a_while(site: Site, tmp_path: Path) -> None:
    site.cuts = [10_000, 0, 0, 0] * 6
    download(remote(site), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    site.asked.clear()
    site.cuts = [1] * 1000
    with pytest.raises(FetchError, match="goes on"):
        download(remote(site), tmp_path / "y.bin")
    assert len(site.asked) == downloading.MOST_TRIES


def test_a_server_that_ignores_ranges(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [100_000]
    seen: list[int] = []
    download(remote(site), tmp_path / "x.bin", seen.append)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and sum(seen) == len(CONTENT)
    assert len(site.asked) == 2


def test_no_file_is_made_of_two_versions(site: Site, tmp_path: Path) -> None:
    """It changes after the connection was cut, and nothing tells."""
    seen: list[int] = []

    def change(more: int) -> None:
        seen.append(more)
        if sum(seen) == len(CONTENT) // 2:
            site.files["/x.bin"] = CONTENT[::-1]

    site.cuts = [len(CONTENT) // 2]
    download(remote(site, checked=False), tmp_path / "x.bin", change)
    assert (tmp_path / "x.bin").read_bytes() == CONTENT[::-1] and sum(seen) == len(CONTENT)


def test_a_part_of_another_version(site: Site, tmp_path: Path) -> None:
    """The sum tells in the end; it is begun again, once."""
    (tmp_path / "x.bin.part").write_bytes(CONTENT[::-1][:100_000])
    seen: list[int] = []
    assert download(remote(site), tmp_path / "x.bin", seen.append) == sha(CONTENT)
    assert site.requests() == ["/x.bin bytes=100000-", "/x.bin"]
    assert left(tmp_path) == {"x.bin"} and sum(seen) == len(CONTENT)


def test_a_part_that_is_too_long_or_complete(site: Site, tmp_path: Path) -> None:
    for size in (len(CONTENT), None):  # of unknown size the server says that it is too long
        for content, requests in (
            (CONTENT + b"more", 1 if size else 2),
            (CONTENT, 0 if size else 2),
        ):
            (tmp_path / "x.bin.part").write_bytes(content)
            site.asked.clear()
            download(remote(site, size=size), tmp_path / "x.bin")
            assert (tmp_path / "x.bin").read_bytes() == CONTENT and len(site.asked) == requests
            (tmp_path / "x.bin").unlink()


def test_what_is_there_is_checked(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    target.write_bytes(CONTENT)
    assert download(remote(site), target) == sha(CONTENT) and site.asked == []
    target.write_bytes(CONTENT[::-1])
    seen: list[int] = []
    assert download(remote(site), target, seen.append) == sha(CONTENT)
    assert target.read_bytes() == CONTENT and sum(seen) == len(CONTENT)


@pytest.mark.parametrize("known", ["size", "length", "nothing"])
def test_never_more_on_disk_than_the_known_size(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    """A server that does not stop, whether it states a length or not."""
    monkeypatch.setattr(downloading, "MAX_UNKNOWN", 400_000)
    listed = remote(site, checked=known == "size")
    site.more, site.lengths = bytes(100_000), known == "length"
    most = 0

    def watch(_: int) -> None:
        nonlocal most
        most = max([most, *(path.stat().st_size for path in tmp_path.iterdir())])

    if known == "length":  # what comes behind it is not read
        assert download(listed, tmp_path / "x.bin", watch) == sha(CONTENT)
    else:
        limit = 320_000 if known == "size" else 400_000
        with pytest.raises(FetchError, match=f"expected at most {limit} bytes; more came"):
            download(listed, tmp_path / "x.bin", watch)
        assert most <= limit and len(site.asked) == 1
    assert most > 100_000


def test_a_server_that_drips(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the file does not."""
    monkeypatch.setattr(downloading, "WINDOW", 0.05)
    monkeypatch.setattr(downloading, "MIN_RATE", 1 << 20)
    monkeypatch.setattr(downloading, "MOST_TRIES", 3)
    listed = remote(site)
    site.pace = 0.02
    with pytest.raises(FetchError, match=r"under 1048576 bytes came per second.*goes on"):
        download(listed, tmp_path / "x.bin")
    assert len(site.asked) == 3
    with pytest.raises(FetchError, match="under 1048576 bytes came per second"):
        get_json(listed.url)
    site.pace = 0.0
    assert download(listed, tmp_path / "x.bin") == sha(CONTENT)


def test_a_server_that_stalls(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT", downloading.httpx.Timeout(0.1))
    monkeypatch.setattr(downloading, "MOST_TRIES", 2)
    listed = remote(site)
    site.pace = 0.3
    with pytest.raises(FetchError, match=r"ended after \d000 bytes \(timed out\)") as caught:
        download(listed, tmp_path / "x.bin")
    assert not isinstance(caught.value, UnreachableError)


@pytest.mark.parametrize(
    ("change", "listed", "message"),
    [
        ({}, {"checksum": sha(b"")}, r"expected sha256:e3b0.*; found sha256:.*: get it again"),
        ({}, {"size": 7}, "expected 7 bytes; the server has 320000"),
        ({}, {"size": None, "checksum": None}, "expected 1000 bytes at most; the server has"),
        ({"headers": {"Content-Encoding": "gzip"}}, {}, "found it packed by 'gzip'"),
        ({"kind": "text/html; charset=utf-8"}, {}, "expected a file; found a web page"),
        ({"codes": [404]}, {}, "answered 404 Not Found: it is not there any more"),
        ({"codes": [403]}, {}, "answered 403 Forbidden: it wants you to log in, or to accept"),
        ({"codes": [503] * 5}, {}, "answered 503 Service Unavailable: the same command goes on"),
    ],
)  # fmt: skip
def test_answers_that_are_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any], listed: dict[str, Any], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(downloading, "MAX_UNKNOWN", 1000)
    usual = {name: getattr(site, name) for name in change}
    for name, value in change.items():
        setattr(site, name, value)
    with pytest.raises(FetchError, match=message) as caught:
        download(remote(site, **listed), tmp_path / "x.bin")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, UnreachableError)
    assert not (tmp_path / "x.bin").exists() and site.codes == []
    for name, value in usual.items():
        setattr(site, name, value)
    site.codes = [503, 429, 500]  # a busy server is worth waiting for
    assert download(remote(site), tmp_path / "x.bin") == sha(CONTENT)


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the answer takes seconds."""
    slept: list[float] = []
    monkeypatch.setattr(downloading.time, "sleep", slept.append)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnreachableError, match=r"127.0.0.1:1/x.*goes on"):
        download(Remote("x", "http://127.0.0.1:1/x"), tmp_path / "x")
    assert sum(slept) <= 2
    with pytest.raises(FetchError, match="expected an address that starts with http"):
        download(Remote("x", "file:///etc/passwd"), tmp_path / "x")
    monkeypatch.setenv("all_proxy", "nonsense://x")
    with pytest.raises(FetchError, match="expected a usable proxy"):
        download(Remote("x", "http://127.0.0.1:1/x"), tmp_path / "x")


def test_a_firewall_that_drops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def send(_: Any, request: Any, **__: Any) -> Any:
        tried.append(request)
        raise downloading.httpx.ConnectTimeout("timed out")

    monkeypatch.setattr(downloading.httpx.Client, "send", send)
    with pytest.raises(UnreachableError, match="timed out"):
        download(Remote("x", "http://a.org/x"), tmp_path / "x")
    assert len(tried) == 1


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
    with pytest.raises(FetchError, match="refused: it leads to ftp"):
        download(listed, tmp_path / "z.bin")


def test_redirects_that_lead_nowhere(site: Site, tmp_path: Path) -> None:
    listed = remote(site)
    for target in ("/x.bin", "//", "http://[", "data:x"):
        site.moved = {"/x.bin": target}
        site.asked.clear()
        with pytest.raises(FetchError) as caught:
            download(listed, tmp_path / "x.bin")
        assert "\n" not in str(caught.value) and len(site.asked) <= downloading.REDIRECTS + 1


def test_a_server_that_says_when_to_come_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(downloading, "PAUSES", (1.0,))
    monkeypatch.setattr(downloading.time, "sleep", slept.append)
    site.files["/x"] = b"1"
    for after, seconds in (("", 1), ("7", 7), ("0", 1), ("9999999999", 120), ("soon", 1)):
        site.codes, site.retry_after = [429], after
        slept.clear()
        assert get_json(f"{site.url}/x") == (1, None)
        assert [pause for pause in slept if pause] == [seconds]  # the site's own pauses are 0


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
    with pytest.raises(OSError, match="file"):
        download(remote(site), tmp_path / "file" / "x.bin")
    assert site.asked == []


# --- what services list


def test_the_hub(services: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Origin("hub", "a/b")
    with pytest.raises(FetchError, match="a/b") as caught:
        _services.list_files(origin)  # no such repository
    assert "\n" not in str(caught.value)
    hub(services, "a/b", {"x/1.tar.gz": b"one", "README.md": b"text"}, plain=("README.md",))
    files = {file.name: file for file in _services.list_files(origin)}
    assert set(files) == {"x/1.tar.gz", "README.md"}
    assert (files["x/1.tar.gz"].size, files["x/1.tar.gz"].checksum) == (3, sha(b"one"))
    assert files["README.md"].checksum is None
    assert files["x/1.tar.gz"].url == f"{services.url}/datasets/a/b/resolve/main/x/1.tar.gz"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UnreachableError, match=r"127.*refused.*, or bring the archives by hand"):
        _services.list_files(origin)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match=r"HF_HUB_OFFLINE is set.*unset it, or .* --extract"):
        _services.list_files(origin)


def test_the_hubs_list_on_several_pages(services: Site) -> None:
    hub(services, "a/b", {"1": b"one"})
    first = "/api/datasets/a/b/tree/main"
    services.files["/api/more"] = services.files[first].replace(b'"1"', b'"2"')
    for host in (services.url, "http://127.0.0.1:1"):  # a mirror may name the hub itself
        services.following = {first: f"{host}/api/more?cursor=1"}
        assert [file.name for file in _services.list_files(Origin("hub", "a/b"))] == ["1", "2"]
    services.following = {first: "http://[x"}
    with pytest.raises(FetchError, match="another form"):
        _services.list_files(Origin("hub", "a/b"))


def test_modelscope(services: Site) -> None:
    for count in (0, 3, 99, 100, 250):
        services.files.clear()
        modelscope(services, "a/b", {f"images/a b&{n}.zip": str(n).encode() for n in range(count)})
        files = _services.list_files(Origin("modelscope", "a/b"))
        assert [file.name for file in files] == [f"images/a b&{n}.zip" for n in range(count)]
        if count:
            assert get_json(files[-1].url) == (count - 1, None)
            assert files[-1].checksum == sha(str(count - 1).encode())
    # One that knows no pages gives the same again.
    rows = [{"Path": f"{n}", "Type": "blob", "Size": 1} for n in range(_services.PAGE)]
    answer = {"Success": True, "Data": {"Files": rows}}
    services.files = {"/api/v1/datasets/a/b/repo/tree": json.dumps(answer).encode()}
    assert len(_services.list_files(Origin("modelscope", "a/b"))) == _services.PAGE


def test_zenodo(services: Site, tmp_path: Path) -> None:
    zenodo(services, "123", {"x.zip": CONTENT})
    (file,) = _services.list_files(Origin("zenodo", "123"))
    assert file.checksum == f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    download(file, tmp_path / "x.zip")
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_plain_addresses(site: Site) -> None:
    site.files["/zips/x.zip"] = CONTENT
    url = f"{site.url}/zips/x.zip"
    assert _services.list_files(Origin("url", url)) == [Remote("x.zip", url, len(CONTENT))]
    site.lengths = False
    assert get_size(url) is None
    with pytest.raises(FetchError, match="answered 404"):
        get_size(f"{site.url}/no.zip")


def listing(**changes: Any) -> bytes:
    """ModelScope's list of one file."""
    row = {"Path": "x.zip", "Type": "blob", "Size": 1, "Sha256": "0" * 64} | changes
    return json.dumps({"Success": True, "Data": {"Files": [row]}}).encode()


def test_answers_of_another_form(services: Site) -> None:
    for answer, message in (
        (b"<html>", "expected JSON; found b'<html>': is there a log-in page in between"),
        (b"[]", "expected a list of files; its answer has another form"),
        (b'{"Data": {}}', "expected a list of files; its answer has another form"),
        (b'{"Success": false, "Message": "no such set"}', "modelscope:a/b: no such set"),
        (b"[" * 100_000, "expected JSON"),
        (b"1" * 10_000, "expected JSON"),
        (listing(Size="1"), "another form"),
        (listing(Size=-1), "another form"),
        (listing(Size=1e300), "another form"),
        (listing(Path=["x"]), "another form"),
        (listing(Path=7), "another form"),
        (listing(Sha256=7), "another form"),
    ):
        services.files["/api/v1/datasets/a/b/repo/tree"] = answer
        with pytest.raises(FetchError, match=message):
            _services.list_files(Origin("modelscope", "a/b"))


def test_json_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "MAX_JSON", 1 << 20)
    site.files["/x"], site.more, site.lengths = b"[", b" " * 10_000, False
    with pytest.raises(FetchError, match="expected at most 1048576 bytes; more came"):
        get_json(f"{site.url}/x")

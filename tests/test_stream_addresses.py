"""--stream from buckets and the web: what is refused, what is away, and what changes meanwhile."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from archive_makers import make_tar
from cli_runner import Cli, cli, weights
from containers import png, pngs
from test_stream import NAMES, a_table, a_tar, files, rows, shards, streamed, table
from web_site import Site, site

from engine.api import Scorer
from engine.fetching import public, remote
from engine.phases.stream import PROBES
from engine.runtime.part_files import PARTS

__all__ = ["cli", "site", "streamed", "weights"]  # fixtures


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store in memory that --input knows as memory://."""
    monkeypatch.setitem(remote.PROTOCOLS, "memory", "fsspec")
    store = fsspec.filesystem("memory", use_listings_cache=False)
    yield store
    store.rm("/", recursive=True)


def keys(output: Path, url: str) -> list[str]:
    found = rows(output)
    assert not any(row["error"] for row in found), found
    return [row["path"].removeprefix(url) for row in found]


def check_store(store: Any, url: str, streamed: Cli, tmp_path: Path, *more: object) -> None:
    """Streams a folder, a table, and shards of a store, twice."""
    for name, content in pngs(NAMES).items():
        store.pipe_file(f"{url}/pictures/{name}", content)
    store.pipe_file(f"{url}/list.csv", ("image\n" + "\n".join(NAMES)).encode())
    for name, content in pngs(NAMES).items():
        store.pipe_file(f"{url}/{name}", content)
    for path in sorted(shards(tmp_path).rglob("*.tar")):
        store.pipe_file(f"{url}/shards/{path.name}", path.read_bytes())
    inputs = [f"{url}/{name}" for name in ("pictures", "list.csv", "shards")]
    assert streamed(*inputs, *more).status == 0
    wanted = [f"pictures/{name}" for name in sorted(NAMES)] + NAMES
    wanted += [f"shards/{shard}.tar/{name}" for shard in ("a-1", "a") for name in NAMES[:4]]
    assert keys(tmp_path / "out", f"{url}/") == wanted
    first = files(tmp_path / "out")
    assert streamed(*inputs, "--resume", *more).status == 0
    assert files(tmp_path / "out") == first


def test_folders_tables_and_shards_of_a_store(memory: Any, streamed: Cli, tmp_path: Path) -> None:
    check_store(memory, "memory://bucket", streamed, tmp_path)
    assert "expected files" in streamed("memory://other", "--overwrite").complaint


def test_pictures_come_from_s3_in_the_processes_that_decode(
    streamed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"), ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ):  # fmt: skip
            monkeypatch.setenv(name, value)
        store = fsspec.filesystem("s3", use_listings_cache=False)
        store.mkdir("bucket")
        check_store(store, "s3://bucket", streamed, tmp_path, "--workers", 1)
        local = table(tmp_path / "named.csv", ["s3://bucket/real/0.png", "s3://bucket/gone.png"])
        assert streamed(local, "--overwrite", "--protocols", "s3").status == 1
        there, gone = rows(tmp_path / "out")
        assert there["score"] and "FileNotFound" in gone["error"]
        store.pipe_file("s3://bucket/empty.png", b"")
        assert streamed("s3://bucket/empty.png", "--overwrite").status == 1
        assert [row["error"] for row in rows(tmp_path / "out")] == ["the file is empty"]
    finally:
        server.stop()


def test_tables_and_pictures_of_the_web(
    streamed: Cli, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "_check", lambda *_: None)  # for the server is on this machine
    site.files |= {"/a/x y.png": png(), "/a/list.csv": b"image\nx y.png\ngone.png\n"}
    assert streamed(f"{site.url}/a/list.csv", f"{site.url}/a/x y.png").status == 1
    one, gone, same = rows(tmp_path / "out")
    assert one["path"] == f"{site.url}/a/x%20y.png" and one["score"] == same["score"] != ""
    assert "404" in gone["error"]


HOSTILE = ["file:///etc/passwd", "s3://bucket/a.png", "https://a.b/c.png", "FILE:///etc/passwd"]


@pytest.mark.parametrize("name", [*HOSTILE, "memory://a::file:///etc/passwd", "../a.png"])
def test_a_table_names_nothing_that_the_user_did_not_allow(
    streamed: Cli, memory: Any, tmp_path: Path, name: str
) -> None:
    local = table(tmp_path / "list.csv", [name])
    assert str(local) in streamed(local, "--protocols", "memory").complaint


@pytest.mark.parametrize("name", [*HOSTILE, "memory://a::file:///etc/passwd"])
def test_a_list_names_no_address_that_the_user_did_not_allow(
    streamed: Cli, memory: Any, name: str
) -> None:
    assert "standard input" in streamed("-", stdin=name.encode()).complaint


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "file:///etc/passwd", "C:\\a.png"])
def test_a_table_elsewhere_names_no_file_here(streamed: Cli, memory: Any, name: str) -> None:
    memory.pipe_file("/bucket/list.csv", f"image\n{name}\n".encode())
    assert "memory:" in streamed("memory://bucket/list.csv").complaint


def test_a_table_reaches_no_private_host(streamed: Cli, site: Site, tmp_path: Path) -> None:
    """Nor does one that the user named himself, or a redirect from there."""
    site.files |= {"/list.csv": b"image\na.png\n", "/a.png": png()}
    assert streamed(f"{site.url}/list.csv").status == 1
    local = table(tmp_path / "list.csv", [f"{site.url}/a.png", "http://169.254.169.254/a.png"])
    assert [row["score"] for row in rows(tmp_path / "out")] == [""]
    assert streamed(local, "--overwrite", "--protocols", "http").status == 1
    first, _ = rows(tmp_path / "out")
    assert "private network" in first["error"]
    assert site.requests() == ["/list.csv"]


@pytest.mark.parametrize("error", [TimeoutError("no answer"), PermissionError("expired token")])
def test_a_network_that_is_away_ends_the_run_and_not_the_pictures(
    streamed: Cli, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0,))
    asked = 0
    for name, content in pngs([f"{n:02}.png" for n in range(20)]).items():
        memory.pipe_file(f"/bucket/{name}", content)

    def away(*_: Any, **__: Any) -> bytes:
        nonlocal asked
        asked += 1
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "cat_file", away)
        done = streamed("memory://bucket", "--shard_size", 40)
    assert done.status == 2 and "--resume goes on" in done.err
    # In a row, and then all over the part; the one error stays as it is, the other may pass.
    assert asked == (16 + 20) * (1 if isinstance(error, PermissionError) else 2)
    assert files(tmp_path / "out") == {}
    assert streamed("memory://bucket", "--shard_size", 40, "--resume").status == 0
    assert len(rows(tmp_path / "out")) == 20


def test_dead_hosts_at_the_head_of_a_part_are_rows(
    streamed: Cli, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", ())
    for name, content in pngs([f"{n:02}.png" for n in range(24)]).items():
        memory.pipe_file(f"/bucket/{name}", content)
    usual = type(memory).cat_file

    def dead(store: Any, path: str, **limits: Any) -> bytes:
        if path < "/bucket/20":
            raise TimeoutError("no answer")
        return bytes(usual(store, path, **limits))

    monkeypatch.setattr(type(memory), "cat_file", dead)
    assert streamed("memory://bucket", "--shard_size", 24).status == 1
    assert [bool(row["error"]) for row in rows(tmp_path / "out")] == [True] * 20 + [False] * 4


@pytest.fixture
def long_bucket(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that breaks the pictures of a bucket, by their number of 120 and that of the ask;
    it returns the keys that were asked for."""
    monkeypatch.setattr(remote, "PAUSES", ())
    for number in range(120):
        memory.pipe_file(f"/bucket/{number:03}.png", png())
    usual = type(memory).cat_file

    def broken(away: Callable[[int, int], bool]) -> list[int]:
        asked: list[int] = []

        def ask(store: Any, path: str, **limits: Any) -> bytes:
            asked.append(int(Path(path).stem))
            if away(asked[-1], len(asked)):
                raise TimeoutError("no answer")
            return bytes(usual(store, path, **limits))

        monkeypatch.setattr(type(memory), "cat_file", ask)
        return asked

    return broken


LONG = ("memory://bucket", "--shard_size", 120, "--batch_size", 20)


@pytest.mark.parametrize("there", [0, 60])
def test_a_network_that_goes_away_is_noticed_early(
    streamed: Cli, long_bucket: Any, tmp_path: Path, there: int
) -> None:
    asked = long_bucket(lambda _, asks: asks > there)
    done = streamed(*LONG)
    assert done.status == 2 and "--resume goes on" in done.err
    # As many as were there, those in a row, in whole batches, and those that were tried.
    assert len(asked) <= there + 20 + PROBES and files(tmp_path / "out") == {}
    long_bucket(lambda *_: False)
    assert streamed(*LONG, "--resume").status == 0
    assert len(keys(tmp_path / "out", "")) == 120


@pytest.mark.parametrize("first", [0, 40, 80])
def test_a_dead_host_is_no_network_that_is_away(
    streamed: Cli, long_bucket: Any, tmp_path: Path, first: int
) -> None:
    dead = range(first, first + 40)
    long_bucket(lambda number, _: number in dead)
    assert streamed(*LONG).status == 1
    errors = [bool(row["error"]) for row in rows(tmp_path / "out")]
    assert errors == [number in dead for number in range(120)]


def a_tar_elsewhere(root: Path) -> str:
    store = fsspec.filesystem("memory")
    store.pipe_file("/bucket/a.tar", a_tar(root).read_bytes())
    return "memory://bucket/a.tar"


def replace_it(source: Path | str) -> None:
    """Replaces a file by the same, of another time."""
    if isinstance(source, Path):
        os.utime(source, ns=(1, 1))
    else:
        store = fsspec.filesystem("memory")
        store.pipe_file("/bucket/a.tar", store.cat_file("/bucket/a.tar"))


@pytest.mark.parametrize("make", [a_table, a_tar, a_tar_elsewhere])
def test_a_source_that_is_replaced_meanwhile_ends_the_run(
    streamed: Cli, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    source, batches = make(tmp_path), 0

    def replaced(*arguments: Any) -> Iterator[Any]:
        nonlocal batches
        for batch in usual(*arguments):
            if (batches := batches + 1) == 3:  # the second part's first
                replace_it(source)
            yield batch

    usual = Scorer.answers
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "answers", replaced)
        done = streamed(source)
    assert done.status == 2 and f"{source}: expected one version" in done.err
    assert [path.name for path in (tmp_path / "out" / PARTS).iterdir()] == ["part-00000-00000.csv"]
    if make is a_table:  # whose names tell
        assert streamed(source, "--resume").status == 0
        assert len(rows(tmp_path / "out")) == len(NAMES)
    else:
        assert "another version" in streamed(source, "--resume").complaint


def test_a_passing_error_is_tried_again(
    streamed: Cli, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0, 0))
    memory.pipe_file("/bucket/a.png", png())
    usual, failures = type(memory).cat_file, [TimeoutError(), RuntimeError("of a library")]

    def sometimes(*words: Any, **options: Any) -> bytes:
        if failures:
            raise failures.pop()
        return usual(*words, **options)

    monkeypatch.setattr(type(memory), "cat_file", sometimes)
    assert streamed("memory://bucket/a.png").status == 0


@pytest.mark.parametrize(
    "error", [OSError(errno.EINVAL, "InvalidRange"), type("Http", (Exception,), {"code": 416})()]
)
def test_an_empty_object_is_an_empty_file(
    streamed: Cli, memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    monkeypatch.setattr(remote, "PAUSES", ())
    for name, content in (("a", b""), ("b", png())):
        memory.pipe_file(f"/bucket/{name}.png", content)

    def no_range(*_: Any, **__: Any) -> bytes:
        raise error

    monkeypatch.setattr(type(memory), "cat_file", no_range)
    assert streamed("memory://bucket").status == 1
    empty, other = (row["error"] for row in rows(tmp_path / "out"))
    assert empty == "the file is empty" and remote.UNREACHED in other


def test_an_error_names_the_address_of_an_archive_and_no_copy(
    streamed: Cli, memory: Any, tmp_path: Path
) -> None:
    memory.pipe_file("/bucket/a.tar", b"none" * 200)
    done = streamed("memory://bucket/a.tar")
    (row,) = rows(tmp_path / "out")
    assert done.status == 1 and row["error"].startswith("memory://bucket/a.tar: expected ")
    first = files(tmp_path / "out")
    assert streamed("memory://bucket/a.tar", "--overwrite").status == 1
    assert files(tmp_path / "out") == first
    memory.pipe_file("/bucket/a.csv", b"name\na.png\n")
    complaint = streamed("memory://bucket/a.csv", "--overwrite").complaint
    assert "memory://bucket/a.csv: expected " in complaint


def test_keys_of_a_bucket_have_any_letters(streamed: Cli, memory: Any, tmp_path: Path) -> None:
    shard, listed = "memory://bucket/a#1?b/c#.tar", "memory://bucket/a?.csv"
    memory.pipe_file(shard, make_tar(tmp_path / "a.tar", pngs(NAMES[:1])).read_bytes())
    memory.pipe_file(listed, b"image\nx#y?.png\n")
    memory.pipe_file("/bucket/x#y?.png", png())
    assert streamed("memory://bucket/a#1?b", shard, listed).status == 0
    wanted = [f"{shard}/{NAMES[0]}"] * 2 + ["memory://bucket/x#y?.png"]
    assert keys(tmp_path / "out", "") == wanted


def test_what_a_store_tells_of_a_folder_is_let_go(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry(dict[str, Any]):
        """Of which one can see whether it is in memory still."""

    entries: list[weakref.ref[Entry]] = []

    def listed(_: Any, path: str, **__: Any) -> list[Entry]:
        told = [Entry(name=f"{path}/{n}.png", type="file") for n in range(3)]
        entries.extend(map(weakref.ref, told))
        return told

    monkeypatch.setattr(type(memory), "ls", listed)
    assert next(remote.walk("memory://bucket")) == "memory://bucket/0.png"
    assert len(entries) == 3 and not any(entry() for entry in entries)

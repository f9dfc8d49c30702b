"""fetch_data.py --urls: pictures by a list of their addresses."""

from __future__ import annotations

import csv
import errno
import io
import time
from pathlib import Path

import pytest
from cli_runner import Cli, Done, script
from conftest import make_picture
from web_site import Site, left, site

from engine.fetching import addresses
from engine.fetching.addresses import Address, read_list, suffix_of
from scripts import fetch_data

__all__ = ["site"]  # a fixture


def picture(number: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    make_picture(number, fake=False, size=(16, 16)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def run(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs --urls on a list of paths of the site, three pictures and what is none among them."""
    for number, kind in enumerate(("png", "jpeg", "webp")):
        site.files[f"/{number}"] = picture(number, kind)
    site.files |= {"/page": b"<!DOCTYPE html>gone", "/same": site.files["/0"], "/empty": b""}
    call = script(capsys, "fetch_data.py: ", fetch_data.main)

    def run_it(paths: str, *more: object) -> Done:
        lines = [f"a cat\t{site.url}/{p}" if p.isalnum() else p for p in paths.split()]
        (tmp_path / "list.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = ("--urls", tmp_path / "list.tsv", "--output", tmp_path / "out", "--pace", 0)
        return call(*words, "--private", *more)

    return run_it


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """The table, by the ends of the addresses."""
    with (folder / "addresses.csv").open(newline="", encoding="utf-8") as stream:
        return {row["url"].rpartition("/")[2]: row for row in csv.DictReader(stream)}


def test_pictures_are_kept_and_the_rest_is_named(run: Cli, site: Site, tmp_path: Path) -> None:
    done = run("0 1 2 same gone page empty ftp://a.b/c.png")
    assert done.status == 1 and done.out == f"{tmp_path / 'out'}\n", done
    assert "8 addresses: 4 pictures, 4 dead, 0 of hosts that are away" in done.err
    table = rows(tmp_path / "out")
    for name, suffix in (("0", ".png"), ("1", ".jpg"), ("2", ".webp"), ("same", ".png")):
        path = tmp_path / "out" / table[name]["image"]
        assert path.read_bytes() == site.files[f"/{name}"] and path.suffix == suffix
        assert (table[name]["state"], table[name]["caption"]) == ("here", "a cat")
    assert table["same"]["image"] == table["0"]["image"]
    assert len([name for name in left(tmp_path / "out") if "/" in name]) == 3
    for name, said in (
        ("gone", "404"), ("page", "a web page"), ("empty", "an empty file"), ("c.png", "http://"),
    ):  # fmt: skip
        assert table[name]["state"] == "dead" and said in table[name]["error"]


def test_it_goes_on_without_asking_twice(run: Cli, site: Site, tmp_path: Path) -> None:
    assert run("0 gone").status == 1
    table = tmp_path / "out" / "addresses.csv"
    table.write_bytes(table.read_bytes() + b"http://half")
    site.asked.clear()
    assert run("0 gone 1").status == 1
    assert site.requests() == ["/1"]
    site.files["/gone"] = picture(9, "png")
    assert run("0 gone 1").status == 1 and site.requests() == ["/1"]
    assert run("0 gone 1", "--retry").status == 0 and site.requests() == ["/1", "/gone"]
    assert {row["state"] for row in rows(tmp_path / "out").values()} == {"here"}


def test_a_host_that_is_away_is_tried_once_and_again_next_time(
    run: Cli, site: Site, tmp_path: Path
) -> None:
    away = "http://127.0.0.1:9/a.png http://127.0.0.1:9/b.png"
    assert run(away).status == 2
    assert {row["state"] for row in rows(tmp_path / "out").values()} == {"away"}
    assert run(f"0 {away}").status == 1
    assert len(rows(tmp_path / "out")) == 3


@pytest.mark.parametrize("how", ["stated", "unstated"])
def test_sizes_are_limited(run: Cli, site: Site, tmp_path: Path, how: str) -> None:
    site.files["/0"] += bytes(100_000)
    site.lengths = how == "stated"
    assert run("0 1", "--max_size", "50K").status == 1
    table = rows(tmp_path / "out")
    assert (table["0"]["state"], table["1"]["state"]) == ("dead", "here")
    assert "50000 bytes" in table["0"]["error"]


def test_the_users_own_network_is_not_asked(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files["/0"] = picture(0, "png")
    port = site.url.rpartition(":")[2]
    lines = [f"{site.url}/0", f"http://localhost:{port}/0", f"http://[::ffff:127.0.0.1]:{port}/0"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    run = script(capsys, "fetch_data.py: ", fetch_data.main)
    done = run("--urls", tmp_path / "list.txt", "--output", tmp_path / "out", "--pace", 0)
    assert done.status == 2 and "3 dead" in done.err, done
    with (tmp_path / "out" / "addresses.csv").open(encoding="utf-8") as stream:
        assert all("private network" in row["error"] for row in csv.DictReader(stream))
    assert site.asked == []  # nothing was sent


def test_pauses_between_pictures_of_a_host(run: Cli, site: Site) -> None:
    start = time.monotonic()
    assert run("0 1 2", "--pace", 0.3).status == 0
    assert time.monotonic() - start >= 0.6


def test_a_list_by_its_address(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files |= {"/0": picture(0, "png"), "/list.txt": f"{site.url}/0\n".encode()}
    run = script(capsys, "fetch_data.py: ", fetch_data.main)
    done = run("--urls", f"{site.url}/list.txt", "--output", tmp_path / "out", "--private")
    assert done.status == 0 and site.requests() == ["/list.txt", "/0"]


def test_a_full_disk_ends_it_and_kills_no_address(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.png")

    with monkeypatch.context() as patch:
        patch.setattr(addresses, "write_file", full)
        assert "No space left" in run("0 1").complaint
    assert rows(tmp_path / "out") == {}
    assert run("0 1").status == 0


def test_lists(tmp_path: Path) -> None:
    def read(name: str, text: str, limit: int | None = None) -> list[tuple[str, str]]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return [(a.url, a.caption) for a in read_list(str(tmp_path / name), limit)]

    one, two = "https://a.b/1", "https://a.b/2?x=1,2"
    assert read("a.txt", f"{one}\r\n\n{two}\n{one}\n") == [(one, ""), (two, "")]
    assert read("b.tsv", f'a "cat\t{one}\n{two}\ta dog\n', 1) == [(one, 'a "cat')]
    assert read("b.tsv", f'a "cat\t{one}\n{two}\ta dog\n')[1] == (two, "a dog")
    table = f'id,url,caption\n7,{one},"a, cat"\n8,"{two}",\n'
    assert read("c.csv", table) == [(one, "a, cat"), (two, "")]
    with pytest.raises(ValueError, match=r"d.txt: expected an address a line"):
        read("d.txt", "nothing\n")


def test_kinds_are_told_by_content() -> None:
    kinds = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "gif": ".gif", "tiff": ".tif"}
    for kind, suffix in (kinds | {"avif": ".avif"}).items():
        assert suffix_of(picture(0, kind)) == suffix
    assert suffix_of(b"%PDF-1.7") is None and suffix_of(b"") is None
    assert Address("http://[broken/x").host == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--urls a.txt", "--output DIR"),
        ("--urls a.txt --output b --generators c", "--urls: expected without generators"),
        ("genimage --output b", "--output: expected --urls"),
        ("--urls /no/such --output b", "/no/such"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert said in script(capsys, "fetch_data.py: ", fetch_data.main)(*words.split()).complaint

"""Archives: whole and in volumes; damaged, dangerous and interrupted ones."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archive_makers import cut, make_7z, make_disks, make_tar, make_zip, pictures, tree_of

from engine.fetching import archive_names, unpacked
from engine.fetching.archive_names import beside, group
from engine.fetching.archives import Summary, extract
from engine.fetching.download import FetchError
from engine.fetching.unpacked import Layout

FILES = pictures()
KINDS = ("tar.gz", "zip", "7z", "disks")
each_kind = pytest.mark.parametrize("kind", KINDS)


def refused(parts: list[Path], target: Path, message: str, **more: Any) -> str:
    """The one line by which an archive is refused; nothing half done stays."""
    with pytest.raises(FetchError, match=message) as caught:
        extract(parts, target, **more)
    text = str(caught.value)
    assert "\n" not in text and str(parts[0].parent) in text
    assert not {archive_names.TEMPORARY, archive_names.INNER} & {p.name for p in target.rglob("*")}
    return text


def archive_with(tmp_path: Path, kind: str, files: dict[str, bytes]) -> Path:
    """An archive of a kind, whatever the names in it."""
    path = tmp_path / "in" / f"x.{kind}"
    if kind == "disks":
        return make_disks(path.parent, "x", files, 40 + sum(map(len, files.values())) // 3)[-1]
    if kind != "7z":
        return (make_tar if kind.startswith("tar") else make_zip)(path, files)
    py7zr = pytest.importorskip("py7zr")
    path.parent.mkdir(parents=True, exist_ok=True)
    with py7zr.SevenZipFile(path, "w") as archive:  # which checks names only when it is given them
        for number, content in enumerate(files.values()):
            archive.writestr(content, f"{number}")
        for info, name in zip(archive.header.files_info.files, files, strict=True):
            info["filename"] = name
    return path


# --- which files belong together


GROUPS: list[tuple[str, str, str, str | None]] = [
    ("a/X.tar.gz", "a/X.tar.gz", "a/X.tar.gz", None),
    ("a.png", "a.png", "a.png", None),
    ("X.tgz.10 X.tgz.9 X.tgz.2 X.tgz.1 X.tgz.0 X.tgz.3 X.tgz.4 X.tgz.5 X.tgz.6 X.tgz.7 X.tgz.8",
     "X.tgz", " ".join(f"X.tgz.{n}" for n in range(11)), None),
    ("X.7z.001 X.7z.003 X.7z.002", "X.7z", "X.7z.001 X.7z.002 X.7z.003", None),
    ("X.7z.001 X.7z.003", "X.7z", "X.7z.001 X.7z.003", "X.7z.002"),
    ("X.7z.003", "X.7z", "X.7z.003", "X.7z.001"),
    ("X.7z.1000 " + " ".join(f"X.7z.{n:03}" for n in range(1, 1000)), "X.7z",
     " ".join(f"X.7z.{n:03}" for n in range(1, 1001)), None),
    ("X.tar.gz.1 X.tar.gz.2", "X.tar.gz", "X.tar.gz.1 X.tar.gz.2", None),
    ("X.tar.gz.0 X.tar.gz.2", "X.tar.gz", "X.tar.gz.0 X.tar.gz.2", "X.tar.gz.1"),
    ("X.tgz.ab X.tgz.aa", "X.tgz", "X.tgz.aa X.tgz.ab", None),
    ("X.tgz.aa X.tgz.ac", "X.tgz", "X.tgz.aa X.tgz.ac", "X.tgz.ab"),
    ("X.tgz.ab", "X.tgz", "X.tgz.ab", "X.tgz.aa"),
    ("X.ZIP X.Z02 X.Z01", "X.ZIP", "X.Z01 X.Z02 X.ZIP", None),
    ("X.zip X.z02", "X.zip", "X.z02 X.zip", "X.z01"),
    ("X.z01", "X.zip", "X.z01", "X.zip"),
    ("X.zip.001 X.zip.002", "X.zip", "X.zip.001 X.zip.002", None),
    ("X.zip X.zip.001 X.zip.002", "X.zip", "X.zip", None),
    ("X.tar.gz.sha", "X.tar.gz.sha", "X.tar.gz.sha", None),
    ("X.tar.gz.2023", "X.tar.gz.2023", "X.tar.gz.2023", None),
]  # fmt: skip


def test_grouping() -> None:
    """Sums and notes beside an archive belong to none."""
    for names, name, volumes, missing in GROUPS:
        (archive,) = group(names.split())
        assert (archive.name, archive.missing) == (name, missing)
        assert archive.volumes == tuple(volumes.split())
    strays = ["X.tar.gz.txt", "X.tar.gz.sha", "X.tar.gz.md", "X.tar.gz.2023"]
    for endings in (("aa", "ab", "ac"), ("0", "1", "2"), ("001", "002", "003")):
        pieces = tuple(f"X.tar.gz.{ending}" for ending in endings)
        archive, *others = sorted(group([*strays, *pieces]), key=lambda a: -len(a.volumes))
        assert (archive.name, archive.volumes, archive.missing) == ("X.tar.gz", pieces, None)
        assert {other.name for other in others} == set(strays)
    folders = group(["a/X.zip", "b/X.z01", "b/X.zip", "a/Y.tar", "README.md"])
    assert [(a.name, len(a.volumes)) for a in folders] == [
        ("a/X.zip", 1), ("b/X.zip", 2), ("a/Y.tar", 1), ("README.md", 1),
    ]  # fmt: skip


# --- every kind


@pytest.mark.parametrize("kind", [*KINDS, "tar"])
def test_kinds(tmp_path: Path, kind: str) -> None:
    """Modes, owners and folders of the archive do not count."""

    def change(info: tarfile.TarInfo) -> None:
        info.mode, info.uid = 0o6777, 0

    if kind.startswith("tar"):
        path = make_tar(tmp_path / f"x.{kind}", {"./": b"", "./a/": b""} | FILES, change)
    else:
        path = archive_with(tmp_path, kind, FILES if kind == "7z" else {"a/": b""} | FILES)
    seen: list[int] = []
    assert extract([path], tmp_path / "out", advance=seen.append) == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    assert 0 < sum(seen) <= sum(part.stat().st_size for part in beside(path).values())
    assert not [p for p in (tmp_path / "out").rglob("*.png") if p.stat().st_mode & 0o7113]
    assert extract([path], tmp_path / "out") == Summary(0, 6)
    (tmp_path / "out" / "a" / "000.png").write_bytes(bytes(3000))
    assert extract([path], tmp_path / "out", overwrite=True) == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES


@pytest.mark.parametrize(("kind", "module"), [("7z", "py7zr"), ("zip", "stream_unzip")])
def test_packages_that_are_missing(
    tmp_path: Path, kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    parts = make_disks(tmp_path, "x", FILES, 4500) if kind == "zip" else [tmp_path / f"x.{kind}"]
    parts[0].write_bytes(b"7z\xbc\xaf\x27\x1c and so on")
    refused(parts, tmp_path / "out", "needs .*pip install " + module.replace("_", "-"))


@pytest.mark.parametrize(
    "ending",
    [lambda n: f".{n}", lambda n: f".{n + 1:03}", lambda n: f".a{chr(ord('a') + n)}"],
    ids=["0", "001", "aa"],
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_cut_up(tmp_path: Path, kind: str, ending: Callable[[int], str]) -> None:
    whole = archive_with(tmp_path, kind, FILES)
    parts = cut(whole, whole.stat().st_size // 12 + 1, ending)
    before = set(whole.parent.iterdir())
    assert len(before) == 12
    assert extract([parts[3]], tmp_path / "out") == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    assert set(whole.parent.iterdir()) == before  # nothing was joined on disk
    parts[-1].unlink()
    refused([parts[0]], tmp_path / "other", "x.*damaged or incomplete")
    parts[5].unlink()
    text = refused([parts[0]], tmp_path / "third", "expected all of its parts; .* is missing")
    assert parts[5].name in text


# --- zips over disks


@pytest.mark.parametrize(("size", "stored"), [(1000, False), (4500, True), (10**5, True)])
def test_zips_over_disks(tmp_path: Path, size: int, stored: bool) -> None:
    files = FILES | {"a/empty.txt": b"", "b/ünï.txt": b"x" * 2000}
    parts = make_disks(tmp_path, "x", files, size, stored)
    assert (len(parts) > 1) == (size < 10**5)
    for part in parts[:: len(parts) // 2 or 1]:
        assert list(beside(part).values()) == parts
    assert extract([parts[-1]], tmp_path / "out") == Summary(8, 0)
    assert tree_of(tmp_path / "out") == files


@pytest.mark.skipif(shutil.which("zip") is None, reason="no zip program")
def test_zips_over_disks_by_the_zip_program(tmp_path: Path) -> None:
    files = pictures(8, "a", 40_000)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", "x.zip", "a"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "a")
    assert len(list(tmp_path.glob("x.z*"))) > 3
    extract([tmp_path / "x.z01"], tmp_path / "out")
    assert tree_of(tmp_path / "out") == files


def test_disks_that_are_missing_or_of_others(tmp_path: Path) -> None:
    parts = make_disks(tmp_path / "x", "x", FILES, 4500)
    assert len(parts) == 5
    out = tmp_path / "out"
    parts[1].rename(tmp_path / "aside")
    assert "x.z02 is missing" in refused([parts[-1]], out, "all of its parts")
    shutil.copyfile(parts[0], parts[1])
    refused([parts[-1]], out, "damaged")
    (tmp_path / "aside").rename(parts[1])
    (tmp_path / "x" / "x.z05").write_bytes(b"more")
    refused([parts[-1]], out, "damaged or incomplete")
    (tmp_path / "x" / "x.z05").unlink()
    for part in parts[2:4]:
        part.unlink()
    refused([parts[-1]], out, "damaged or incomplete")
    parts[-1].unlink()
    assert "x.zip is missing" in refused([parts[0]], out, "all of its parts")


def test_bombs_over_disks(tmp_path: Path) -> None:
    """Whether the header tells what comes, tells less, or nothing."""
    zeros, out = {"a.png": bytes(8 << 20)}, tmp_path / "out"
    parts = make_disks(tmp_path, "x", zeros, 3000)
    refused(parts, out, "would unpack to 8388608")
    short = parts[0].read_bytes().replace((8 << 20).to_bytes(4, "little"), b"\x88\x13\0\0")
    parts[0].write_bytes(short)
    refused(parts, out, "longer than it says")
    parts = make_disks(tmp_path, "y", zeros, 3000, sizes=False)
    refused(parts, out, "at most 1000000, by --max_size", max_size=1_000_000)
    assert tree_of(out) == {}


# --- an archive within an archive, and layouts


def test_an_archive_within_an_archive(tmp_path: Path) -> None:
    inside = make_zip(tmp_path / "x.zip", FILES, zipfile.ZIP_STORED)
    parts = cut(archive_with(tmp_path, "7z", {"x.zip": inside.read_bytes()}), 5000,
                lambda n: f".{n + 1:03}")  # fmt: skip
    extract(parts, tmp_path / "plain")
    assert list(tree_of(tmp_path / "plain")) == ["x.zip"]
    assert extract(parts, tmp_path / "out", inner="x.zip") == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    with pytest.raises(FetchError, match=r"y.zip: expected an archive"):
        extract(parts, tmp_path / "other", inner="y.zip")


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_layouts(tmp_path: Path, kind: str) -> None:
    files = {"x/y/b/1.png": b"1", "x/y/b/2.png": b"2", "x/y/c/3.png": b"3", "x/note.txt": b"n"}
    litter = {"__MACOSX/x/y/b/._1.png": b"m", "x/.DS_Store": b"m"}
    path = archive_with(tmp_path, kind, files | litter)
    for number, (layout, expected) in enumerate((
        (Layout(), ["x/y/b/1.png", "x/y/b/2.png", "x/y/c/3.png", "x/note.txt"]),
        (Layout(frozenset({"x"})), ["y/b/1.png", "y/b/2.png", "y/c/3.png", "note.txt"]),
        (Layout(frozenset("yxz")), ["b/1.png", "b/2.png", "c/3.png", "note.txt"]),
        (Layout(frozenset("y")), ["x/y/b/1.png", "x/y/b/2.png", "x/y/c/3.png", "x/note.txt"]),
        (Layout(None), ["1.png", "2.png", "3.png", "note.txt"]),
        (Layout(frozenset("xy"), frozenset("C")), ["c/3.png", "note.txt"]),
    )):  # fmt: skip
        extract([path], tmp_path / f"{number}", layout)
        assert sorted(tree_of(tmp_path / f"{number}")) == sorted(expected)


def test_layouts_that_leave_nothing_or_too_much(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/1.png": b"1", "b/1.png": b"2"})
    refused([path], tmp_path / "out", "it holds 'b/1.png' twice", layout=Layout(None))
    only = Layout(only=frozenset("c"))
    refused([path], tmp_path / "out", "found none that are wanted", layout=only)
    refused([make_zip(path, {})], tmp_path / "out", "found none that are wanted")
    assert tree_of(tmp_path / "out") == {}


# --- dangerous ones


@each_kind
def test_names(tmp_path: Path, kind: str) -> None:
    for number, (name, message) in enumerate((
        ("../canary", "leads out"), ("a/../../canary", "leads out"), ("a/../b", "leads out"),
        ("/canary", "leads out"), ("C:/canary", "leads out"), ("a\\..\\canary", "leads out"),
        ("a/" + "x" * 256, "name too long"), ("a/\x1b[2J.png", "control characters"),
        (f"a/{archive_names.TEMPORARY}", "kept free"), (".FETCHED.json", "kept free"),
        (f"{archive_names.ARCHIVES}/hub/x.zip", "kept free"),
    )):  # fmt: skip
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        path = archive_with(tmp_path, kind, {"good.png": b"1", name: b"canary"})
        target = tmp_path / f"out{number}" / "deeper"
        refused([path], target, f"(?i){message}")
        assert not list(tmp_path.rglob("canary")) and not Path("/canary").exists()
        if "long" not in message:  # formats with a directory are checked before anything is written
            assert tree_of(target) == ({"good.png": b"1"} if kind in ("tar.gz", "disks") else {})


@each_kind
def test_members_that_meet(tmp_path: Path, kind: str) -> None:
    path = archive_with(tmp_path, kind, {"a": b"1", "a/y.png": b"2"})
    refused([path], tmp_path / "out", "a file stands where a folder belongs|File exists|damaged")
    if kind != "7z":  # whose library refuses such a name
        path = archive_with(tmp_path, kind, {"a/x.png": b"1", "./a//x.png": b"2"})
        refused([path], tmp_path / "other", "it holds './a//x.png' twice")


@pytest.mark.parametrize(
    ("type_", "mode", "message"),
    [
        (tarfile.SYMTYPE, stat.S_IFLNK, "link"),
        (tarfile.LNKTYPE, None, "link"),
        (tarfile.FIFOTYPE, stat.S_IFIFO, "neither a file nor a folder"),
        (tarfile.CHRTYPE, stat.S_IFCHR, "neither a file nor a folder"),
        (tarfile.GNUTYPE_SPARSE, stat.S_IFSOCK, "neither a file nor a folder"),
    ],
)
def test_links_and_devices(tmp_path: Path, type_: bytes, mode: int | None, message: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "odd":
            info.type, info.linkname, info.size = type_, "/etc/passwd", 0

    paths = [make_tar(tmp_path / "x.tar", {"good.png": b"1", "odd": b""}, change)]
    if mode:
        paths.append(make_zip(tmp_path / "x.zip", {"good.png": b"1"}))
        with zipfile.ZipFile(paths[1], "a") as archive:
            info = zipfile.ZipInfo("odd")
            info.external_attr = (mode | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    for path in paths:
        refused([path], tmp_path / path.suffix, f"'odd' is .*{message}")
        assert "odd" not in tree_of(tmp_path / path.suffix)


def test_links_in_7z(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "odd").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "x.7z", "w") as archive:
        archive.writeall(tmp_path / "in", "in")
    refused([tmp_path / "x.7z"], tmp_path / "out", "'in/odd' is a link")


@each_kind
def test_links_that_stand_in_the_target(tmp_path: Path, kind: str) -> None:
    """The target itself may be one: people put large sets on another disk."""
    path = archive_with(tmp_path, kind, {"a/b/1.png": b"1"})
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (out / "a").symlink_to(elsewhere)
    refused([path], out, "leads out of the folder, over a link")
    (out / "a").unlink()
    (out / "a").symlink_to("a")
    refused([path], out, "Too many levels of symbolic links|stands where a folder")
    (out / "a").unlink()
    (out / "a" / "b").mkdir(parents=True)
    (out / "a" / "b" / "1.png").symlink_to(elsewhere / "new")
    refused([path], out, "a folder or link stands where 'a/b/1.png' belongs")
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "link").symlink_to(elsewhere)
    extract([path], tmp_path / "link")
    assert tree_of(elsewhere) == {"a/b/1.png": b"1"}


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    zeros = {"a/1.png": bytes(8 << 20)}
    path = (make_zip(tmp_path / "x.zip", zeros, zipfile.ZIP_BZIP2) if kind == "zip"
            else archive_with(tmp_path, kind, zeros))  # fmt: skip
    refused([path], tmp_path / "out", f"would unpack to 8388608 .*{1000 * path.stat().st_size}")
    assert tree_of(tmp_path / "out") == {}
    path = archive_with(tmp_path / "small", kind, FILES)
    extract([path], tmp_path / "out", max_size=6 * 3000)
    refused([path], tmp_path / "other", "at most 17999, by --max_size", max_size=6 * 3000 - 1)


def test_bombs_of_headers_and_ends(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"comment": "x" * (18 << 20)}
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as archive:
        archive.addfile(info, io.BytesIO())
    refused([path], tmp_path / "out", "headers or an end of unusual length")
    plain = make_tar(tmp_path / "x.tar", FILES).read_bytes()
    path.write_bytes(gzip.compress(plain + bytes(1 << 19), 1))
    extract([path], tmp_path / "out")
    path.write_bytes(gzip.compress(plain + bytes(18 << 20), 1))
    refused([path], tmp_path / "out", "headers or an end of unusual length")
    path.write_bytes(gzip.compress(plain + bytes(1 << 20) + plain, 1))
    refused([path], tmp_path / "out", "expected nothing behind its end")


def test_zips_that_lie(tmp_path: Path) -> None:
    """About sizes, by names with zeros in them, or with a lock on them."""
    for size in (10, 5000):
        path = make_zip(tmp_path / "x.zip", {"a.png": os.urandom(3000)})
        content = bytearray(path.read_bytes())
        offset = content.index(b"PK\1\2") + 24
        content[offset : offset + 4] = size.to_bytes(4, "little")
        path.write_bytes(content)
        refused([path], tmp_path / "out", "damaged .*at 'a.png'")
    path = make_zip(tmp_path / "x.zip", {"a.png_b.exe": b"1"})
    path.write_bytes(path.read_bytes().replace(b"a.png_b.exe", b"a.png\0b.exe"))
    refused([path], tmp_path / "out", "has no plain name")
    path = make_zip(tmp_path / "x.zip", {"a.png": b"1"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    refused([path], tmp_path / "out", "it is encrypted")
    path = make_7z(tmp_path / "x.7z", {"a.png": b"1"}, password="secret")
    refused([path], tmp_path / "out", "it is encrypted")
    assert tree_of(tmp_path / "out") == {}


@each_kind
def test_limits(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = archive_with(tmp_path, kind, FILES), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(unpacked, "MAX_MEMBERS", 5)
        refused([path], out, "it has over 5 members")
    shutil.rmtree(out)
    usage = shutil.disk_usage(tmp_path)
    for free, message in ((10_000, "needs more than 10000 free bytes"), (18_000, ""), (0, "")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        if message:
            refused([path], out, message)
            shutil.rmtree(out)
        else:  # of what is there already nothing is left to write
            assert extract([path], out) == (Summary(6, 0) if free else Summary(0, 6))


# --- damaged ones


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_changed_bytes(tmp_path: Path, kind: str) -> None:
    path = archive_with(tmp_path, kind, pictures(3, "a", 50_000))
    content = bytearray(path.read_bytes())
    for offset in range(len(content) // 2, len(content) // 2 + 8):
        content[offset] ^= 0xFF
    path.write_bytes(content)
    text = refused([path], tmp_path / "out", "damaged.*get it again")
    if kind in ("zip", "7z"):
        assert "a/001.png" in text and "a/001.png" not in tree_of(tmp_path / "out")


def test_damaged_ends_and_headers_of_tars(tmp_path: Path) -> None:
    """Which the library takes for the end, or does not look at."""
    path = make_tar(tmp_path / "x.tar.gz", FILES)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    refused([path], tmp_path / "out", "damaged or incomplete .*CRC")
    path = make_tar(tmp_path / "x.tar", FILES)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[3].offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    refused([path], tmp_path / "out", "damaged or incomplete")
    os.truncate(path, offset)
    refused([path], tmp_path / "out", "a last part may be missing")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "7z"])
def test_other_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    for content, message in (
        (b"<!DOCTYPE html><html>", "found a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a pointer of git-lfs"),
        (b"", "found an empty file"),
        (b"nothing of the kind " * 100, "damaged or incomplete"),
    ):
        path.write_bytes(content)
        refused([path], tmp_path / "out", message)


def test_paths_that_are_none(tmp_path: Path) -> None:
    refused([tmp_path / "x.zip"], tmp_path / "out", "x.zip: expected an archive; found no such")
    refused([tmp_path / "no" / "x.zip"], tmp_path / "out", "expected an archive; No such file")
    (tmp_path / "x.png").touch()
    refused([tmp_path / "x.png"], tmp_path / "out", "expected an archive .*zip")
    (tmp_path / "d.zip").mkdir()
    refused([tmp_path / "d.zip"], tmp_path / "out", "expected an archive; found no such file")
    path = make_zip(tmp_path / "y.zip", FILES)
    (tmp_path / "file").touch()
    refused([path], tmp_path / "file", "File exists|Not a directory")


# --- interrupted ones


@each_kind
def test_going_on(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_with(tmp_path, kind, FILES)
    finished = 0
    replace = Path.replace

    def stop(self: Path, to: Path) -> Path:
        nonlocal finished
        if finished == 3:
            raise KeyboardInterrupt
        finished += 1
        return replace(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            extract([path], tmp_path / "out")
    there = tree_of(tmp_path / "out")
    assert len(there) == 3 and there.items() <= FILES.items()
    changed = tmp_path / "out" / next(iter(there))
    changed.write_bytes(b"half")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png") if p != changed}
    (changed.parent / archive_names.TEMPORARY).write_bytes(b"left by kill -9")
    assert extract([path], tmp_path / "out") == Summary(4, 2)
    assert tree_of(tmp_path / "out").items() >= FILES.items()
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_full_disk(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_with(tmp_path, kind, FILES)

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", *a, **k: Full() if mode == "xb"
                        else opened(self, mode, *a, **k))  # fmt: skip
    refused([path], tmp_path / "out", "No space left on device")
    assert tree_of(tmp_path / "out") == {}

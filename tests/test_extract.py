"""Archives: whole, cut up and over disks; damaged, dangerous and interrupted ones."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_makers import (
    cut,
    make_7z,
    make_disks,
    make_tar,
    make_zip,
    pictures,
    tree_of,
)  # fmt: skip

from engine.fetching import archive_target, untar
from engine.fetching.archive_names import Joined, beside, group
from engine.fetching.archive_target import ExtractError, Layout
from engine.fetching.archives import Summary, extract

HAS_7Z = importlib.util.find_spec("py7zr") is not None
needs_7z = pytest.mark.skipif(not HAS_7Z, reason="py7zr is not installed")
FILES = pictures()


def refused(parts: list[Path], target: Path, message: str, **more: object) -> str:
    """The one line by which an archive is refused; nothing half done stays."""
    with pytest.raises(ExtractError, match=message) as caught:
        extract(parts, target, **more)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text and str(parts[0].parent) in text
    assert not [path for path in target.rglob("*") if path.name == archive_target.TEMPORARY]
    return text


# --- which files belong together


@pytest.mark.parametrize(
    ("names", "name", "parts", "missing"),
    [
        (["a/X.tar.gz"], "a/X.tar.gz", ["a/X.tar.gz"], None),
        (["a.png"], "a.png", ["a.png"], None),
        ([f"X.tar.gz.{n}" for n in (10, 9, 2, 1, 0, 3, 4, 5, 6, 7, 8)], "X.tar.gz",
         [f"X.tar.gz.{n}" for n in range(11)], None),
        (["X.7z.001", "X.7z.003", "X.7z.002"], "X.7z",
         ["X.7z.001", "X.7z.002", "X.7z.003"], None),
        (["X.7z.001", "X.7z.003"], "X.7z", ["X.7z.001", "X.7z.003"], "X.7z.002"),
        (["X.tar.gz.1", "X.tar.gz.2"], "X.tar.gz", ["X.tar.gz.1", "X.tar.gz.2"], None),
        (["X.tar.gz.2"], "X.tar.gz", ["X.tar.gz.2"], "X.tar.gz.1"),
        (["X.tar.gz.0", "X.tar.gz.2"], "X.tar.gz", ["X.tar.gz.0", "X.tar.gz.2"], "X.tar.gz.1"),
        (["X.tgz.aa", "X.tgz.ac"], "X.tgz", ["X.tgz.aa", "X.tgz.ac"], "X.tgz.ab"),
        (["X.tgz.ab", "X.tgz.aa"], "X.tgz", ["X.tgz.aa", "X.tgz.ab"], None),
        (["X.zip", "X.z02", "X.z01"], "X.zip", ["X.z01", "X.z02", "X.zip"], None),
        (["X.ZIP", "X.Z02", "X.Z01"], "X.ZIP", ["X.Z01", "X.Z02", "X.ZIP"], None),
        (["X.zip", "X.z02"], "X.zip", ["X.z02", "X.zip"], "X.z01"),
        (["X.z01"], "X.zip", ["X.z01"], "X.zip"),
        (["X.zip.001", "X.zip.002"], "X.zip", ["X.zip.001", "X.zip.002"], None),
        (["X.7z.1000", *(f"X.7z.{n:03}" for n in range(1, 1000))], "X.7z",
         [*(f"X.7z.{n:03}" for n in range(1, 1000)), "X.7z.1000"], None),
        (["X.tgz.ab"], "X.tgz", ["X.tgz.ab"], "X.tgz.aa"),
        (["X.7z.003"], "X.7z", ["X.7z.003"], "X.7z.001"),
        (["X.tar.gz.sha"], "X.tar.gz.sha", ["X.tar.gz.sha"], None),
        (["X.tar.gz.2023"], "X.tar.gz.2023", ["X.tar.gz.2023"], None),
    ],
)  # fmt: skip
def test_grouping(names: list[str], name: str, parts: list[str], missing: str | None) -> None:
    (found,) = group(names)
    assert (found.name, list(found.parts), found.missing) == (name, parts, missing)


@pytest.mark.parametrize("ending", ["aa", "0", "1", "01", "001"])
def test_files_that_are_named_like_parts(tmp_path: Path, ending: str) -> None:
    """Sums and notes beside an archive belong to no archive."""
    whole = make_tar(tmp_path / "x.tar.gz", FILES)
    size, first = whole.stat().st_size // 4 + 1, int(ending) if ending.isdigit() else 0
    parts = cut(whole, size, lambda n: f".{n + first:0{len(ending)}}" if ending.isdigit()
                else f".a{'abcd'[n]}")  # fmt: skip
    strays = ["x.tar.gz.txt", "x.tar.gz.sha", "x.tar.gz.md", "x.tar.gz.2023"]
    for name in strays:
        (tmp_path / name).write_bytes(b"about x")
    found = {one.name: one for one in group(path.name for path in tmp_path.iterdir())}
    assert set(found) == {"x.tar.gz", *strays}
    assert found["x.tar.gz"].parts == tuple(part.name for part in parts)
    assert found["x.tar.gz"].missing is None
    assert extract([parts[2]], tmp_path / "out") == Summary(6, 0)
    refused([tmp_path / "x.tar.gz.sha"], tmp_path / "other", "expected an archive")


def test_other_folders_are_other_archives() -> None:
    found = group(["a/X.zip", "b/X.z01", "b/X.zip", "a/Y.tar", "README.md"])
    assert [(g.name, len(g.parts)) for g in found] == [
        ("a/X.zip", 1), ("b/X.zip", 2), ("a/Y.tar", 1), ("README.md", 1),
    ]  # fmt: skip


def test_each_part_leads_to_all(tmp_path: Path) -> None:
    parts = make_disks(tmp_path, "x", FILES, 5000)
    for part in parts:
        assert list(beside(part).values()) == parts


def test_reading_parts_as_one(tmp_path: Path) -> None:
    content = os.urandom(10_000)
    (tmp_path / "x").write_bytes(content)
    parts = cut(tmp_path / "x", 777, lambda n: f".{n}")
    with io.BufferedReader(Joined(parts)) as joined:
        assert joined.read() == content
        for start, size in ((0, 10), (770, 14), (776, 1), (777, 2000), (9990, 100), (20_000, 5)):
            joined.seek(start)
            assert joined.read(size) == content[start : start + size]
        assert joined.seek(-5, io.SEEK_END) == 9995
        with pytest.raises(OSError, match="within the file"):
            joined.seek(-1)
    assert Joined(parts, 100, 2000).readall() == content[100:2100]


# --- every kind


@pytest.mark.parametrize(
    ("ending", "same"),
    [("tar", "tar"), ("tar.gz", "tar.gz"), ("tgz", "tgz"), ("tar.bz2", "tar.bz2"),
     ("tbz2", "tar.bz2"), ("tbz", "tar.bz2"), ("tar.xz", "tar.xz"), ("txz", "tar.xz")],
)  # fmt: skip
def test_tars(tmp_path: Path, ending: str, same: str) -> None:
    made = make_tar(tmp_path / f"y.{same}", {"./": b"", "./a/": b""} | FILES)
    path = made.rename(tmp_path / f"x.{ending}")
    seen: list[int] = []
    assert extract([path], tmp_path / "out", advance=seen.append) == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    assert sum(seen) == path.stat().st_size
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*.png")}
    assert modes == {0o644 & ~os.umask(os.umask(0o22))} or modes == {0o644}


@pytest.mark.skipif(
    importlib.util.find_spec("backports") is None, reason="backports.zstd is not installed"
)
def test_zstd(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd")
    plain = make_tar(tmp_path / "x.tar", FILES)
    path = tmp_path / "x.tar.zst"
    path.write_bytes(zstd.compress(plain.read_bytes()))
    extract([path], tmp_path / "out")
    assert tree_of(tmp_path / "out") == FILES


def test_zstd_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tar.zst"
    path.write_bytes(b"anything")

    def none(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", none)
    refused([path], tmp_path / "out", "needs Python 3.14, or: pip install backports.zstd")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(tmp_path: Path, method: int) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/": b""} | FILES, method)
    seen: list[int] = []
    assert extract([path], tmp_path / "out", advance=seen.append) == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    assert 0 < sum(seen) <= path.stat().st_size


@needs_7z
@pytest.mark.parametrize("stored", [False, True])
def test_7z(tmp_path: Path, stored: bool) -> None:
    path = make_7z(tmp_path / "x.7z", FILES | {"a/empty.txt": b""}, stored=stored)
    assert extract([path], tmp_path / "out") == Summary(7, 0)
    assert tree_of(tmp_path / "out") == FILES | {"a/empty.txt": b""}
    assert extract([path], tmp_path / "out") == Summary(0, 7)


def test_7z_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.7z"
    path.write_bytes(b"7z\xbc\xaf\x27\x1c and so on")
    monkeypatch.setitem(__import__("sys").modules, "py7zr", None)
    refused([path], tmp_path / "out", "needs the package py7zr: ")


@pytest.mark.parametrize(
    "ending",
    [lambda n: f".{n}", lambda n: f".{n + 1:03}", lambda n: f".a{chr(ord('a') + n)}"],
    ids=["0", "001", "aa"],
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_cut_up(tmp_path: Path, kind: str, ending: Callable[[int], str]) -> None:
    if kind == "7z":
        pytest.importorskip("py7zr")
    makers = {"tar.gz": make_tar, "zip": make_zip, "7z": make_7z}
    whole = makers[kind](tmp_path / f"x.{kind}", FILES)
    parts = cut(whole, whole.stat().st_size // 12 + 1, ending)
    assert len(parts) == 12
    before = set(tmp_path.iterdir())
    assert extract(parts, tmp_path / "out") == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    assert extract([parts[3]], tmp_path / "again") == Summary(6, 0)
    assert {p for p in tmp_path.iterdir() if p.is_file()} == before  # nothing was joined on disk
    parts[5].unlink()
    text = refused([parts[0]], tmp_path / "third", "expected all of its parts; .* is missing")
    assert parts[5].name in text
    parts[-1].unlink()
    assert parts[5].name in refused([parts[0]], tmp_path / "third", "is missing")


def test_a_last_part_that_is_missing(tmp_path: Path) -> None:
    for kind in ("tar", "tar.gz", "zip"):
        make = make_zip if kind == "zip" else make_tar
        whole = make(tmp_path / f"x.{kind}", FILES)
        parts = cut(whole, 4096, lambda n: f".{n}")
        for part in parts[4:]:
            part.unlink()
        refused([parts[0]], tmp_path / "out", "x.*damaged or incomplete")


def test_a_tar_cut_between_members(tmp_path: Path) -> None:
    """Nothing but the missing end mark tells."""
    path = make_tar(tmp_path / "x.tar", FILES)
    with tarfile.open(path) as archive:
        place = archive.getmembers()[3].offset
    os.truncate(path, place)
    refused([path], tmp_path / "out", "a last part may be missing")


@pytest.mark.parametrize("stored", [False, True], ids=["deflated", "stored"])
@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("size", [1000, 4500, 9001, 100_000])
def test_zips_over_disks(tmp_path: Path, size: int, wide: bool, stored: bool) -> None:
    files = FILES | {"a/empty.txt": b"", "b/ünï.txt": b"x" * 2000}
    parts = make_disks(tmp_path, "x", files, size, wide, stored)
    assert (len(parts) > 1) == (size < 100_000)
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


def test_disks_that_are_missing(tmp_path: Path) -> None:
    parts = make_disks(tmp_path / "x", "x", FILES, 4500)
    assert len(parts) == 5
    parts[1].rename(tmp_path / "aside")
    assert "x.z02 is missing" in refused([parts[-1]], tmp_path / "out", "all of its parts")
    (tmp_path / "aside").rename(parts[1])
    for part in parts[2:4]:
        part.unlink()
    refused([parts[-1]], tmp_path / "out", "damaged or incomplete")
    parts[-1].unlink()
    assert "x.zip is missing" in refused([parts[0]], tmp_path / "out", "all of its parts")


def test_disks_of_others(tmp_path: Path) -> None:
    parts = make_disks(tmp_path, "x", FILES, 4500)
    (tmp_path / "x.z05").write_bytes(b"more")
    refused([parts[-1]], tmp_path / "out", "damaged or incomplete")
    (tmp_path / "x.z05").unlink()
    shutil.copyfile(parts[0], parts[1])
    refused([parts[-1]], tmp_path / "out", "damaged")
    parts[-1].write_bytes(b"no directory at all")
    refused([parts[-1]], tmp_path / "out", "damaged")


def test_zips_over_disks_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "stream_unzip", None)
    parts = make_disks(tmp_path, "x", FILES, 4500)
    refused(parts, tmp_path / "out", "needs the package stream-unzip: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [("../canary", "leads out of the folder"), ("/canary", "leads out of the folder"),
     ("a\\b", "leads out of the folder"), ("a/\x1b[2J", "control characters"),
     ("a/000.png", "holds 'a/000.png' twice")],
)  # fmt: skip
def test_names_in_zips_over_disks(tmp_path: Path, name: str, message: str) -> None:
    names = [*FILES, "b/777.png"]
    parts = make_disks(tmp_path, "x", dict.fromkeys(names, b"canary" * 400), 4500, stored=True)
    other = name.encode().rjust(9, b"/" if name[0] == "/" else b".") if len(name) < 9 else None
    for part in parts:
        content = part.read_bytes().replace(b"b/777.png", other or name.encode()[:9].ljust(9))
        part.write_bytes(content)
    refused(parts, tmp_path / "out" / "deeper", message)
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("known", [True, False])
def test_bombs_over_disks(tmp_path: Path, known: bool) -> None:
    """Whether the header tells what comes, tells less, or nothing."""
    size = 8 << 20
    parts = make_disks(tmp_path, "x", {"a.png": bytes(size)}, 3000)
    header = parts[0].read_bytes()
    if known:
        refused(parts, tmp_path / "out", "would unpack to 8388608")
        changed = header.replace(size.to_bytes(4, "little"), (5000).to_bytes(4, "little"))
        message = "longer than it says"
    else:  # sizes follow behind the content
        changed = header[:10] + (8 | 0x800).to_bytes(2, "little") + header[12:]
        message = "max_size says 1000000"
    parts[0].write_bytes(changed)
    refused(parts, tmp_path / "out", message, max_size=None if known else 1_000_000)
    assert tree_of(tmp_path / "out") == {}


@needs_7z
@pytest.mark.parametrize("stored", [False, True])
def test_an_archive_within_an_archive(tmp_path: Path, stored: bool) -> None:
    inside = make_zip(tmp_path / "x.zip", FILES, zipfile.ZIP_STORED)
    whole = make_7z(tmp_path / "x.7z", {"x.zip": inside.read_bytes()}, stored=stored)
    parts = cut(whole, 5000, lambda n: f".{n + 1:03}")
    extract(parts, tmp_path / "plain")
    assert list(tree_of(tmp_path / "plain")) == ["x.zip"]
    assert extract(parts, tmp_path / "out", inner="x.zip") == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES
    if not stored:
        refused(parts, tmp_path / "other", "y.zip: expected an archive", inner="y.zip")


# --- layouts


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(), ["x/y/b/1.png", "x/y/b/2.png", "x/y/c/3.png", "x/note.txt"]),
        (Layout(frozenset({"x"})), ["y/b/1.png", "y/b/2.png", "y/c/3.png", "note.txt"]),
        (Layout(frozenset("yxz")), ["b/1.png", "b/2.png", "c/3.png", "note.txt"]),
        (Layout(frozenset("y")), ["x/y/b/1.png", "x/y/b/2.png", "x/y/c/3.png", "x/note.txt"]),
        (Layout(frozenset("xybc")), ["1.png", "2.png", "3.png", "note.txt"]),
        (Layout(None), ["1.png", "2.png", "3.png", "note.txt"]),
        (Layout(frozenset("xy"), frozenset("c")), ["c/3.png", "note.txt"]),
    ],
)
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_layouts(tmp_path: Path, kind: str, layout: Layout, expected: list[str]) -> None:
    files = {"x/y/b/1.png": b"1", "x/y/b/2.png": b"2", "x/y/c/3.png": b"3", "x/note.txt": b"n"}
    litter = {"__MACOSX/x/y/b/._1.png": b"m", "x/.DS_Store": b"m"}
    path = (make_zip if kind == "zip" else make_tar)(tmp_path / f"a.{kind}", files | litter)
    extract([path], tmp_path / "out", layout)
    assert sorted(tree_of(tmp_path / "out")) == sorted(expected)


def test_files_that_meet_when_folders_go(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/1.png": b"1", "b/1.png": b"2"})
    refused([path], tmp_path / "out", "it holds 'b/1.png' twice", layout=Layout(None))
    assert tree_of(tmp_path / "out") == {}


def test_nothing_wanted(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a/1.png": b"1"})
    refused([path], tmp_path / "out", "found none that are wanted",
            layout=Layout(only=frozenset("b")))  # fmt: skip


# --- dangerous ones

NAMES = {
    "above": ("../canary", "leads out of the folder"),
    "above later": ("a/../../canary", "leads out of the folder"),
    "within": ("a/../b", "leads out of the folder"),
    "absolute": ("/canary", "leads out of the folder"),
    "drive": ("C:/canary", "leads out of the folder"),
    "backslash": ("a\\..\\canary", "leads out of the folder"),
    "long": ("a/" + "x" * 256, "has a name of over 255 bytes"),
    "long in bytes": ("a/" + "ü" * 128, "has a name of over 255 bytes"),
    "deep": ("/".join(["x" * 250] * 17)[1:] + "/a", "name too long"),
    "newline": ("a/b\nc.png", "has control characters"),
    "terminal": ("a/\x1b[2J.png", "has control characters"),
    "temporary": (f"a/{archive_target.TEMPORARY}", "has no file name to unpack to"),
    "record": (archive_target.RECORD, "has a name that is kept free"),
    "record in capitals": (archive_target.RECORD.upper(), "has a name that is kept free"),
    "lock": (archive_target.LOCK, "has a name that is kept free"),
    "downloads": (f"{archive_target.ARCHIVES}/hub/a/b/x.zip", "has a name that is kept free"),
    "doubt": (archive_target.DOUBT, "has a name that is kept free"),
    "inner": (f"a/{archive_target.INNER}/x.zip", "has a name that is kept free"),
}


def archive_with(tmp_path: Path, kind: str, files: dict[str, bytes]) -> Path:
    if kind == "7z":
        py7zr = pytest.importorskip("py7zr")
        path = tmp_path / "in" / "x.7z"
        path.parent.mkdir()
        with py7zr.SevenZipFile(path, "w") as archive:
            for number, content in enumerate(files.values()):
                archive.writestr(content, f"{number}")
            for info, name in zip(archive.header.files_info.files, files, strict=True):
                info["filename"] = name
        return path
    make = make_tar if kind.startswith("tar") else make_zip
    return make(tmp_path / "in" / f"x.{kind}", files)


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
@pytest.mark.parametrize("case", NAMES)
def test_names(tmp_path: Path, kind: str, case: str) -> None:
    name, message = NAMES[case]
    path = archive_with(tmp_path, kind, {"good.png": b"1", name: b"canary"})
    target = tmp_path / "out" / "deeper"
    refused([path], target, message)
    assert not list(tmp_path.rglob("canary")) and not Path("/canary").exists()
    assert tree_of(target) == ({} if kind != "tar.gz" else {"good.png": b"1"})


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a/x.png", "./a//x.png", "it holds './a//x.png' twice"),
        ("a", "a/y.png", "a file stands where a folder belongs"),
    ],
)
def test_members_that_meet(
    tmp_path: Path, kind: str, first: str, second: str, message: str
) -> None:
    if (kind, second) == ("7z", "./a//x.png"):
        pytest.skip("the reader of 7z refuses such names itself")
    path = archive_with(tmp_path, kind, {first: b"1", second: b"2"})
    refused([path], tmp_path / "out", message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.FIFOTYPE, "neither a file nor a folder"),
        (tarfile.CHRTYPE, "neither a file nor a folder"),
        (tarfile.BLKTYPE, "neither a file nor a folder"),
    ],
)
def test_special_members_of_tars(tmp_path: Path, kind: bytes, message: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "odd":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    path = make_tar(tmp_path / "x.tar", {"good.png": b"1", "odd": b""}, change)
    refused([path], tmp_path / "out", f"'odd' is.*{message.split()[-1]}")
    assert list(tree_of(tmp_path / "out")) == ["good.png"]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (stat.S_IFLNK, "is a link"),
        (stat.S_IFIFO, "neither a file nor a folder"),
        (stat.S_IFCHR, "neither a file nor a folder"),
        (stat.S_IFSOCK, "neither a file nor a folder"),
    ],
)
def test_special_members_of_zips(tmp_path: Path, mode: int, message: str) -> None:
    path = make_zip(tmp_path / "x.zip", {"good.png": b"1"})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("odd")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused([path], tmp_path / "out", f"'odd' is.*{message.split()[-1]}")
    assert tree_of(tmp_path / "out") == {}


@needs_7z
def test_links_in_7z(tmp_path: Path) -> None:
    import py7zr

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "odd").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "x.7z", "w") as archive:
        archive.writeall(tmp_path / "in", "in")
    refused([tmp_path / "x.7z"], tmp_path / "out", "'in/odd' is a link")


def test_modes_and_owners_do_not_count(tmp_path: Path) -> None:
    def change(info: tarfile.TarInfo) -> None:
        info.mode, info.uid = 0o6777, 0

    extract([make_tar(tmp_path / "x.tar", FILES, change)], tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.png"):
        assert path.stat().st_mode & 0o7133 == 0


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_links_that_stand_in_the_target(tmp_path: Path, kind: str) -> None:
    path = archive_with(tmp_path, kind, {"a/b/1.png": b"1"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    refused([path], tmp_path / "out", "leads out of the folder, over a link")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "out" / "a" / "b").mkdir(parents=True)
    (tmp_path / "out" / "a" / "b" / "1.png").symlink_to(tmp_path / "elsewhere" / "new")
    refused([path], tmp_path / "out", "a folder or link stands where 'a/b/1.png' belongs")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a/b.png": b"1"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to("a")
    refused([path], tmp_path / "out", "leads out of the folder, over a link|stands where a folder")
    (tmp_path / "self").symlink_to("self")
    refused([path], tmp_path / "self", "File exists")


def test_the_target_itself_may_be_a_link(tmp_path: Path) -> None:
    """People put large sets on another disk."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    extract([make_tar(tmp_path / "x.tar", FILES)], tmp_path / "out")
    assert tree_of(tmp_path / "elsewhere") == FILES


@pytest.mark.parametrize("kind", ["tar.xz", "zip", "7z"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    zeros = {"a/1.png": bytes(8 << 20)}
    if kind == "7z":
        pytest.importorskip("py7zr")
        path = make_7z(tmp_path / "x.7z", zeros)
    elif kind == "zip":
        path = make_zip(tmp_path / "x.zip", zeros, zipfile.ZIP_BZIP2)
    else:
        path = make_tar(tmp_path / "x.tar.xz", zeros)
    refused([path], tmp_path / "out", f"{path.stat().st_size} bytes would unpack to 8388608")
    assert tree_of(tmp_path / "out") == {}


def test_a_bomb_of_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"comment": "x" * (8 << 20)}
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())
    refused([tmp_path / "x.tar.gz"], tmp_path / "out", "headers or an end of unusual length")


def test_a_zip_that_says_less_or_more_than_it_holds(tmp_path: Path) -> None:
    for size in (10, 5000):
        path = make_zip(tmp_path / "x.zip", {"a.png": os.urandom(3000)})
        content = bytearray(path.read_bytes())
        place = content.index(b"PK\1\2") + 24
        content[place : place + 4] = size.to_bytes(4, "little")
        path.write_bytes(content)
        refused([path], tmp_path / "out", "its member 'a.png' is damaged|expected 5000 bytes")
        assert tree_of(tmp_path / "out") == {}


def test_names_that_are_cut_at_a_zero_byte(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.png_b.exe": b"1"})
    path.write_bytes(path.read_bytes().replace(b"a.png_b.exe", b"a.png\0b.exe"))
    refused([path], tmp_path / "out", "has no plain name")
    assert tree_of(tmp_path / "out") == {}


def test_an_empty_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {})
    refused([path], tmp_path / "out", "expected files to unpack; found none that are wanted")


def test_an_endless_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untar, "MAX_PADDING", 1 << 20)
    plain = make_tar(tmp_path / "x.tar", FILES).read_bytes()
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(plain + bytes(1 << 19)))
    extract([path], tmp_path / "out")
    path.write_bytes(gzip.compress(plain + bytes(3 << 20)))
    refused([path], tmp_path / "out", "headers or an end of unusual length")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_target, "MAX_MEMBERS", 5)
    for path in (make_zip(tmp_path / "x.zip", FILES), make_tar(tmp_path / "x.tar", FILES)):
        refused([path], tmp_path / "out", "it has over 5 members")


def test_the_largest_size(tmp_path: Path) -> None:
    for path in (make_zip(tmp_path / "x.zip", FILES), make_tar(tmp_path / "x.tar", FILES)):
        target = tmp_path / path.suffix
        extract([path], target, max_size=6 * 3000)
        refused([path], tmp_path / "out", "--max_size says 17999", max_size=6 * 3000 - 1)


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_free_space(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_with(tmp_path, kind, FILES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    refused([path], tmp_path / "out", "needs more than 10000 free bytes")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=18_000))
    extract([path], tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert extract([path], tmp_path / "out") == Summary(0, 6)  # nothing is left to write


def encrypt(path: Path) -> None:
    """Sets the flag; zipfile cannot write such."""
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def test_encrypted_ones(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.png": b"1"})
    encrypt(path)
    refused([path], tmp_path / "out", "it is encrypted")
    if HAS_7Z:
        path = make_7z(tmp_path / "x.7z", {"a.png": b"1"}, password="secret")
        refused([path], tmp_path / "out", "it is encrypted")


# --- damaged ones


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip", "7z"])
def test_changed_bytes(tmp_path: Path, kind: str) -> None:
    path = archive_with(tmp_path, kind, pictures(3, "a", 50_000))
    good = path.read_bytes()
    content = bytearray(good)
    for place in range(len(content) // 2, len(content) // 2 + 8):
        content[place] ^= 0xFF
    path.write_bytes(content)
    text = refused([path], tmp_path / "out", "damaged.*get it again")
    if kind in ("zip", "7z"):
        assert "a/001.png" in text and "a/001.png" not in tree_of(tmp_path / "out")
    path.write_bytes(good)
    extract([path], tmp_path / "out")  # what was written wrong, with the right size, is not kept
    assert tree_of(tmp_path / "out") == pictures(3, "a", 50_000)


def test_a_checksum_at_the_very_end(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar.gz", FILES)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    refused([path], tmp_path / "out", "damaged or incomplete .*CRC")


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", FILES)
    with tarfile.open(path) as archive:
        place = archive.getmembers()[3].offset
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    refused([path], tmp_path / "out", "damaged or incomplete")


def test_more_behind_the_end(tmp_path: Path) -> None:
    first = make_tar(tmp_path / "x.tar", FILES)
    second = make_tar(tmp_path / "y.tar", pictures(40, "b"))
    path = tmp_path / "z.tar.gz"
    path.write_bytes(gzip.compress(first.read_bytes() + bytes(1 << 20) + second.read_bytes()))
    refused([path], tmp_path / "out", "expected nothing behind its end")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip", "7z"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "found a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a pointer of git-lfs"),
        (b"", "found an empty file"),
        (b"nothing of the kind " * 100, "damaged or incomplete"),
    ],
)
def test_other_files(tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    if kind == "7z":
        pytest.importorskip("py7zr")
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content)
    refused([path], tmp_path / "out", message)


def test_paths_that_are_none(tmp_path: Path) -> None:
    refused([tmp_path / "x.zip"], tmp_path / "out", "x.zip: expected an archive; found no such")
    refused([tmp_path / "no" / "x.zip"], tmp_path / "out", "expected an archive; No such file")
    (tmp_path / "x.png").touch()
    refused([tmp_path / "x.png"], tmp_path / "out", "expected an archive .*zip")
    (tmp_path / "d.zip").mkdir()
    refused([tmp_path / "d.zip"], tmp_path / "out", "expected an archive; found no such file")


# --- interrupted ones


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
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
    (changed.parent / archive_target.TEMPORARY).write_bytes(b"left by kill -9")
    assert extract([path], tmp_path / "out") == Summary(4, 2)
    assert tree_of(tmp_path / "out") == FILES
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())


def test_overwriting(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", FILES)
    extract([path], tmp_path / "out")
    old = tmp_path / "out" / "a" / "000.png"
    old.write_bytes(bytes(3000))
    assert extract([path], tmp_path / "out") == Summary(0, 6)
    assert extract([path], tmp_path / "out", overwrite=True) == Summary(6, 0)
    assert tree_of(tmp_path / "out") == FILES


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "7z"])
def test_a_full_disk(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_with(tmp_path, kind, FILES)

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fdopen(handle: int, mode: str) -> Full:
        os.close(handle)
        return Full()

    monkeypatch.setattr(archive_target.os, "fdopen", fdopen)
    refused([path], tmp_path / "out", "No space left on device")
    assert tree_of(tmp_path / "out") == {}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "out").mkdir(mode=0o500)
    refused([path], tmp_path / "out", "Permission denied")


def test_memory_of_a_long_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile keeps every header unless it is told to forget."""
    path = make_tar(tmp_path / "x.tar", {f"{n}.txt": b"" for n in range(300)})
    kept: list[int] = []
    take = untar._take

    def count(
        archive: tarfile.TarFile, member: tarfile.TarInfo, target: archive_target.Target
    ) -> None:
        kept.append(len(archive.members))  # type: ignore[attr-defined]
        take(archive, member, target)

    monkeypatch.setattr(untar, "_take", count)
    extract([path], tmp_path / "out")
    assert len(kept) == 300 and max(kept) <= 1

"""Pictures in tar, zip, LMDB and Parquet files: one contract, then what is each one's own."""

from __future__ import annotations

import gzip
import json
import os
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from archive_makers import make_tar, make_zip
from cli_runner import Cli, cli, weights
from containers import png, pngs, write_lmdb, write_parquet
from PIL import Image

import datasets
from datasets import Label, LayoutError, Record, lmdb_file, parquet_file, tar_shards, zip_file
from datasets import _archives as archives
from datasets._images import PictureDataset, UnreadablePicture, read_bytes
from engine.runtime.workers import Workers, in_turn

__all__ = ["cli", "weights"]  # fixtures

REAL, FAKE = Label.REAL, Label.FAKE
TREE = [f"real/{i}.png" for i in range(6)] + [f"fake/gan/{i}.png" for i in range(6)]
Described = dict[str, tuple[Label | None, str, str]]


def rows_of(path: Path, files: dict[str, bytes]) -> Path:
    return write_parquet(path, list(files.items()))


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    ".tar": make_tar,
    ".zip": make_zip,
    ".lmdb": write_lmdb,
    ".parquet": rows_of,
}


@pytest.fixture(params=WRITERS)
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


Write = Callable[..., Path]


@pytest.fixture
def write(suffix: str, tmp_path: Path) -> Write:
    """Writes an archive of these files, or of pictures under these names."""

    def written(files: dict[str, bytes] | list[str], stem: str = "data") -> Path:
        content = files if isinstance(files, dict) else pngs(files)
        return WRITERS[suffix](tmp_path / f"{stem}{suffix}", content)

    return written


@pytest.fixture
def archive(write: Write) -> Path:
    """An archive of 6 real and 6 synthetic pictures."""
    return write(TREE)


def described(found: list[Record]) -> Described:
    return {r.key: (r.label, r.source, r.generator) for r in found}


def error_of(record: Record) -> str:
    with pytest.raises(UnreadablePicture) as caught:
        read_bytes(record)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- every container


def test_members_are_read_whatever_the_order(archive: Path) -> None:
    files = pngs(TREE)
    found = datasets.open_path(archive)
    assert [record.key for record in found] == sorted(TREE)
    for record in [*found, *found[::-1], *found[::3]]:
        assert read_bytes(record) == files[record.key]


def test_folders_state_label_source_and_generator(write: Write) -> None:
    names = ["test/cats/0_real/a.png", "test/cats/1_fake/b.JPG", "test/Fake\\sd\\x\\c.png"]
    found = datasets.open_path(write(names), "test")
    assert described(found) == {
        "test/cats/0_real/a.png": (REAL, "cats", ""),
        "test/cats/1_fake/b.JPG": (FAKE, "cats", "cats"),
        "test/Fake/sd/x/c.png": (FAKE, "", "sd"),
    }
    assert {read_bytes(record) for record in found} == set(pngs(names).values())


def test_names_of_any_letters(write: Write) -> None:
    names = ["real/naïve 图.png", "real/two.dots.png", 'real/comma, "quote".png', "real/a\nb.png"]
    names += ["real/UPPER.PNG", "real/" + 40 * "long" + ".png"]
    found = datasets.open_path(write(names, "ü "))
    assert {record.key: read_bytes(record) for record in found} == pngs(names)


def test_what_is_not_there_is_told(write: Write) -> None:
    path = write(["train/fake/b.png", "a.png"])
    found = datasets.open_path(path, labelled=False)
    assert described(found) == {"a.png": (None, "", ""), "train/fake/b.png": (FAKE, "", "fake")}
    with pytest.raises(LayoutError, match=r"found 'a\.png' without a label"):
        datasets.open_path(path)
    with pytest.raises(LayoutError, match=r"expected a split 'val' .*; found 'train' in its place"):
        datasets.open_path(path, "val")


def test_a_damaged_picture_is_listed(write: Write) -> None:
    files = pngs(["real/a.png", "fake/b.png"]) | {"real/c.png": b"no picture", "real/d.png": b""}
    dataset = PictureDataset(datasets.open_path(write(files)), size)
    errors = {dataset.records[i].key: dataset[i].error for i in range(len(dataset))}
    assert errors == {
        "fake/b.png": "",
        "real/a.png": "",
        "real/c.png": "not a picture in any known format",
        "real/d.png": "the file is empty",
    }


@pytest.mark.parametrize("content", [b"", b"no archive" * 1000, bytes(20_000)])
def test_what_is_no_archive(suffix: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with pytest.raises(LayoutError, match=r"expected .*; found") as caught:
        datasets.open_path(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_archive_that_may_not_be_read(archive: Path) -> None:
    archive.chmod(0)
    with pytest.raises(LayoutError, match="expected"):
        datasets.open_path(archive)


def test_a_folder_called_like_an_archive(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"data{suffix}").mkdir()
    with pytest.raises(LayoutError, match=r"expected pictures in real/"):
        datasets.open_path(tmp_path / f"data{suffix}")
    with pytest.raises(LayoutError, match=r"expected .*; found none"):
        datasets.load(archives.FORMATS[suffix]).records(tmp_path / f"data{suffix}")


def test_an_archive_that_changes_is_opened_anew(suffix: str, write: Write) -> None:
    path = write(["real/a.png", "real/b.png"])
    first, last = datasets.open_path(path)
    assert read_bytes(first) == png(0)
    other = {"real/a.png": png(7, size=(9, 9))}
    write(other, "other").replace(path)
    assert read_bytes(datasets.open_path(path)[0]) == other["real/a.png"]
    if suffix == ".tar":
        path.write_bytes(path.read_bytes()[:1024])
    assert "cannot be read" in error_of(last)  # it is not there any more
    path.unlink()
    assert error_of(first).startswith("cannot be read: ")


def test_more_archives_than_stay_open(write: Write) -> None:
    found = []
    for number in range(archives.AT_ONCE + 3):
        found += datasets.open_path(write({"real/a.png": png(number)}, str(number)))
    for _ in range(2):
        assert [read_bytes(record) for record in found] == [png(i) for i in range(len(found))]
    assert len(archives._pool._open) <= archives.AT_ONCE


def test_a_member_over_the_limit(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = datasets.open_path(archive)[0]
    monkeypatch.setattr(archives, "MAX_BYTES", len(pngs(TREE)[record.key]) - 1)
    assert error_of(record) == "cannot be read: too large: over 1 GiB"


def size(image: Image.Image, rng: object) -> tuple[bytes, tuple[int, int]]:
    return image.tobytes(), image.size


def test_workers_read_one_archive_at_once(write: Write) -> None:
    names = [f"real/{i:03}.png" for i in range(64)]
    found = datasets.open_path(write(names))
    dataset = PictureDataset(found, size)
    read_bytes(found[0])  # the parent has it open before it forks
    expected = [dataset[i] for i in range(len(dataset))]
    assert len({item.value for item in expected}) == len(names)
    for _ in range(2):
        turns = in_turn(dataset, 5, Workers(2))
        assert [item for items in turns for item in items] == expected
    assert [dataset[i] for i in range(len(dataset))] == expected


# Paths in a Parquet file are names if they can be: test_parquet_paths_that_are_no_names.
@pytest.mark.parametrize("suffix", [".tar", ".zip", ".lmdb"])
def test_names_are_of_pictures_inside(suffix: str, write: Write) -> None:
    names = ["real/a.png", "real/.hidden.png", "__MACOSX/._a.jpg", ".cache/b.png", "notes.txt"]
    assert [record.key for record in datasets.open_path(write(names))] == ["real/a.png"]
    for number, name in enumerate(("../a.png", "real/../../a.png", "/etc/a.png", "..\\a.png")):
        with pytest.raises(LayoutError, match="expected paths that stay inside the data; found"):
            datasets.open_path(write(["real/a.png", name], f"out{number}"))


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_a_wrong_byte_anywhere(tmp_path: Path, kind: str) -> None:
    """Costs a picture or the listing, never another kind of error."""
    path = WRITERS[kind](tmp_path / f"data{kind}", pngs(TREE[:3]) | {"real/0.json": b"{}"})
    content = path.read_bytes()
    for at in range(0, len(content), 61):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        os.utime(path, ns=(at, at))
        try:
            found = datasets.open_path(path, labelled=False)
        except LayoutError:
            continue
        for record in found:
            with suppress(UnreadablePicture):
                read_bytes(record)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "data.tar", pngs(["real/a.png", "./real//a.png"]))
    packed = make_zip(tmp_path / "data.zip", pngs(["real/a.png"]))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("real/a.png", png(1))
    for path in (tar, packed):
        with pytest.raises(LayoutError, match=r"found 'real/a\.png' twice"):
            datasets.open_path(path)


# --- which container


def test_a_folder_is_what_it_holds(tmp_path: Path) -> None:
    for folder, (suffix, write) in zip("abcd", WRITERS.items(), strict=True):
        write(tmp_path / folder / "sub" / f"x{suffix}", pngs(["real/a.png"]))
    expected = ["tar_shards", "folder", "folder", "parquet_file"]
    assert [datasets.kind_of(tmp_path / folder) for folder in "abcd"] == expected
    (tmp_path / "a" / "b.png").write_bytes(png())
    assert datasets.kind_of(tmp_path / "a") == "folder"
    rows_of(tmp_path / "both" / "x.parquet", pngs(["a.png"]))
    make_tar(tmp_path / "both" / "x.tar", pngs(["a.png"]))
    with pytest.raises(LayoutError, match="expected shards of one kind"):
        datasets.open_path(tmp_path / "both")


def test_names_without_a_family(tmp_path: Path) -> None:
    for name in ("a.7z", "a.png", "nothing", "x" * 5000):
        assert datasets.kind_of(tmp_path / name) is None
    (tmp_path / "a.7z").touch()
    with pytest.raises(LayoutError, match=r"\.tar, \.zip, \.lmdb, \.mdb, \.parquet; found neither"):
        datasets.open_path(tmp_path / "a.7z")
    for name in ("a.TAR", "a.tar.gz", "a.tgz", "a.tbz", "a.tbz2", "a.TZST", "a.tar.zst"):
        assert datasets.kind_of(tmp_path / name) == "tar_shards"


# --- tar


def labelled_tar(tmp_path: Path, sidecars: dict[str, bytes]) -> Path:
    return make_tar(tmp_path / "data.tar", pngs(["a/1.png", "a/2.png"]) | sidecars)


def test_tar_labels_beside_the_pictures(tmp_path: Path) -> None:
    said = {"label": 1, "generator": "sd", "source": "coco", "split": "val", "caption": "x"}
    path = make_tar(
        tmp_path / "data.tar",
        pngs(["1.png", "2.png", "3.seg.png", "4.png", "real/5.png", "fake/sd/6.png"])
        | {"1.cls": b" 0\n", "2.json": json.dumps(said).encode(), "3.json": b'{"class": 0.0}'}
        | {"4.JSON": b'{"label": "fake", "split": "train"}', "real/5.json": b'{"text": "a cat"}'}
        | {"fake/sd/6.cls": b"0"},  # which comes before the folder
    )
    assert described(tar_shards.records(path)) == {
        "1.png": (REAL, "", ""),
        "2.png": (FAKE, "coco", "sd"),
        "3.seg.png": (REAL, "", ""),
        "4.png": (FAKE, "", "fake"),
        "fake/sd/6.png": (REAL, "", ""),
        "real/5.png": (REAL, "", ""),
    }
    assert tar_shards.contents(path).splits() == {"train", "val", "real", "fake"}
    assert [r.key for r in tar_shards.records(path, "val")] == ["2.png"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a/1.cls", b"2", "'2'"),
        ("a/1.cls", b"\xff\n", "'\ufffd"),
        ("a/1.json", b'{"label": "cat"}', "'cat'"),
        ("a/1.json", b'{"label": true}', "'True'"),
        ("a/1.json", b'{"label": [1]}', r"'\[1\]'"),
        ("a/1.json", b"{broken", "'{broken'"),
        ("a/1.json", b"[" * 100_000, r"'\[+'"),
    ],
)
def test_tar_label_is_0_or_1(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    path = labelled_tar(tmp_path, {name: content, "a/2.cls": b"1"})
    with pytest.raises(LayoutError, match=rf"expected label 0 or 1; found {found} ?.*'a/1\.png'"):
        tar_shards.records(path)
    assert [r.label for r in tar_shards.records(path, labelled=False)] == [None, FAKE]


def test_tar_sidecar_of_a_size_that_is_none(tmp_path: Path) -> None:
    path = labelled_tar(tmp_path, {"a/1.json": b" " * (tar_shards.MAX_SIDECAR + 1)})
    with pytest.raises(LayoutError, match=r"expected 'a/1\.json' to be short; found over 1 MiB"):
        tar_shards.records(path)


def test_folder_of_shards(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    make_tar(root / "train" / "s-000001.tar", pngs(["1.png"]) | {"1.cls": b"1"})
    make_tar(root / "train" / "s-000000.tar", pngs(["1.png"]) | {"1.cls": b"0"})
    make_tar(root / "val" / "fake" / "sd" / "s.tar", pngs(["1.png", "2.png"]))
    (root / "sizes.json").write_text("{}", encoding="utf-8")
    expected: Described = {
        "train/s-000000.tar/1.png": (REAL, "", ""),
        "train/s-000001.tar/1.png": (FAKE, "", "fake"),
        "val/fake/sd/s.tar/1.png": (FAKE, "", "sd"),
        "val/fake/sd/s.tar/2.png": (FAKE, "", "sd"),
    }
    found = datasets.open_path(root)
    assert described(found) == expected
    assert [r.key for r in found] == sorted(expected)
    assert [r.key for r in datasets.open_path(root, "val")] == sorted(expected)[2:]
    assert read_bytes(found[0]) == read_bytes(found[1]) == png(0)


def test_tar_as_packed_from_a_folder(tmp_path: Path) -> None:
    """With ./ before the names, members for the folders, and long names in headers of their own."""
    (tmp_path / "in" / "real").mkdir(parents=True)
    long = "real/" + 150 * "n" + ".png"
    for name in ("real/a.png", long):
        (tmp_path / "in" / name).write_bytes(png())
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        with tarfile.open(path, "w", format=form) as archive:
            archive.add(tmp_path / "in", "./")
        found = tar_shards.records(path)
        assert [record.key for record in found] == ["real/a.png", long]
        assert {read_bytes(record) for record in found} == {png()}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_tar_with_links_or_devices(tmp_path: Path, kind: bytes) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if "link" in info.name:
            info.type, info.size, info.linkname = kind, 0, "/etc/passwd"

    path = make_tar(tmp_path / "data.tar", pngs(["real/a.png", "real/link.png"]), change)
    with pytest.raises(LayoutError, match=r"found 'real/link\.png', a link, a device"):
        tar_shards.records(path)


def test_tar_that_is_compressed(tmp_path: Path) -> None:
    plain = make_tar(tmp_path / "a.tar", pngs(["real/a.png"])).read_bytes()
    for path in (tmp_path / "x" / "a.tar.gz", tmp_path / "x" / "a.tgz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(plain))
        for named in (path, path.parent):
            with pytest.raises(LayoutError, match="found a compressed one: unpack it first"):
                datasets.open_path(named)
    (tmp_path / "a.tar").write_bytes(gzip.compress(plain))
    with pytest.raises(LayoutError, match="expected an uncompressed tar file"):
        datasets.open_path(tmp_path / "a.tar")


def test_tar_that_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it is: complete members are read, and one that is not complete says so."""
    names = ["real/a.png", "real/b.png", "real/c.png"]
    path, files = tmp_path / "data.tar", pngs(names)
    whole = make_tar(path, files).read_bytes()
    ends = []
    with tarfile.open(path) as archive:
        ends = [info.offset_data + info.size for info in archive]
    for cut in [512 + ends[0], *range(600, ends[-1] + 512, 97)]:
        path.write_bytes(whole[:cut])
        caplog.clear()
        found = tar_shards.records(path)
        readable = [n for n, end in zip(names, ends, strict=True) if end <= cut]
        assert [record.key for record in found][: len(readable)] == readable
        for record in found:
            if record.key in readable:
                assert read_bytes(record) == files[record.key]
            else:
                assert "the archive is cut off" in error_of(record)
        assert len(caplog.messages) == 1


def test_tar_that_is_cut_off_between_a_picture_and_its_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = [f"{i}.{extension}" for i in range(3) for extension in ("png", "cls")]
    files = {name: png(i) if name.endswith("png") else b"1" for i, name in enumerate(samples)}
    path = make_tar(tmp_path / "data.tar", files)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmember("2.cls")
    for cut in (last.offset, last.offset + 100, last.offset_data, last.offset_data + 1):
        path.write_bytes(whole[:cut])
        caplog.clear()
        found = [record.key for record in tar_shards.records(path)]
        assert found == ["0.png", "1.png", "2.png"][: 3 if cut > last.offset_data else 2]
        assert "what follows is left out" in caplog.text


def damaged(header: bytearray) -> None:
    header[10] ^= 0xFF


def negative(header: bytearray) -> None:
    header[124:136] = b"\xff" * 4 + struct.pack(">q", -1024)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)


@pytest.mark.parametrize("change", [damaged, negative])
def test_tar_with_a_header_that_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[bytearray], None]
) -> None:
    path = make_tar(tmp_path / "data.tar", pngs(["real/a.png", "real/b.png", "real/c.png"]))
    with tarfile.open(path) as archive:
        offset = archive.getmember("real/b.png").offset
    content = bytearray(path.read_bytes())
    header = content[offset : offset + 512]
    change(header)
    content[offset : offset + 512] = header
    path.write_bytes(content)
    assert [record.key for record in tar_shards.records(path)] == ["real/a.png"]
    [message] = caplog.messages
    assert str(path) in message and "what follows is left out" in message


# --- zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_member_with_a_wrong_sum(tmp_path: Path, method: int) -> None:
    files = {"real/a.png": png(0), "real/b.png": png(1)}
    path = make_zip(tmp_path / "data.zip", files, method)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("real/b.png")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len("real/b.png") + info.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    good, bad = zip_file.records(path)
    assert read_bytes(good) == png(0)
    assert error_of(bad).startswith("cannot be read: damaged in its zip file: ")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_with_other_compression(tmp_path: Path, method: int) -> None:
    """Which would be unpacked at once, however little of it is asked for."""
    [record] = zip_file.records(make_zip(tmp_path / "data.zip", pngs(["real/a.png"]), method))
    assert error_of(record) == (
        f"cannot be read: expected it stored or deflated; found method {method}"
    )


def patched(path: Path, local: int, central: int, form: str, value: int) -> None:
    """Overwrites a field of a zip's only member in both of its headers."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(b"PK\3\4") + local, value)
    struct.pack_into(form, content, content.index(b"PK\1\2") + central, value)
    path.write_bytes(content)


def test_zip_that_is_encrypted(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "data.zip", pngs(["real/a.png"]))
    patched(path, 6, 8, "<H", zip_file.ENCRYPTED)
    [record] = zip_file.records(path)
    assert (
        error_of(record) == "cannot be read: encrypted in its zip file: unpack it with the password"
    )


def test_zip_bomb(tmp_path: Path) -> None:
    """One that tells its size is refused, one that lies is read no further than it tells."""
    path = make_zip(tmp_path / "data.zip", {"real/a.png": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    patched(path, 22, 24, "<I", 1000)
    [record] = zip_file.records(path)
    assert "damaged in its zip file" in error_of(record)
    patched(path, 22, 24, "<I", (1 << 30) + 1)
    [record] = zip_file.records(path)
    assert error_of(record) == "cannot be read: too large: over 1 GiB"


def test_zip_with_a_link(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("real/a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(LayoutError, match=r"found 'real/a\.png', a link"):
        zip_file.records(path)


def test_zip_with_folders_and_backslashes(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "data.zip", {"real/": b"", "fake/a.png/": b""} | pngs(["fake\\b.png"])
    )
    [record] = zip_file.records(path)
    assert (record.key, record.label) == ("fake/b.png", FAKE)
    assert read_bytes(record) == png(0, fake=True)


# --- LMDB


@pytest.mark.parametrize("subdir", [True, False])
def test_lmdb_as_folder_or_file(tmp_path: Path, subdir: bool) -> None:
    path = write_lmdb(tmp_path / ("db" if subdir else "db.mdb"), pngs(TREE), subdir)
    assert datasets.kind_of(path) == "lmdb_file"
    found = datasets.open_path(path)
    assert [record.key for record in found] == sorted(TREE)
    assert all(record.path.is_file() for record in found)
    assert not (tmp_path / "db.mdb-lock").exists() or not subdir
    assert {r.key: read_bytes(r) for r in found} == pngs(TREE)


def test_lmdb_named_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lmdb(tmp_path / "db.lmdb", pngs(["real/a.png"]))
    monkeypatch.chdir(tmp_path)
    found = [*datasets.open_path(path), *datasets.open_path(Path("db.lmdb"))]
    assert [read_bytes(record) for record in found] == [png(), png()]


def test_lmdb_keys_that_are_no_text(tmp_path: Path) -> None:
    name = b"real/caf\xe9.png".decode("utf-8", "surrogateescape")
    [record] = lmdb_file.records(write_lmdb(tmp_path / "db.lmdb", {name: png(), "__len__": b"1"}))
    assert record.key == name
    assert read_bytes(record) == png()


@pytest.mark.parametrize("left", [100, 5000, 9000, -4096, -1])
def test_lmdb_that_is_cut_off(tmp_path: Path, left: int) -> None:
    """Reading on would kill the process."""
    path = write_lmdb(tmp_path / "db.lmdb", {f"real/{i}.png": bytes(3000) for i in range(50)})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(LayoutError, match=r"expected an LMDB.*; found"):
        lmdb_file.records(path)


# --- Parquet


def test_parquet_columns(tmp_path: Path) -> None:
    images = [png(i) for i in range(5)]
    path = write_parquet(
        tmp_path / "data.parquet",
        images,
        label=[0, 1, 1, 0, 1],
        generator=["camera", "sd", None, "", "sd"],
        source=["coco", "coco", "", "", None],
        split=["train", "train", "train", "val", "val"],
    )
    assert described(parquet_file.records(path)) == {
        "0000000": (REAL, "coco", ""),
        "0000001": (FAKE, "coco", "sd"),
        "0000002": (FAKE, "", "fake"),
        "0000003": (REAL, "", ""),
        "0000004": (FAKE, "", "sd"),
    }
    assert parquet_file.contents(path).splits() == {"train", "val"}
    found = parquet_file.records(path, "val")
    assert [read_bytes(record) for record in found] == images[3:]


def test_parquet_classes_by_the_names_of_the_file(tmp_path: Path) -> None:
    """Many sets call 0 what they name first, which may be the fakes."""
    path = tmp_path / "data.parquet"
    images = [png(0), png(1)]
    write_parquet(path, images, label=[0, 1], classes={"label": ["fake", "real"]})
    assert [r.label for r in parquet_file.records(path)] == [FAKE, REAL]
    write_parquet(path, images, label=[0, 1], classes={"label": ["cat", "dog"]})
    with pytest.raises(LayoutError, match=r"expected label 0 or 1; found 'cat' at '0000000'"):
        parquet_file.records(path)


@pytest.mark.parametrize("labels", [[0, 2], [1, -1], [0.5, 1.0], [True, False], ["0", "x"]])
def test_parquet_label_is_0_or_1(tmp_path: Path, labels: list[object]) -> None:
    path = write_parquet(tmp_path / "data.parquet", [png(0), png(1)], label=labels)
    with pytest.raises(LayoutError, match="expected label 0 or 1; found"):
        parquet_file.records(path)
    assert len(parquet_file.records(path, labelled=False)) == 2


@pytest.mark.parametrize(
    "paths",
    [["a.png", None], ["a.png", "a.png"], ["/home/me/a.png", "b.png"], ["../a.png", "b.png"]],
)
def test_parquet_paths_that_are_no_names(tmp_path: Path, paths: list[str | None]) -> None:
    rows = [(path, png(i)) for i, path in enumerate(paths)]
    found = parquet_file.records(write_parquet(tmp_path / "data.parquet", rows), labelled=False)
    assert [record.key for record in found] == ["0000000", "0000001"]
    assert [read_bytes(record) for record in found] == [png(0), png(1)]


def test_parquet_folder_as_on_a_hub(tmp_path: Path) -> None:
    for name, count in (("train-00000-of-00002", 2), ("train-00001-of-00002", 1)):
        rows = [(f"{i}.png", png(i)) for i in range(count)]
        write_parquet(tmp_path / "hub" / "data" / f"{name}.parquet", rows, label=[1] * count)
    rows = [(None, png(5))]
    write_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", rows, label=[0])
    (tmp_path / "hub" / "README.md").write_text("a set", encoding="utf-8")
    found = datasets.open_path(tmp_path / "hub")
    assert described(found) == {
        "data/test-00000-of-00001.parquet/0000000": (REAL, "", ""),
        "data/train-00000-of-00002.parquet/0.png": (FAKE, "", "fake"),
        "data/train-00000-of-00002.parquet/1.png": (FAKE, "", "fake"),
        "data/train-00001-of-00002.parquet/0.png": (FAKE, "", "fake"),
    }
    assert datasets.contents(tmp_path / "hub").splits() == {"train", "test"}
    assert [r.key for r in datasets.open_path(tmp_path / "hub", "test")] == [found[0].key]
    assert [read_bytes(record) for record in found] == [png(5), png(0), png(1), png(0)]


@pytest.mark.parametrize("budget", [0, 700, 1 << 20])
def test_parquet_rows_in_any_order_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    monkeypatch.setattr(parquet_file, "BUDGET", budget)
    images = [png(i) for i in range(20)]
    found = parquet_file.records(
        write_parquet(tmp_path / "data.parquet", images, rows=6), labelled=False
    )
    for order in (range(20), range(19, -1, -1), [3, 17, 4, 5, 5, 0, 19, 12, 7]):
        for row in order:
            assert read_bytes(found[row]) == images[row]
            assert parquet_file.held() <= max(budget, len(images[row]))


def test_parquet_rows_without_a_picture(tmp_path: Path) -> None:
    rows = [("a.png", png(0)), ("b.png", None), ("c.png", png(2))]
    found = parquet_file.records(write_parquet(tmp_path / "data.parquet", rows), labelled=False)
    assert error_of(found[1]) == "cannot be read: the row holds no picture"
    assert read_bytes(found[2]) == png(2)


def test_parquet_with_a_damaged_page(tmp_path: Path) -> None:
    """The row groups around it are read."""
    images = [os.urandom(500) for _ in range(9)]
    path = write_parquet(tmp_path / "data.parquet", images, rows=3)
    found = parquet_file.records(path, labelled=False)
    content = bytearray(path.read_bytes())
    at = content.index(images[3])
    content[at - 4 : at] = b"\xff\xff\xff\x7f"  # its length
    path.write_bytes(content)
    for row, record in enumerate(found):
        if 3 <= row < 6:
            assert "damaged in its Parquet file" in error_of(record)
        else:
            assert read_bytes(record) == images[row]


def test_parquet_without_pictures(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({"url": ["a"], "text": ["b"]}), path)
    with pytest.raises(LayoutError, match=r"expected .* the column image.*; found 'url, text'"):
        parquet_file.records(path)
    parquet.write_table(pa.table({"image": ["a.png"]}), path)
    with pytest.raises(LayoutError, match="bytes in the column image; found string"):
        parquet_file.records(path)


def test_parquet_columns_that_are_odd(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "data.parquet"
    write_parquet(path, [png()], label=[[1]], generator=[{"a": 1}], classes={"label": ["a", "b"]})
    [record] = parquet_file.records(path, labelled=False)
    assert (record.label, record.generator) == (None, "{'a': 1}")
    twice = pa.table([pa.array([png()]), pa.array([1]), pa.array([0])], ["image", "label", "label"])
    parquet.write_table(twice, path)
    with pytest.raises(LayoutError, match=r"expected .*; found a damaged file"):
        parquet_file.records(path)
    write_parquet(path, [])
    with pytest.raises(LayoutError, match=r"expected .*; found no picture"):
        parquet_file.records(path)


# --- packages that are not everywhere


@pytest.mark.parametrize(("package", "kind"), [("lmdb", ".lmdb"), ("pyarrow", ".parquet")])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, kind: str
) -> None:
    path = WRITERS[kind](tmp_path / f"data{kind}", pngs(["real/a.png"]))
    [record] = datasets.open_path(path)
    path.touch()  # to be opened anew
    os.utime(path, (1, 1))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        LayoutError, match=rf"expected the package {package}.*pip install {package}"
    ):
        datasets.open_path(path)
    assert f"pip install {package}" in error_of(record)


# --- the command line


def test_pictures_in_an_archive_score_as_they_do_outside(tmp_path: Path, cli: Cli) -> None:
    files = pngs(TREE[4:8], size=(48, 40)) | {"real/broken.png": b"x"}
    for name, content in files.items():
        file = tmp_path / "plain" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    outside = cli("--phase", "test", "--input", tmp_path / "plain", "--json")
    assert outside.status == 1
    for suffix, writer in WRITERS.items():
        path = writer(tmp_path / f"data{suffix}", files)
        inside = cli("--phase", "test", "--input", path, "--json", "--workers", 2)
        assert inside.status == 1
        assert inside.rows[0]["path"] == f"{path}/fake/gan/0.png"
        rows = [
            r | {"path": r["path"].replace(str(path), f"{tmp_path}/plain")} for r in inside.rows
        ]
        assert rows == outside.rows


def test_shards_beside_pictures_and_their_explanations(tmp_path: Path, cli: Cli) -> None:
    root = tmp_path / "shards"
    make_tar(root / "0.tar", pngs(["a/x.png"], size=(48, 40)))
    make_tar(root / "1.tar", pngs(["a/x.png"], size=(48, 40)))
    (tmp_path / "x.png").write_bytes(png(size=(48, 40)))
    output = tmp_path / "out"
    done = cli("--input", root, tmp_path / "x.png", "--json", "--explain", "--output", output)
    assert done.status == 0, done.err
    names = [f"{root}/0.tar/a/x.png", f"{root}/1.tar/a/x.png", str(tmp_path / "x.png")]
    assert [row["path"] for row in done.rows] == names
    drawn = [file.name.rpartition("_")[0] for file in (output / "explain").iterdir()]
    assert drawn == ["x", "x", "x"]


def test_evaluation_of_an_archive(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.reporting.drawing.png", lambda figure: b"not looked at")
    path = make_zip(tmp_path / "data.zip", pngs(TREE, size=(48, 40)))
    output = tmp_path / "out"
    done = cli("--phase", "eval", "--data", path, "--output", output, "--set", "score.resamples=2")
    assert done.status == 0, done.err
    lines = (output / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == sorted(TREE)


# --- what else lies in a folder


def test_archives_of_another_kind_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_tar(tmp_path / "a.tar", pngs(["real/a.png"]))
    assert len(datasets.open_path(tmp_path)) == 1 and not caplog.text
    make_zip(tmp_path / "x.zip", pngs(["real/a.png"]))
    assert len(datasets.open_path(tmp_path)) == 1
    assert "1 archives beside what is listed, left out, as 'x.zip'" in caplog.text
    (tmp_path / "stray.png").write_bytes(png())
    assert [r.key for r in datasets.open_path(tmp_path, labelled=False)] == ["stray.png"]
    assert "2 archives beside what is listed, left out, as 'a.tar'" in caplog.text

"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from engine.runtime import files
from engine.runtime.files import clear_leftovers, replacing, write_file


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xff\0", b"\xff\0"), ("ü\r\nb\n", b"\xc3\xbc\r\nb\n"), ("\udcff", b"\xff"), ("", b"")],
)
def test_content_is_written_as_it_is(tmp_path: Path, content: bytes | str, expected: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    assert write_file(path, content) == path
    assert path.read_bytes() == expected
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_is_cleared_by_name(tmp_path: Path) -> None:
    names = ["best.pth", "ü\n.csv"]
    left = [".best.pth.123.part", ".ü\n.csv.7.part"]
    kept = [
        *("best.pth", ".best.pth.part", ".best.pth.1.part.part", "best.pth.1.part"),
        *(".best.pth.1a.part", ".best.pth.٣.part", ".other.pth.1.part", ".a.best.pth.1.part"),
        *(".best.pth..part", ".best_pth.1.part", ".best.pth.5.123.part"),
    ]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".best.pth.9.part").mkdir()
    clear_leftovers(tmp_path, iter(names))
    assert {p.name for p in tmp_path.iterdir()} == {*kept, ".best.pth.9.part"}
    clear_leftovers(tmp_path / "missing", names)


def test_the_leftovers_are_those_of_replacing(tmp_path: Path) -> None:
    process = os.fork()
    if not process:
        with replacing(tmp_path / "best.pth") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert len(list(tmp_path.iterdir())) == 1
    clear_leftovers(tmp_path, ["best.pth"])
    assert not list(tmp_path.iterdir())


def test_the_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    synced = []

    def fsync(handle: int) -> None:
        assert not path.exists()
        synced.append(os.fstat(handle).st_size)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_file(path, b"12345")
    assert synced == [5]


def test_a_full_disk_is_said_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.txt") as raised:
        write_file(tmp_path / "a.txt", b"1")
    assert raised.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", "missing/a.txt"])
def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=name.replace(".", r"\.")):
        write_file(tmp_path / name, b"1")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_name_of_the_current_folder_is_an_error_too() -> None:
    with pytest.raises(OSError, match=r"'\.'"):
        write_file(Path("."), b"1")  # noqa: PTH201

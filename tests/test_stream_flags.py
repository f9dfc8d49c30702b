"""--split, --tag, --credentials with --stream: what a run without it says of the same pictures."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from archive_makers import make_tar
from cli_runner import Cli, cli, weights
from containers import pngs, write_parquet
from pyarrow import parquet
from test_credentials import png as png_with
from test_manifests import Authority, pem
from test_stream import NAMES, Row, a_folder, fill, read, rows, streamed
from test_stream_addresses import memory

from engine.plain_data import read_json
from engine.runtime.part_files import PARTS
from engine.runtime.run_folder import RUN

__all__ = ["cli", "memory", "streamed", "weights"]  # fixtures

WORDS = ("train", "val", "validation", "test", "valid")  # splits in turn, three of which are one
SPLITS = {name: WORDS[number % len(WORDS)] for number, name in enumerate(sorted(NAMES))}


def texts(output: Path) -> list[Row]:
    """The rows of all Parquet parts, as a CSV has them."""
    parts = [parquet.read_table(path).to_pylist() for path in sorted((output / PARTS).iterdir())]
    found = [row for part in parts for row in part]
    return [{k: "" if v is None else str(v) for k, v in row.items()} for row in found]


def check_same(cli: Cli, streamed: Cli, root: Path, status: int, *words: object) -> list[Row]:
    """The rows of a listing, which those of CSV and Parquet parts are."""
    assert cli(*words, "--output", root / "listed", "--batch_size", 2).status == status
    listed = read(root / "listed" / "predictions.csv")
    assert streamed(*words).status == status
    assert rows(root / "out") == listed
    assert streamed(*words, "--overwrite", form="parquet").status == status
    assert texts(root / "out") == listed
    return listed


# --- --split


def a_table(root: Path) -> Path:
    fill(root)
    path = root / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["split", "image"], *((s, n) for n, s in SPLITS.items())])
    return path


def a_parquet(root: Path, splits: dict[str, str] = SPLITS) -> Path:
    images = list(pngs(list(splits)).items())
    return write_parquet(root / "a.parquet", images, split=list(splits.values()))


def a_tar(root: Path) -> Path:
    stated = {f"{name[:-4]}.json": json.dumps({"split": s}).encode() for name, s in SPLITS.items()}
    return make_tar(root / "a.tar", pngs(list(SPLITS)) | stated)


def shards(root: Path) -> Path:
    """Two of three have pictures of the split."""
    for number, names in enumerate((NAMES[:4], [], NAMES[4:])):
        splits = {f"{number}{n}": "val" if n in names else "test" for n in NAMES}
        a_parquet(root, splits).rename(root / f"{number}.parquet")
    (root / "shards").mkdir()
    for path in list(root.glob("*.parquet")):
        path.rename(root / "shards" / path.name)
    return root / "shards"


@pytest.mark.parametrize("make", [a_table, a_parquet, a_tar, shards])
def test_a_split_is_that_of_a_listing(
    cli: Cli, streamed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    words = (make(tmp_path), "--split", "val")
    assert 0 < len(check_same(cli, streamed, tmp_path, 0, *words)) <= len(NAMES)
    other = streamed(words[0], "--split", "test", "--resume", form="parquet")
    assert "stream.split" in other.complaint
    if make is not a_table:  # archives without any have been looked at, too
        monkeypatch.setattr("engine.fetching.sources._members", None)
    assert streamed(*words, "--resume", form="parquet").status == 0


def test_a_split_of_what_has_none(streamed: Cli, memory: Any, tmp_path: Path) -> None:
    """A folder names it by its folders, which are not listed before the pictures are."""
    tree, table = a_folder(tmp_path), a_table(tmp_path)
    for source in (tree, tree / NAMES[0], "-"):
        assert "--split: " in streamed(table, source, "--split", "val").complaint
    memory.pipe_file("/bucket/val/a.png", b"")
    make_tar(tmp_path / "tars" / "val" / "a.tar", pngs(NAMES[:1]))
    for source in ("memory://bucket", tmp_path / "tars"):
        assert "--split: " in streamed(source, "--split", "val", "--overwrite").complaint
    done = streamed(shards(tmp_path), "--split", "dev", "--overwrite")
    assert done.status == 2 and "--split: " in done.err
    plain = tmp_path / "plain.csv"
    plain.write_text(f"image\n{NAMES[0]}\n")
    for name, source in (("split", plain), ("dev", table)):
        complaint = streamed(source, "--split", "dev", "--overwrite").complaint
        assert str(source) in complaint and name in complaint


# --- --tag


def test_a_tag_names_the_column_of_scores(cli: Cli, streamed: Cli, tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    assert cli(source, "--output", tmp_path / "listed", "--batch_size", 2).status == 0
    listed = read(tmp_path / "listed" / "predictions.csv")
    wanted = [{"mine" if k == "score" else k: v for k, v in row.items()} for row in listed]
    assert streamed(source, "--tag", "mine").status == 0
    assert rows(tmp_path / "out") == wanted
    assert read_json(tmp_path / "out" / RUN)["tag"] == "mine"
    for other in ((), ("--tag", "default")):  # as the detector is called, and the run without it
        assert "stream.score" in streamed(source, "--resume", *other).complaint
    assert streamed(source, "--tag", "mine", "--overwrite", form="parquet").status == 0
    assert texts(tmp_path / "out") == wanted
    assert "--tag: " in streamed(source, "--tag", "Label", "--overwrite").complaint


# --- --credentials


@pytest.fixture(scope="module")
def known() -> Authority:
    return Authority.new("Known")


@pytest.fixture
def told(tmp_path: Path, known: Authority) -> Path:
    """A signed picture, one that NovelAI wrote, one that cannot be decoded, and an empty one."""
    folder = tmp_path / "told"
    folder.mkdir()
    written = png_with(Software="NovelAI")
    files = {"a.jpg": known.sign(), "b.png": written, "c.png": written[:-30], "d.png": b""}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_credentials_are_those_of_a_listing(
    cli: Cli, streamed: Cli, told: Path, tmp_path: Path, known: Authority
) -> None:
    trust = tmp_path / "trust.pem"
    trust.write_bytes(pem(known.certificate))
    words = (told, "--credentials", "--trust_list", trust)
    listed = check_same(cli, streamed, tmp_path, 1, *words)
    states = [(row["c2pa"], row["metadata"], bool(row["error"])) for row in listed]
    assert states[0] == ("trusted", "", False)
    assert states[1:3] == [("none", "generator: NovelAI", False), ("none", states[2][1], True)]
    assert states[3] == ("", "", True)
    other = streamed(told, "--credentials", "--resume", form="parquet")
    assert "credentials" in other.complaint


def test_a_file_is_brought_once_for_its_score_and_credentials(
    streamed: Cli, memory: Any, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in told.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    usual, brought = type(memory).cat_file, Counter[str]()

    def counted(store: Any, path: str, **limits: Any) -> bytes:
        brought[path] += 1
        return bytes(usual(store, path, **limits))

    monkeypatch.setattr(type(memory), "cat_file", counted)
    assert streamed("memory://bucket", "--credentials").status == 1
    assert rows(tmp_path / "out")[1]["metadata"] == "generator: NovelAI"
    assert set(brought.values()) == {1} and len(brought) == 4


def test_credentials_are_told_where_pictures_are_decoded(
    streamed: Cli, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a file on which the process that decodes it dies."""
    assert streamed(told, "--credentials").status == 1
    wanted = rows(tmp_path / "out")
    assert streamed(told, "--credentials", "--overwrite", "--workers", 1).status == 1
    assert rows(tmp_path / "out") == wanted
    monkeypatch.setattr("datasets._images.decode", lambda *_: os._exit(9))
    assert streamed(told, "--credentials", "--overwrite", "--workers", 1).status == 1
    died = rows(tmp_path / "out")
    assert all("ended with status 9" in row["error"] for row in died[:3])
    assert [row["metadata"] for row in died] == [row["metadata"] for row in wanted]

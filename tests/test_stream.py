"""Phase test --stream: parts of what is listed lazily, from disks, buckets and the web."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive_makers import make_tar, make_zip, tree_of
from cli_runner import Cli, cli, weights
from containers import png, pngs, write_parquet
from pyarrow import parquet
from web_site import site

from datasets import folder
from datasets._record import walk_in_order
from engine.api import Scorer
from engine.plain_data import read_json
from engine.runtime.part_files import NOTES, PARTS, PartFiles
from engine.runtime.run_folder import RUN

__all__ = ["cli", "site", "weights"]  # fixtures

NAMES = [f"real/{n}.png" for n in range(5)] + [f"fake/gan/{n}.png" for n in range(4)]
Row = dict[str, str]


def fill(root: Path, names: list[str] = NAMES) -> Path:
    for name, content in pngs(names).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def table(path: Path, names: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image"], *([name] for name in names)])
    return path


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows(output: Path) -> list[Row]:
    """The rows of all CSV parts, in the order of their names."""
    return [row for path in sorted((output / PARTS).iterdir()) for row in read(path)]


def files(output: Path) -> dict[str, bytes]:
    return {n: c for n, c in tree_of(output).items() if n.startswith((PARTS, NOTES))}


@pytest.fixture
def streamed(cli: Cli, tmp_path: Path) -> Cli:
    """Streams inputs into a folder `out`, four pictures a part and two a batch."""
    first = ("--output", tmp_path / "out", "--batch_size", 2, "--shard_size", 3, "--stream")

    def run(*words: object, form: str = "csv", stdin: bytes = b"") -> Any:
        return cli(*first, form, *words, stdin=stdin)

    return run


# --- the same rows


def a_folder(root: Path) -> Path:
    return fill(root / "pictures")


def a_table(root: Path) -> Path:
    fill(root)
    return table(root / "list.csv", sorted(NAMES))


def a_tar(root: Path) -> Path:
    return make_tar(root / "a.tar", pngs(NAMES))


def a_zip(root: Path) -> Path:
    return make_zip(root / "a.zip", pngs(NAMES))


def shards(root: Path) -> Path:
    for name in ("a", "a-1", "b/a"):
        make_tar(root / "shards" / f"{name}.tar", pngs(NAMES[:4]))
    return root / "shards"


def a_parquet(root: Path) -> Path:
    return write_parquet(root / "a.parquet", list(pngs(NAMES).items()))


@pytest.mark.parametrize("make", [a_folder, a_table, a_tar, a_zip, shards, a_parquet])
def test_streaming_gives_the_rows_of_a_listing(
    cli: Cli, streamed: Cli, tmp_path: Path, make: Any
) -> None:
    source = make(tmp_path)
    assert cli(source, "--output", tmp_path / "listed", "--batch_size", 2).status == 0
    assert streamed(source).status == 0
    listed = read(tmp_path / "listed" / "predictions.csv")
    assert len(listed) >= len(NAMES) and rows(tmp_path / "out") == listed


def test_a_walk_is_in_the_order_of_keys(tmp_path: Path) -> None:
    names = ["a/b.png", "a-b/c.png", "a.png", "a/b/c.png", "a/b-c.png", "a/.x.png", "z.txt"]
    names += ["a.png.d/é.png", "a0/b.png", "B/x.png"]
    root = fill(tmp_path / "tree", names)
    (root / "link").symlink_to(root / "a")
    walked = [path.relative_to(root).as_posix() for path in walk_in_order(root)]
    assert walked == [record.key for record in folder.records(root, labelled=False)]


def test_parquet_has_the_rows_of_csv(streamed: Cli, tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    (source / "real" / "broken.png").write_bytes(b"none")
    assert streamed(source, "--stability").status == 1
    wanted = rows(tmp_path / "out")
    assert streamed(source, "--stability", "--overwrite", form="parquet").status == 1
    parts = parquet.read_table(tmp_path / "out" / PARTS).to_pylist()
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in parts]
    assert texts == wanted and wanted[-1]["error"] and len(wanted) == len(NAMES) + 1


def test_names_on_standard_input_are_pictures(streamed: Cli, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in a_folder(tmp_path).rglob("*.png"))
    assert streamed("-", stdin="\0".join(paths).encode()).status == 0
    first = rows(tmp_path / "out")
    assert [row["path"] for row in first] == paths
    assert streamed("-", "--overwrite", stdin="\n".join(paths).encode()).status == 0
    assert rows(tmp_path / "out") == first


def test_a_broken_archive_costs_a_row(streamed: Cli, tmp_path: Path) -> None:
    source = shards(tmp_path)
    (source / "a-1.tar").write_bytes(b"none" * 200)
    assert streamed(source).status == 1
    broken = [row for row in rows(tmp_path / "out") if row["error"]]
    assert [row["path"] for row in broken] == [str(source / "a-1.tar")]
    assert len(rows(tmp_path / "out")) == 9


# --- parts


def test_an_interrupted_run_goes_on_to_the_same_files(
    streamed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = (a_folder(tmp_path), a_tar(tmp_path))
    assert streamed(*sources).status == 0
    whole = files(tmp_path / "out")
    batches = 0

    def cut(*arguments: Any) -> Iterator[Any]:
        nonlocal batches
        for batch in usual(*arguments):
            if (batches := batches + 1) == 6:
                raise KeyboardInterrupt
            yield batch

    usual = Scorer.answers
    monkeypatch.setattr(Scorer, "answers", cut)
    assert streamed(*sources, "--overwrite").status == 130
    left = files(tmp_path / "out")
    assert 0 < len(left) < len(whole) and left.items() <= whole.items()
    # As a kill leaves them: half a part, and a part without its note.
    (tmp_path / "out" / PARTS / ".part-00001-00000.csv.7.part").write_text("path")
    (tmp_path / "out" / NOTES / "part-00000-00000.json").unlink()
    assert streamed(*sources, "--resume").status == 0
    assert files(tmp_path / "out") == whole


def test_an_archive_whose_parts_are_there_is_not_opened(
    streamed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shards(tmp_path)
    assert streamed(source).status == 0
    monkeypatch.setattr("engine.fetching.sources._members", None)
    assert streamed(source, "--resume").status == 0


def test_another_listing_is_no_run_to_go_on_with(streamed: Cli, tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    assert streamed(source).status == 0
    (source / "real" / "0.png").unlink()
    assert "--resume: " in streamed(source, "--resume").complaint
    assert "other stream.pictures" in streamed(source, "--resume", "--shard_size", 9).complaint
    # Of three parts a share has the first and the last, of which one is left that says nothing.
    share = ("--share", "1/2")
    assert streamed(fill(source), "--overwrite", *share).status == 0
    (source / "real" / "4.png").unlink()
    assert "had more pictures" in streamed(source, "--resume", *share).complaint


def test_a_part_without_a_note_is_no_part(streamed: Cli, tmp_path: Path) -> None:
    """Nor is a note without its part, also where the listing has neither any more."""
    source = a_folder(tmp_path)
    assert streamed(source).status == 0
    whole = files(tmp_path / "out")
    (tmp_path / "out" / NOTES / "part-00000-00002.json").rename(
        tmp_path / "out" / NOTES / "part-00000-00003.json"
    )
    (tmp_path / "out" / PARTS / "part-00000-00004.csv").write_text("path")
    assert streamed(source, "--resume").status == 0
    assert files(tmp_path / "out") == whole
    assert read_json(tmp_path / "out" / RUN)["counts"]["parts"] == 3


def test_a_run_of_another_mode_is_not_written_over(cli: Cli, streamed: Cli, tmp_path: Path) -> None:
    source, out = a_folder(tmp_path), tmp_path / "out"
    for first, second in ((streamed, cli), (cli, streamed)):
        words = (source, "--output", out, "--batch_size", 2)
        assert first(*words).status == 0
        left = tree_of(out)
        for word in ("--resume", "--overwrite"):
            assert "--stream" in second(*words, word).complaint
        assert tree_of(out) == left
        out = tmp_path / "other"


def test_notes_are_looked_for_once(
    streamed: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, looks = shards(tmp_path), 0
    assert streamed(source).status == 0
    usual = PartFiles.pieces

    def pieces(files: PartFiles) -> dict[int, list[int]]:
        nonlocal looks
        looks += 1
        return usual(files)

    monkeypatch.setattr(PartFiles, "pieces", pieces)
    assert streamed(source, "--resume").status == 0
    assert looks == 1


@pytest.mark.parametrize("missing", [None, "part-00000-00001.csv"])
def test_another_version_of_an_archive_is_no_run_to_go_on_with(
    streamed: Cli, tmp_path: Path, missing: str | None
) -> None:
    source = a_tar(tmp_path)
    assert streamed(source).status == 0
    if missing:
        (tmp_path / "out" / PARTS / missing).unlink()
    make_tar(source, dict.fromkeys(NAMES, png()))  # other pixels by the same names
    left = files(tmp_path / "out")
    complaint = streamed(source, "--resume").complaint
    assert "--resume: " in complaint and str(source) in complaint
    if missing:  # whose note says nothing any more
        del left[f"{NOTES}/{Path(missing).stem}.json"]
    assert files(tmp_path / "out") == left


def test_shares_are_apart_and_all_there_is(cli: Cli, tmp_path: Path) -> None:
    words = ("--stream", "csv", "--shard_size", 2, "--batch_size", 2)
    for source in (a_folder(tmp_path), shards(tmp_path)):
        outputs = [tmp_path / f"{source.name}{own}" for own in (1, 2, "all")]
        for own, output in enumerate(outputs, start=1):
            share = ("--share", f"{own}/2") if own < 3 else ()
            assert cli(source, *words, *share, "--output", output).status == 0
        one, other, both = map(files, outputs)
        assert one and other and not one.keys() & other.keys()
        assert one | other == both


# --- words


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--stream", "csv"), "--stream"), (("--share", "1/2", "--output", "o"), "--share"),
        (("--stream", "csv", "--output", "o", "--json"), "--json"),
        (("--stream", "csv", "--output", "o", "--explain"), "--explain"),
        (("--stream", "csv", "--output", "o", "--share", "3/2"), "--share"),
        (("--stream", "csv", "--output", "o", "--protocols", "file"), "--protocols"),
        (("s3://bucket/a",), "--stream"),
    ],
)  # fmt: skip
def test_flags_that_do_not_go_together(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], flag: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert flag in cli(a_folder(tmp_path), *words).complaint


def test_an_address_of_another_kind_is_no_input(streamed: Cli) -> None:
    assert "ftp://" in streamed("ftp://a.b/c.png").complaint


def test_nothing_is_no_run(streamed: Cli, tmp_path: Path) -> None:
    assert "found none" in streamed("-", stdin=b"\n").complaint
    empty = table(tmp_path / "empty.csv", [])
    assert "found none" in streamed(empty, "--overwrite").complaint

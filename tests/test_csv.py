"""CSV files and folders as people make them: read as they are meant, or refused with the place."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path

import pytest
from cli_runner import runner, script, write_weights
from conftest import make_picture

from datasets import Label, LayoutError, csv_file, walk_pictures
from datasets._csv import defused, plain, read_csv
from engine.config import ConfigError
from engine.runtime.table_writer import TableWriter
from engine.scoring.table import COLUMNS, ScoreRow, read_table

ROWS = b"image,class\na.png,0\nb.png,1\nc.png,0\n"


def written(folder: Path, content: bytes | str) -> Path:
    file = folder / "list.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,class,class\na.png,0,1\n", ("once", "'class'")),
        ("image, class ,class\na.png,0,1\n", ("once", "'class'")),
        ('image,class\na.png,0\n"b.png,1\nc.png,0\n', ("line 3", "quote")),
        ('image,class\na.png,0\n"b.png,1\nc.png,0\nd.png",1\n', ("line 3", "quote")),
        ('image,class\na.png,0\n"b.png"x,1\n', ("line 3", "quote")),
        ('image,class,note\na.png,0,"x\nb.png,1,y\nc.png,0,z"\n', ("line 2", "quote")),
        ('image,class,note\na.png,0,\nb.png,1,"x\nc.png,0\nd.png,1,z"\n', ("line 3", "quote")),
        ('image,class\n"a.png,0\nb.png,1\n\nc.png,0",1\n', ("line 2", "quote")),
        ("image,class,Class\na.png,0,1\n", ("once", "'Class'")),
        ("image,class\na.png,0,7\n", ("line 2", "found 3")),
        ("image;class\na.png;0\n", ("semicolons", "commas")),
        ("image\tclass\na.png\t0\n", ("tabs", "commas")),
        (ROWS.decode().encode("utf-16"), ("UTF-8",)),
        (b"image,class\nbild-\xe4.png,0\n", ("UTF-8",)),
        ("image,class\na\0.png,0\n", ("stay inside",)),
        ("image,class\n../a.png,0\n", ("absolute",)),
        ("image,class\n  ,0\n", ("stay inside",)),
        ("image,class\n" + "a" * 200_000 + ",0\n", ("line 2",)),
        ("", ("empty file",)),
    ],
)
def test_what_would_be_read_wrong_is_refused(
    tmp_path: Path, content: bytes | str, said: tuple[str, ...]
) -> None:
    with pytest.raises(LayoutError) as error:
        csv_file.records(written(tmp_path, content))
    for words in ("list.csv", *said):
        assert words in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        ROWS,
        b"\xef\xbb\xbf" + ROWS,
        ROWS.replace(b"\n", b"\r\n"),
        ROWS.replace(b"\n", b"\n\n"),
        b" image , class \n a.png , 0 \n\tb.png,1 \n c.png,0\n",
        b'"image","class"\n"a.png","0"\n"b.png","1"\n"c.png","0"\n',
        b'image,class,prompt\na.png,0,"two\nlines, here"\nb.png,1,\nc.png,0\n',
    ],
)
def test_forms_that_mean_the_same(tmp_path: Path, content: bytes) -> None:
    found = csv_file.records(written(tmp_path, content))
    assert [(r.key, r.label) for r in found] == [("a.png", 0), ("b.png", 1), ("c.png", 0)]
    assert [r.path for r in found] == [tmp_path / r.key for r in found]


def test_blanks_are_part_of_a_path_where_there_is_such_a_file(tmp_path: Path) -> None:
    for name in (" a.png", "b.png"):
        (tmp_path / name).touch()
    found = csv_file.records(
        written(tmp_path, "image,class, generator \n a.png,1, x \n b.png,0,\n")
    )
    assert [(r.key, r.generator) for r in found] == [(" a.png", "x"), ("b.png", "")]


def test_a_name_with_a_line_break(tmp_path: Path) -> None:
    [found] = csv_file.records(written(tmp_path, 'image,class\n"a\nb.png",0\n'))
    assert found.key == "a\nb.png"


def test_absolute_paths_are_read(tmp_path: Path) -> None:
    """One inside the folder is the same picture as by its relative path."""
    (tmp_path / "lists").mkdir()
    inside, outside = tmp_path / "lists" / "a.png", tmp_path / "b.png"
    file = written(tmp_path / "lists", f"image,class\n{inside},0\n{outside},1\n")
    for root in (None, Path("/"), tmp_path):
        found = csv_file.records(file, csv_root=root)
        assert {(r.path, r.label) for r in found} == {(inside, Label.REAL), (outside, Label.FAKE)}
    assert [r.key for r in csv_file.records(file)] == [str(outside), "a.png"]
    file.write_text(f"image,class\n{inside},0\na.png,0\n")
    with pytest.raises(LayoutError, match="once"):
        csv_file.records(file)


def test_duplicate_columns_are_refused_by_every_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from scripts import auc_table, augment_csv, contact_sheet, train_default

    for name in ("list.csv", "fake_a.csv", "real_a.csv"):
        (tmp_path / name).write_text("image,class,split,class,s\na.png,0,val,1,0.5\n")
    main = runner(capsys, caplog, monkeypatch, "--device", "cpu")
    file, out = tmp_path / "list.csv", tmp_path / "out"
    runs = [
        main("--input", file),
        main("--phase", "eval", "--data", file),
        script(capsys, "auc_table.py: ", auc_table.main)(tmp_path),
        script(capsys, "augment_csv.py: ", augment_csv.main)(file, "--output", out),
        script(capsys, "contact_sheet.py: ", contact_sheet.main)("--data", file, "--output", out),
        script(capsys, "train_default.py: ", train_default.main)(file, "--output", out),
    ]
    for done in runs:
        assert "'class' several times" in done.complaint


# --- what is written


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\r=x", "'=x", "''=x", "'"])
def test_cells_come_back_as_they_were(tmp_path: Path, text: str) -> None:
    """And none begins as a formula does."""
    assert plain(defused(text)) == text
    assert defused(text)[0] == "'"
    row = ScoreRow(text, text, text, 1, -1.5, 0.25, "", text, 3, 4)
    file = tmp_path / "scores.csv"
    with TableWriter(file, COLUMNS, ("key",), False) as table:
        table.append([[getattr(row, name) for name in COLUMNS]])
    assert read_table(file) == [row]
    with TableWriter(file, COLUMNS, ("key",), True) as table:
        assert table.done == {(text,)}


@pytest.mark.parametrize("text", ["-1.5", "+1", "1e-3", "a=b", "", "it's", "'quoted'"])
def test_numbers_and_words_stay(text: str) -> None:
    assert defused(text) == plain(text) == text


def test_formulas_among_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A table goes through phase test, and its result may be the next input."""
    monkeypatch.chdir(tmp_path)
    name = "=HYPERLINK(1).png"
    for place in (name, "b.png"):
        make_picture(0, fake=False).save(place)
    file = written(tmp_path, f"image,note,shift\n{name},@SUM(1),-2\nb.png,,\n")
    flags = ("--device", "cpu", "--weights", write_weights(tmp_path / "w.safetensors"))
    cli = runner(capsys, caplog, monkeypatch, *flags)
    assert cli("--input", file, name, "--output", "out").status == 0
    first = (tmp_path / "out" / "predictions.csv").read_bytes()
    again = cli("--input", file, name, "--output", "out", "--resume")
    assert (again.status, again.out) == (0, "")
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == first
    with (tmp_path / "out" / "list.csv").open(newline="") as stream:
        raw = list(csv.reader(stream))
    assert [row[:3] for row in raw[1:]] == [[f"'{name}", "'@SUM(1)", "-2"], ["b.png", "", ""]]
    _, rows = read_csv(tmp_path / "out" / "list.csv")
    assert [row["image"] for row in rows] == [name, "b.png"]


@pytest.mark.parametrize(
    ("logit", "score", "said"),
    [("inf", "1.0", "finite"), ("nan", "0.5", "finite"), ("0.0", "1.5", "between 0 and 1"),
     ("0.0", "-0.1", "between 0 and 1"), ("0.0", "nan", "between 0 and 1")],
)  # fmt: skip
def test_scores_that_are_none_are_refused(
    tmp_path: Path, logit: str, score: str, said: str
) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(f"{','.join(COLUMNS)}\na,,,1,{logit},{score},,none,3,4,\n")
    with pytest.raises(ConfigError, match=said):
        read_table(file)


# --- folders


def test_an_unreadable_folder_costs_its_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/1.png", "locked/2.png", "z/3.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "z" / "round").symlink_to(tmp_path)
    opened = os.scandir

    def scandir(place: str | Path) -> object:
        # Permissions do not bind the superuser, who may run the tests.
        if Path(place).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return opened(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = [path.relative_to(tmp_path).as_posix() for path in walk_pictures(tmp_path)]
    assert found == ["a/1.png", "z/3.png"]
    locked, link = caplog.messages
    assert str(tmp_path / "locked") in locked and "Permission denied" in locked
    assert str(tmp_path / "z" / "round") in link
    with pytest.raises(LayoutError, match="readable folder"):
        list(walk_pictures(tmp_path / "locked"))

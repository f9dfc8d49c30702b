"""--credentials: what files say of themselves stands beside each score, and never changes one."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from cli_runner import Cli, cli, weights
from test_credentials import png
from test_manifests import Authority, pem

__all__ = ["cli", "weights"]  # fixtures


@pytest.fixture(scope="module")
def known() -> Authority:
    return Authority.new("Known")


@pytest.fixture
def folder(tmp_path: Path, known: Authority) -> Path:
    """A signed picture, one that NovelAI wrote, one that says nothing, and a broken one."""
    path = tmp_path / "pictures"
    path.mkdir()
    files = {"a.jpg": known.sign(), "b.png": png(Software="NovelAI"), "c.png": png(), "d.png": b""}
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def trust(tmp_path: Path, known: Authority) -> Path:
    path = tmp_path / "trust.pem"
    path.write_bytes(pem(known.certificate))
    return path


def test_the_object_of_json_has_them_and_the_same_score(
    cli: Cli, folder: Path, trust: Path
) -> None:
    plain = cli("--json", "--input", folder).rows
    done = cli("--json", "--credentials", "--trust_list", trust, "--input", folder)
    assert done.status == 1  # the broken picture
    rows = done.rows
    signed, written, silent, broken = [row.pop("credentials") for row in rows]
    assert rows == plain
    assert signed["c2pa"]["state"] == "trusted"
    assert signed["c2pa"]["manifests"][0]["actions"][0]["action"] == "c2pa.created"
    assert written["statements"] == [
        {"kind": "generator", "text": "NovelAI", "where": "PNG Software"}
    ]
    assert (silent["statements"], silent["c2pa"]["state"]) == ([], "none")
    assert broken is None


def test_lines_stand_below_each_verdict(cli: Cli, folder: Path) -> None:
    plain = cli("--input", folder).out.splitlines()
    lines = cli("--credentials", "--input", folder).out.splitlines()
    assert [line for line in lines if not line.startswith(" " * 8)] == plain
    below = lines[lines.index(plain[1]) + 1 : lines.index(plain[2])]
    assert below == [f"{'':8}generator: NovelAI  [PNG Software]", f"{'':8}c2pa: none"]
    assert "unknown signer" in lines[1]


def test_predictions_have_columns_of_them(
    cli: Cli, folder: Path, tmp_path: Path, trust: Path
) -> None:
    output = tmp_path / "out"
    flags = ("--credentials", "--input", folder, "--output", output)
    assert cli(*flags).status == 1
    with (output / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = [(row["c2pa"], row["issuer"], row["metadata"]) for row in rows]
    assert found == [
        ("unknown_signer", "Signer of Known", ""), ("none", "", "generator: NovelAI"),
        ("none", "", ""), ("", "", ""),
    ]  # fmt: skip
    assert json.loads((output / "run.json").read_text())["credentials"] == {"trust_list": None}
    assert cli(*flags, "--resume").status == 1
    other = cli(*flags, "--trust_list", trust, "--resume")
    assert "credentials" in other.complaint


def test_the_prompt_tells_them_below_its_line(cli: Cli, folder: Path) -> None:
    done = cli("--credentials", stdin=f"{folder / 'b.png'}\n\n".encode())
    assert done.out.splitlines()[1].strip() == "generator: NovelAI  [PNG Software]"


def test_without_the_package_one_line_says_so(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    done = cli("--credentials", "--json", "--input", folder)
    assert [row["credentials"]["c2pa"]["state"] for row in done.rows[:3]] == [
        "unchecked", "none", "none",
    ]  # fmt: skip
    assert sum("pip install c2pa-python" in line for line in done.log) == 1

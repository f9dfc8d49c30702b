"""What the docs say: pictures drawn again, and flags, options, files and links that exist."""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import script
from conftest import ROOT
from PIL import Image

import detectors
from engine import config, plain_data
from engine.cli import parser as command_line
from engine.phases import eval
from engine.scoring import superres
from engine.training import outputs
from scripts import draw_methods

METHODS = ROOT / "docs" / "methods"
LARGEST = 60_000  # bytes of a picture


def test_methods_are_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = script(capsys, "draw_methods.py: ", draw_methods.main)
    done = run(ROOT / "data/examples/real/chelsea.png", "--output", tmp_path)
    assert done.status == 0, done.err
    drawn = [Path(line) for line in done.out.splitlines()]
    assert drawn == [tmp_path / f"{name}.png" for name in draw_methods.METHODS]
    for path in drawn:
        with Image.open(path) as image, Image.open(METHODS / path.name) as shipped:
            assert image.size == shipped.size and len(image.getcolors() or ()) > 20
        assert (METHODS / path.name).stat().st_size < LARGEST
        assert path.name in (METHODS / "README.md").read_text(encoding="utf-8")
    assert set(draw_methods.METHODS) <= set(detectors.available())


def test_an_unreadable_picture_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = script(capsys, "draw_methods.py: ", draw_methods.main)
    assert "nothere.jpg" in run(tmp_path / "nothere.jpg", "--output", tmp_path).complaint


def test_the_front_page_shows_verdicts() -> None:
    path = ROOT / "docs" / draw_methods.VERDICTS
    with Image.open(path) as image:
        assert image.width > 1000 and len(image.getcolors() or ()) > 100
    assert path.stat().st_size < 300_000
    assert f"](docs/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_verdicts_are_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = script(capsys, "draw_methods.py: ", draw_methods.main)
    done = run("--verdicts", "--output", tmp_path)
    assert done.status == 0, done.err
    with (
        Image.open(done.out.strip()) as image,
        Image.open(ROOT / "docs" / "verdicts.png") as shipped,
    ):
        assert image.size == shipped.size


# --- docs/published: what the published programs have, and what does the same here

PUBLISHED = sorted((ROOT / "docs" / "published").glob("*.md"))
VERDICTS = ("same", "differs", "left out")
HERE, DEFAULT, WHY = "here", "default here", "what, why"
SECTIONS = (*config.COMMON, *detectors.available())
# Names of what runs write, and the one command that is not ours.
WRITTEN = {*outputs.OUTPUTS, *eval.RESULTS, "epoch_N.safetensors", "predictions.csv"}
WRITTEN |= {eval.SCORES, "explain/", "tensorboard/", "torchrun"}
# Whose words are keys of a YAML file.
NAMED = {"fetch_weights": "pretrained/manifest.yaml", "fetch_data": "configs/sources.yaml"}
Row = dict[str, str]


def cells(line: str) -> list[str]:
    """Of a row of a Markdown table."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file's tables, each with the recipe that the comment above its table names."""
    recipe, header = "", list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"<!-- (configs/\S+) -->", line):
            recipe = found[1]
        elif line.startswith("#"):
            recipe = ""
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells(line)
        elif not set(line) <= set("|- "):
            yield recipe, dict(zip(header, cells(line), strict=True))


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def is_option(name: str) -> bool:
    """`section.key`, with or without a value."""
    return not (ROOT / name).exists() and name.split(".")[0] in SECTIONS and "." in name


def check_option(text: str) -> None:
    """Raises ConfigError where there is no such option, or it cannot have that value."""
    if text.startswith(f"{superres.OPTION}="):
        return  # which derive.py and study.py take by themselves
    section, key = text.partition("=")[0].split(".", 1)
    detector = section if section in detectors.available() else "default"
    values = config.resolve(detector, []).as_dict()
    assert key in values[section], text
    if "=" in text:
        config.resolve(detector, [("docs", config.parse_override(text))])


def check_flags(words: list[str], parser: argparse.ArgumentParser) -> None:
    """Every flag of a command line is the parser's, and what follows one of its choices."""
    known = {name: action for action in parser._actions for name in action.option_strings}
    for word, value in itertools.pairwise([*words, ""]):
        if not word.startswith("--"):
            continue
        assert word in known, f"{parser.prog}: {word}"
        if word == "--set" and "=" in value:
            check_option(value)
        choices = known[word].choices
        if word == "--benchmark" and value:
            choices = command_line.benchmarks()
        assert not (choices and value) or value in choices, f"{word} {value}"


def check_script(name: str, words: list[str]) -> None:
    """A script of scripts/, or of shell, with flags and, where it has some, names."""
    path = ROOT / name
    assert path.is_file(), name
    if path.suffix == ".sh":
        text = path.read_text() + (ROOT / "scripts" / "_shell.sh").read_text()
        assert all(f"{word}" in text for word in words if word.startswith("--")), (name, words)
        return
    parser = importlib.import_module(f"scripts.{path.stem}").parser()
    commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if commands and words:
        parser, words = commands[0].choices[words[0]], words[1:]
    check_flags(words, parser)
    if path.stem in NAMED:
        names = set(itertools.takewhile(lambda word: not word.startswith("--"), words))
        assert names <= set(config.read_yaml(ROOT / NAMED[path.stem])), words


def check(text: str) -> None:
    """Fails unless a flag, command, option or file that the docs name is there."""
    words = [word for word in text.split() if word not in ("python", "bash")]
    if words[0] == "main.py" or words[0].startswith("--"):
        check_flags(words, command_line.parser())
    elif words[0].endswith((".sh", ".py")):
        check_script(words[0], words[1:])
    elif is_option(text):
        check_option(text)
    else:
        assert text in WRITTEN or (ROOT / text).exists(), text


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_what_docs_name_is_there(path: Path) -> None:
    found = [row for _, row in rows(path)]
    assert len(found) > 5
    for row in found:
        assert row["verdict"] in VERDICTS, row
        why = row.get(WHY) or row.get("why") or ""
        assert row["verdict"] == "same" or why, row
        for text in [*spans(row[HERE]), *spans(row.get(DEFAULT, ""))]:
            check(text)
        for text in spans(why):
            if text.startswith(("scripts/", "configs/", "--set ")) or is_option(text):
                check(text)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_defaults_that_docs_state_are_the_recipes(path: Path) -> None:
    for recipe, row in rows(path):
        named = spans(row[HERE])
        if not (recipe and len(named) == 1 and is_option(named[0])):
            continue
        detector = Path(recipe).stem.split("_")[0]
        layer = (recipe, config.read_yaml(ROOT / recipe))
        section, key = named[0].split(".")
        value = config.resolve(detector, [layer]).as_dict()[section][key]
        assert plain_data.parse_yaml(row[DEFAULT]) == value, row
        if row["verdict"] == "same" and not row[WHY]:
            assert row["default"] == row[DEFAULT], row


# --- pages: the commands in their blocks, and their links

PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += [
    ROOT / name
    for name in (
        *("data/README.md", "data/lists/README.md", "scripts/bench/README.md"),
        "docs/detectors.md",
    )
]
PAGES += [*sorted(ROOT.glob("pretrained/*.md")), *sorted(ROOT.glob("docs/*/*.md"))]
USAGE = [
    path
    for path in PAGES
    if path.parent.name == "usage" or path.name in ("README.md", "detectors.md")
]
HEADS = ("python", ".venv/bin/python", "bash", "torchrun")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every command of this project in the indented blocks of a page."""
    text = re.sub(r"\\\n\s+", "", path.read_text(encoding="utf-8"))
    for line in re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE):
        for part in re.split(r" && | \| ", line.partition(" #")[0]):
            if part.split()[0] not in HEADS:
                continue
            words = shlex.split(part)
            # torchrun's own flags stand before the program.
            start = [n for n, word in enumerate(words) if word.endswith((".py", ".sh"))]
            if start:
                yield words[start[0] :]


def anchor(heading: str) -> str:
    """The fragment by which a page's heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", USAGE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_commands_on_pages_parse(path: Path) -> None:
    for words in commands(path):
        if words[0] == "main.py":
            check_flags(words, command_line.parser())
        else:
            check_script(words[0], words[1:])


def test_pages_show_commands() -> None:
    shown = [words[0] for path in USAGE for words in commands(path)]
    assert shown.count("main.py") > 30 and len(set(shown)) > 10


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, fragment = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link


def test_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200

"""JSON, YAML and numbers as an attacker or a slip would write them: refused in a line, at once."""

from __future__ import annotations

import dataclasses
import math
import time
import typing
from pathlib import Path

import pytest

import detectors
from engine import plain_data
from engine.cli.parser import parser
from engine.config import ConfigError, parse_override, read_yaml, resolve

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
YAML = {
    "deep list": "[" * 100_000,
    "deep mapping": "{a: " * 100_000,
    "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(1500)),
    "aliases": BOMB,
    "merges": BOMB.replace("[", "{<<: [").replace("]", "]}").replace("x, x", "{x: 1}"),
    "a key twice": "train: {lr: 1.0, lr: 2.0}",
    "another language": "train: !!python/object/apply:os.system [true]",
    "a long number": f"train: {{epochs: {'9' * 5000}}}",
    "no date": "train: {lr: 2001-99-99}",
    "no truth": "train: {report: !!bool maybe}",
    "no number": "train: {epochs: !!int ''}",
    "no time": "train: {epochs: !!timestamp x}",
    "a list as key": "{[a]: b}",
    "control characters": "a: \x00\x1b",
    "open": "a: [",
    "a list": "- a",
    "large": "# " + "x" * 10**6,
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_ends_in_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(YAML[name])
    start = time.perf_counter()
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert time.perf_counter() - start < 5
    assert str(file) in str(error.value)
    assert len(str(error.value)) < 1000


def test_no_file_without_an_end(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="expected a YAML file"):
            read_yaml(place)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "{", "\udcff"])
def test_json_is_a_value_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        plain_data.parse_json(text)
    file = tmp_path / "a.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError):
        plain_data.read_json(file)


ABSURD = ("999999999999999999999", "-1e308", "1e20", "1.0e+20", ".inf", ".nan", "9" * 5000, "[[1]]")


@pytest.mark.parametrize("name", [*detectors.available(), "train", "data", "score"])
def test_absurd_values_are_refused_by_every_option(name: str) -> None:
    """Or harmless: no option takes a size that no memory holds."""
    detector = name if name in detectors.available() else "default"
    plain = resolve(detector, []).as_dict()[name]
    for key in plain:
        for value in ABSURD:
            try:
                found = resolve(detector, [("--set", parse_override(f"{name}.{key}={value}"))])
            except ConfigError as error:
                assert len(str(error)) < 500, (key, value)
                continue
            held = found.as_dict()[name][key]
            assert isinstance(held, str) or math.isfinite(held), (key, value)


def _sizes(kind: type) -> list[str]:
    hints = typing.get_type_hints(kind)
    return [f.name for f in dataclasses.fields(kind) if hints[f.name] in (int, int | None)]


@pytest.mark.parametrize("name", detectors.available())
def test_sizes_of_networks_are_bounded(name: str) -> None:
    """The card of unknown weights states them."""
    for key in _sizes(detectors.load(name).Options):
        with pytest.raises(ConfigError, match=f"{name}.{key}"):
            resolve(name, [("", {name: {key: 2**40}})])


@pytest.mark.parametrize(
    "words",
    ["--batch_size 1e20", "--limit 1e30", f"--limit {10**30}", f"--workers {10**6}", "--gpu -1",
     f"--epochs {'9' * 5000}", f"--seed {10**30}", "--threshold nan", "--threshold 1e400"],
)  # fmt: skip
def test_absurd_numbers_on_the_command_line(capsys: pytest.CaptureFixture[str], words: str) -> None:
    flag = words.split()[0]
    with pytest.raises(SystemExit) as error:
        parser().parse_args(words.split())
    assert error.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert flag in line


@pytest.mark.parametrize(
    ("words", "flag"),
    [(["--input", ""], "--input"), (["--input", "a.png", ""], "--input"),
     (["--input=a", "--output", ""], "--output"), (["--output="], "--output"),
     (["--weights", ""], "--weights"), (["--data", ""], "--data"),
     (["--csv_root", ""], "--csv_root")],
)  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(
    capsys: pytest.CaptureFixture[str], words: list[str], flag: str
) -> None:
    with pytest.raises(SystemExit) as error:
        parser().parse_args(words)
    assert error.value.code == 2
    assert f"{flag}: expected a value" in capsys.readouterr().err

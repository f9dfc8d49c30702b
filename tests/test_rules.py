"""What is answered before PyTorch is imported: flags that do not go together, names of nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Cli, cli, write_weights
from conftest import ROOT, make_tree

from detectors._default_options import DefaultOptions

__all__ = ["cli"]  # a fixture

# Words of a command line, and what the one line of its answer names.
MISTAKES = [
    (["nothere.jpg"], "nothere.jpg"),
    (["--phase", "eval", "here.png"], "--data"),
    (["here.png", "--input", "other.png"], "--input"),
    (["--phase", "eval", "--detector", "default"], "--benchmark"),
    (["--phase", "eval", "--csv_root", "."], "--data"),
    (["--phase", "train", "--detector", "ssp"], "--data"),
    (["--phase", "eval", "--data", "nowhere"], "nowhere"),
    (["--phase", "eval", "--data", "nowhere.csv"], "nowhere.csv"),
    (["--phase", "eval", "--data", "here.png"], "here.png"),
    (["--phase", "eval", "--data", ".", "--protocol", "matched"], "--protocol"),
    (["--phase", "train", "--data", ".", "--csv_root", "."], "--csv_root"),
    (["--phase", "train", "--data", ".", "--leak_free"], "--detector cospy"),
    (["--phase", "train", "--detector", "ensemble", "--data", ".", "--epochs", "2"], "--epochs"),
    (["--phase", "eval", "--benchmark", "genimage", "--data_root", "nowhere"], "nowhere"),
    (["--phase", "eval", "--benchmark", "genimage", "--protocol", "none"], "matched"),
    (["--phase", "train", "--benchmark", "in_the_wild"], "cnndet"),
    (["--phase", "eval", "--data", ".", "--degrade", "jpg:5"], "--degrade"),
    (["--phase", "eval", "--compare", ".", "."], "--compare"),
    (["--phase", "eval", "--test_csv", ".", "nowhere.csv", "--output", "out"], "nowhere.csv"),
    (["--phase", "eval", "--test_csv", ".", "real"], "--output"),
    (["--phase", "eval", "--data", ".", "--weights", ".", "--epochs", "5"], "--output"),
    (["--phase", "eval", "--data", ".", "--csv_root", ".", "--csv_root", "."], "--csv_root"),
    (["--phase", "train", "--data", ".", "--epochs", "1,2"], "--epochs"),
    (["--phase", "train", "--data", ".", "--split", "test"], "--split"),
    (["here.png", "--split", "test"], "--split"),
    (["--phase", "eval", "--data", ".", "--stability"], "--stability"),
    (["here.png", "--tag", "a/b"], "--tag"),
    (["--weights", "nobody", "here.png"], "cospy-progan"),
    (["--weights", "nobody.pth", "here.png"], "nobody.pth"),
    (["--detector", "ssp", "here.png"], "fetch_weights"),
    (["--backbone_weights", "nobody", "--", "here.png"], "--backbone_weights"),
    (["--detector", "ssp", "--ckpt", "x", "here.png"], "--ckpt"),
    (["--device", "cpu", "--gpu", "0", "here.png"], "--device"),
    (["--config", "nowhere.yaml", "here.png"], "nowhere.yaml"),
    (["--set", "views=1", "--", "here.png"], "section.key=value"),
    (["--set", "nobody.x=1", "--", "here.png"], "nobody"),
    (["--set", "score.batch=1", "--", "here.png"], "batch_size"),
    (["--set", "train.lr=fast", "--", "here.png"], "train.lr"),
    (["--set", "default.crpo=48", "--", "here.png"], "crop"),
    (["--detector", "ssp", "--set", "ssp.patches=few", "here.png"], "ssp.patches"),
    (["here.png", "--output", "here.png"], "--output"),
    (["here.png", "--resume"], "--output"),
    (["here.png", "--threshold", "nowhere.yaml"], "nowhere.yaml"),
    (["here.png", "--threshold", "here.png"], "scripts/own_threshold.py"),
]
TRY = """
import json, sys
sys.path.insert(0, sys.argv[1])
import main
answers = []
for words in json.load(sys.stdin):
    try:
        status = main.main(words)
    except SystemExit as error:
        status = error.code
    answers.append((status, "torch" in sys.modules))
    print(file=sys.stderr, flush=True)
print(json.dumps(answers))
"""


def test_mistakes_need_no_torch(tmp_path: Path) -> None:
    make_tree(tmp_path, count=1)
    shutil.copy(tmp_path / "real" / "000.jpg", tmp_path / "here.png")
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(ROOT)], input=json.dumps([words for words, _ in MISTAKES]),
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    said = done.stderr.split("\n\n")[:-1]
    answers = json.loads(done.stdout)
    for (words, name), line, answer in zip(MISTAKES, said, answers, strict=True):
        assert answer == [2, False], (words, line)
        assert line.startswith("main.py: ") and "\n" not in line and name in line, (words, line)


def test_a_python_without_the_packages_says_what_sets_it_up(tmp_path: Path) -> None:
    for words in (["--phase", "eval", "--data", "."], ["x.png"]):
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(ROOT / "main.py"), *words], capture_output=True,
            text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "scripts/setup.sh" in line and ".venv/bin/python" in line


# --- what is named


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_weights(
        path, options=DefaultOptions(crop=48, views=1, size="tiny"), band=(0.3, 0.6)
    )


def test_pictures_need_no_flag(cli: Cli, pictures: list[Path]) -> None:
    named = cli("--json", "--input", *pictures[:3])
    assert named.status == 0 and len(named.rows) == 3
    assert cli(*pictures[:3], "--json").rows == named.rows
    assert cli(pictures[0], "--json", *pictures[1:3]).rows == named.rows


def test_nothing_of_what_a_person_named_is_there(cli: Cli, pictures: list[Path]) -> None:
    assert "no.png" in cli("no.png", "none.jpg").complaint
    for more in (["--json"], [str(pictures[0])]):  # a program gets its row, a mixture is scored
        done = cli("no.png", *more)
        assert done.status == 1 and "no such file" in done.out


def test_paths_on_standard_input_in_any_form(cli: Cli, pictures: list[Path]) -> None:
    odd = [pictures[0].with_name(name) for name in ('a "b".png', " c .png", "d\ne.png", "'f'.png")]
    for path in odd:
        shutil.copy(pictures[0], path)

    def scored(text: str) -> list[str]:
        done = cli("--input", "-", "--json", stdin=text.encode())
        assert done.status == 0, done.out
        return [row["path"] for row in done.rows]

    names = list(map(str, [*odd, pictures[1]]))
    assert scored("\0".join(names)) == scored("\0".join(names) + "\0") == names
    assert scored(f'"{names[4]}"\r\n\n  {names[4]}\n{names[1]}\n{names[0]}') == [
        names[4], names[4], names[1], names[0],
    ]  # fmt: skip


def test_a_folder_says_what_it_leaves_out(cli: Cli, tree: Path) -> None:
    for number, name in enumerate(("a.txt", "b.TXT", "clip.mp4", "Makefile", ".hidden", "x.zip")):
        (tree / ("real", "fake")[number % 2] / name).write_bytes(b"x")
    first, second = [line for line in cli(tree).log if "left out" in line]
    assert "1 archives" in first
    assert second.endswith("left out 4 other files: 2 .txt, 1 .mp4, 1 without extension")
    done = cli(tree / "fake" / "gan")
    assert not any("left out" in line for line in done.log)


@pytest.mark.parametrize("suffix", ["jp2", "tga", "mpo", "ppm"])
def test_a_folder_has_pictures_of_every_kind(cli: Cli, pictures: list[Path], suffix: str) -> None:
    from PIL import Image

    folder = pictures[0].parent / "kinds"
    folder.mkdir()
    Image.open(pictures[1]).convert("RGB").save(folder / f"a.{suffix}")
    done = cli(folder, "--json")
    assert [Path(row["path"]).name for row in done.rows] == [f"a.{suffix}"]
    assert done.status == 0


def test_what_is_no_regular_file_never_blocks(cli: Cli, tmp_path: Path, tree: Path) -> None:
    for name in ("pipe.png", "pipe.csv", "pipe.zip", "pipe.safetensors"):
        os.mkfifo(tmp_path / name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.png"))
    places = [tmp_path / name for name in ("pipe.png", "pipe.csv", "pipe.zip", "s.png")]
    done = cli("--json", *places)
    listener.close()
    assert done.status == 1
    assert {row["error"] for row in done.rows} == {"not a regular file"}
    for path in places:
        assert str(path) in cli("--phase", "eval", "--data", path).complaint
    pipe = tmp_path / "pipe.safetensors"
    assert "no regular file" in cli("--weights", pipe, tree).complaint


# --- a threshold of one's own


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_the_band_moves_with_the_threshold(cli: Cli, tree: Path, threshold: float) -> None:
    rows = cli("--json", tree, "--threshold", threshold).rows
    low, high = rows[0]["band"]

    def odds(p: float) -> float:
        return p / (1 - p)

    assert odds(low) / odds(threshold) == pytest.approx(odds(0.3), rel=1e-4)  # six decimals
    assert odds(high) / odds(threshold) == pytest.approx(odds(0.6), rel=1e-4)
    for row in rows:
        inside = low <= row["score"] <= high
        verdict = "synthetic" if row["score"] > threshold else "real"
        assert row["label"] == ("uncertain" if inside else verdict)
    done = cli(tree, "--threshold", threshold)
    assert (threshold == 0.5) != any(f"{low:.2f} to {high:.2f}" in line for line in done.log)


@pytest.mark.parametrize("threshold", [0, 1])
def test_at_the_ends_there_is_no_band(cli: Cli, tree: Path, threshold: int) -> None:
    done = cli("--json", tree, "--threshold", threshold)
    assert {row["band"] for row in done.rows} == {None}
    assert {row["label"] for row in done.rows} == {"real" if threshold else "synthetic"}
    assert any("uncertain" in line for line in done.log)

"""The command line as its users meet it: results, messages, exit statuses, interrupted runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, cli, plain_cli, runner, write_weights
from conftest import EXAMPLE, ROOT, read_csv
from PIL import Image
from sklearn.metrics import average_precision_score

from detectors._cospy_options import CoSpyOptions
from scripts import auc_table

__all__ = ["cli", "plain_cli"]  # fixtures

COMMAND = [sys.executable, str(ROOT / "main.py"), "--device", "cpu"]
PROMPT = "Please enter the image filepath for scanning: "
BAND = (0.3, 0.7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", band=BAND)


@pytest.fixture(scope="module")
def cospy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = CoSpyOptions(train_dataset="progan", mode="branch", size="tiny")
    path = tmp_path_factory.mktemp("weights") / "cospy.safetensors"
    return write_weights(path, "cospy", options=options)


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# --- usage


def test_help_is_quick_and_names_every_phase() -> None:
    begin = time.perf_counter()
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 2  # importing torch alone takes longer
    assert done.stderr == ""
    for word in ("train", "eval", "test", "--input", "--json", "--resume", "Exit status"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_missing_weights_say_what_to_do(
    plain_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.weights.manifest.PRETRAINED", tmp_path)
    shipped = plain_cli("--input", EXAMPLE).complaint
    assert "default.safetensors" in shipped
    assert "--weights" in shipped
    assert "--weights" in plain_cli("--input", EXAMPLE, "--detector", "ssp").complaint
    named = plain_cli("--input", EXAMPLE, "--weights", "nowhere.safetensors").complaint
    assert "nowhere.safetensors" in named
    own = ("--train_dataset", "progan", "--mode", "branch", "--ckpt", tmp_path / "ckpt")
    trained = plain_cli("--input", EXAMPLE, *own).complaint
    assert str(tmp_path / "ckpt" / "progan" / "artifact") in trained
    assert "--phase train" in trained


def test_wrong_weights_are_refused(plain_cli: Cli, cospy: Path, tmp_path: Path) -> None:
    said = plain_cli("--input", EXAMPLE, "--weights", cospy, "--detector", "default").complaint
    assert re.search("default.*cospy", said)
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    assert str(text) in plain_cli("--input", EXAMPLE, "--weights", text).complaint
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(cospy.read_bytes()[:-100])
    said = plain_cli("--input", EXAMPLE, "--weights", cut, "--detector", "cospy").complaint
    assert str(cut) in said


def test_weights_with_a_card_know_their_variant(
    plain_cli: Cli, cospy: Path, pictures: list[Path]
) -> None:
    flags = ("--json", "--weights", cospy, "--input", pictures[0])
    short = plain_cli("--detector", "cospy", *flags)
    assert (short.status, short.rows[0]["detector"]) == (0, "cospy")
    assert short.rows == plain_cli("--train_dataset", "progan", "--mode", "branch", *flags).rows


def test_debug_shows_the_traceback(plain_cli: Cli) -> None:
    done = plain_cli("--input", EXAMPLE, "--weights", "nowhere.safetensors", "--debug")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1].startswith("main.py: ")


def test_a_gpu_that_is_not_there_is_replaced_with_a_warning(
    weights: Path, tree: Path, request: pytest.FixtureRequest
) -> None:
    fixtures = map(request.getfixturevalue, ("capsys", "caplog", "monkeypatch"))
    done = runner(*fixtures, "--weights", weights, "--gpu", 99)("--json", "--input", tree)
    assert done.status == 0
    assert len(done.rows) == 24
    assert any("--gpu 99" in line and "CPU" in line for line in done.log)


# --- phase test


def test_json_keeps_the_contract(cli: Cli, tree: Path, pictures: list[Path]) -> None:
    missing = tree / "missing.png"
    done = cli("--json", "--input", tree, missing)
    assert done.status == 1
    assert done.err == ""
    assert [row["path"] for row in done.rows] == [*map(str, pictures), str(missing)]
    keys = ("path", "score", "logit", "label", "threshold", "band", "prevalence")
    for row in done.rows:
        assert tuple(row) == (*keys, "detector", "weights", "width", "height", "error", "notes")
        assert (row["threshold"], row["band"], row["detector"]) == (0.5, list(BAND), "default")
        assert row["weights"] == "tiny.safetensors"
    *good, bad = done.rows
    for row in good:
        assert row["error"] is None
        assert row["score"] == pytest.approx(1 / (1 + np.exp(-row["logit"])), abs=1e-6)
        assert row["label"] == label(row["score"], 0.5, BAND)
        assert (row["width"], row["height"]) == (72, 64)
    assert {row["label"] for row in good} == {"synthetic", "real", "uncertain"}
    assert [bad[key] for key in ("score", "logit", "label", "width", "height")] == [None] * 5
    assert bad["error"] == "no such file"
    assert [row["notes"] for row in done.rows] == [["small"]] * len(good) + [[]]


def label(score: float, threshold: float, band: tuple[float, float] | None) -> str:
    if band and band[0] <= score <= band[1]:
        return "uncertain"
    return "synthetic" if score > threshold else "real"


def test_lines_for_people(cli: Cli, tree: Path) -> None:
    rows = cli("--json", "--input", tree).rows
    spoken = {"synthetic": "AI-Generated", "real": "Real", "uncertain": "Uncertain"}
    lines = cli("--input", tree).out.splitlines()
    for row, line in zip(rows, lines, strict=True):
        score, verdict, path = line.removesuffix("  (under 224 px)").split()
        assert float(score) == pytest.approx(row["score"], abs=0.0006)
        assert (verdict, path) == (spoken[row["label"]], row["path"])


def test_a_terminal_without_the_letters_gets_escapes(
    cli: Cli, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = pictures[0].with_name("ü\N{SNOWMAN}.png")
    shutil.copy(pictures[0], odd)
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="ascii"))
    assert cli("--input", odd, pictures[1]).status == 0
    first, second = terminal.getvalue().decode("ascii").splitlines()
    assert f"{odd.parent}/\\xfc\\u2603.png" in first
    assert str(pictures[1]) in second


def test_pictures_folders_tables_and_standard_input_mix(
    cli: Cli, tree: Path, pictures: list[Path], tmp_path: Path
) -> None:
    names = [path.relative_to(tree).as_posix() for path in pictures[:2]]
    table = tmp_path / "list.csv"
    table.write_text("image\n" + "\n".join(names) + "\n")
    lines = f"{pictures[4]}\r\n\n{pictures[5]}".encode()
    inputs = ("--input", pictures[3], tree / "real", "-", table, "--csv_root", tree)
    done = cli("--json", *inputs, stdin=lines)
    assert done.status == 0
    real = [path for path in pictures if path.parent.name == "real"]
    wanted = [pictures[3], *real, pictures[4], pictures[5], *pictures[:2]]
    assert [row["path"] for row in done.rows] == [str(path) for path in wanted]


def test_scores_do_not_depend_on_order_batch_or_workers(cli: Cli, pictures: list[Path]) -> None:
    def logits(*arguments: object) -> dict[str, float]:
        return {row["path"]: row["logit"] for row in cli("--json", *arguments).rows}

    usual = logits("--input", *pictures)
    assert logits("--input", *pictures[::-1]) == pytest.approx(usual, abs=1e-4)
    assert logits("--batch_size", 5, "--input", *pictures) == pytest.approx(usual, abs=1e-4)
    assert logits("--workers", 2, "--input", *pictures) == usual


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

    assert odds(low) / odds(threshold) == pytest.approx(odds(BAND[0]), rel=1e-4)  # six decimals
    assert odds(high) / odds(threshold) == pytest.approx(odds(BAND[1]), rel=1e-4)
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


# --- files


def test_predictions_and_spais_table(cli: Cli, tree: Path, tmp_path: Path) -> None:
    table = tmp_path / "in" / "list.csv"
    table.parent.mkdir()
    rows = ['fake/gan/001.png,1,test,"a, b"', "missing.png,0,test,", "real/000.jpg,0,val,ü"]
    table.write_text("image,class,split,note\n" + "\n".join(rows) + "\n", encoding="utf-8")
    output = tmp_path / "out"
    done = cli("--json", "--input", table, "--csv_root", tree, "--output", output, "--tag", "mine")
    assert done.status == 1

    found = read_csv(output / "predictions.csv")
    assert list(found[0]) == ["path", "score", "logit", "label", "error", "notes"]
    for row, shown in zip(found, done.rows, strict=True):
        assert row.pop("notes").split() == shown["notes"]
        for key, value in row.items():
            assert value == ("" if shown[key] is None else str(shown[key]))
    scores = {row["path"]: row["score"] for row in found}
    spai = read_csv(output / "list.csv")
    assert list(spai[0]) == ["image", "class", "split", "note", "mine"]
    for row, given in zip(spai, read_csv(table), strict=True):
        assert row == {**given, "mine": scores[str(tree / given["image"])]}
    assert [bool(row["mine"]) for row in spai] == [True, False, True]
    run = json.loads((output / "run.json").read_text())
    assert run["counts"] == {"pictures": 3, "unreadable": 1}


def test_a_folder_gets_spais_table_too(cli: Cli, tree: Path, tmp_path: Path) -> None:
    """Which auc_table.py reads: the folder's name tells the class, its own column is empty."""
    for folder, name in (("fake", "fake_mine"), ("real", "real_mine")):
        (tree / folder).rename(tree / name)
    (tree / "x" / "fake_mine").mkdir(parents=True)
    shutil.copy(tree / "real_mine" / "000.jpg", tree / "x" / "fake_mine")
    inputs = [tree / "fake_mine", tree / "real_mine", tree / "x" / "fake_mine"]
    output = tmp_path / "out"
    assert cli("--input", *inputs, "--output", output, "--tag", "spai").status == 0
    tables = [output / f"{name}.csv" for name in ("fake_mine", "real_mine", "fake_mine_2")]
    scores = {row["path"]: row["score"] for row in read_csv(output / "predictions.csv")}
    for table, folder, count in zip(tables, inputs, (12, 12, 1), strict=True):
        rows = read_csv(table)
        assert list(rows[0]) == ["image", "class", "split", "spai"] and len(rows) == count
        for row in rows:
            assert (row["class"], row["split"]) == ("", "test")
            assert row["spai"] == scores[str(folder / row["image"])]
    assert json.loads((output / "run.json").read_text())["tag"] == "spai"
    assert auc_table.main(["--input_dir", str(output), "--csv", str(tmp_path / "auc.csv")]) == 0
    found = {row["generator"]: row for row in read_csv(tmp_path / "auc.csv")}
    assert 0 <= float(found["mine"]["AUC, mine"]) <= 1
    assert "--tag" in cli("--input", tree, "--output", tmp_path / "o", "--tag", "class").complaint


def test_a_split_of_csv_files_is_scored_alone(cli: Cli, tree: Path, tmp_path: Path) -> None:
    """Each from its own root."""
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    lines = ["image,split", "real/000.jpg,test", "real/001.png,train"]
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for table in tables:
        table.write_text("\n".join(lines) + "\n")
    roots = ("--csv_root", tree, "--csv_root", other)
    use = ("--json", "--input", *tables, *roots)
    shown = [row["path"] for row in cli(*use, "--split", "testing").rows]
    assert shown == [str(root / "real" / "000.jpg") for root in (tree, other)]
    assert len(cli(*use).rows) == len(cli(*use, "--split", "all").rows) == 4
    assert cli(*use, "--split", "test", "--output", tmp_path / "out").status == 0
    assert [row["image"] for row in read_csv(tmp_path / "out" / "b.csv")] == ["real/000.jpg"]
    assert "--split" in cli("--input", tree / "real" / "000.jpg", "--split", "test").complaint
    assert "each of the 1" in cli("--input", tables[0], *roots).complaint


def test_prompt_as_published(plain_cli: Cli, cospy: Path, tree: Path, pictures: list[Path]) -> None:
    flags = ("--train_dataset", "progan", "--mode", "branch", "--weights", cospy)
    spaced = tree / " two words.png"
    shutil.copy(pictures[0], spaced)
    rows = plain_cli(*flags, "--json", "--input", *pictures[:8], spaced).rows
    lines = [f"{path}\n" for path in pictures[:8]]
    lines[2] = f"  '{pictures[2]}' \r\n"  # a file dropped on a terminal
    typed = "".join(lines) + str(spaced)  # without a newline at the end
    done = plain_cli(*flags, stdin=typed.encode())
    assert done.status == 0
    words = {"synthetic": "AI-Generated", "real": "Real"}
    shown = done.out.splitlines()
    for line, row in zip(shown, rows, strict=True):
        match = re.fullmatch(r"CO-SPY Prediction: (\d\.\d{3}) - (AI-Generated|Real)", line)
        assert match, line
        assert float(match[1]) == pytest.approx(row["score"], abs=0.002)
        assert match[2] == words[row["label"]]
    assert len({line.split(" - ")[1] for line in shown}) == 2
    loading, prompts = done.err.split("\n", 1)
    assert loading.startswith("loading") and "Ctrl-D" in loading
    assert prompts == PROMPT * 10 + "\n"


@pytest.mark.parametrize("word", ["", "q", "Exit", " quit "])
def test_the_prompt_is_left_by_a_word(cli: Cli, pictures: list[Path], word: str) -> None:
    done = cli(stdin=f"{pictures[0]}\n{word}\n{pictures[1]}\n".encode())
    assert (done.status, len(done.out.splitlines()), done.err.count(PROMPT)) == (0, 1, 2)


def test_prompt_with_a_bad_path_and_in_json(cli: Cli, pictures: list[Path]) -> None:
    typed = f"nowhere.png\n{pictures[0]}\n".encode()
    done = cli(stdin=typed)
    assert done.status == 1
    bad, good = done.out.splitlines()
    assert bad == "Default Error: nowhere.png: no such file"
    assert good.startswith("Default Prediction: 0.")
    rows = cli("--json", stdin=typed).rows
    assert [row["error"] for row in rows] == ["no such file", None]


# --- phase eval


@pytest.fixture
def evaluate(cli: Cli, tree: Path) -> Cli:
    """Phase eval of `tree`; the arguments are those besides."""

    def run(*arguments: object, stdin: bytes = b"") -> object:
        return cli("--phase", "eval", "--data", tree, *arguments)

    return run


def test_evaluation_writes_files_that_agree(
    tree: Path, tmp_path: Path, weights: Path, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / "eval"
    fixtures = map(request.getfixturevalue, ("capsys", "caplog", "monkeypatch"))
    evaluate = runner(*fixtures, "--phase", "eval", "--device", "cpu", drawn=True)
    use = ("--weights", weights, "--data", tree, "--output", output)
    done = evaluate(*use, "--threshold", 0.6)
    assert (done.status, done.err) == (0, "")
    assert any(str(output) in line for line in done.log)
    plots = {"roc.png", "pr.png", "histogram.png", "calibration.png", "generators.png"}
    files = {"scores.csv", "result.json", "output.json", "metrics.json", "run.json"}
    files.add("evaluation.log")
    files |= {"report.md", "report.html", "errors.png", ".lock"} | plots
    assert {path.name for path in output.iterdir()} == files

    rows = read_csv(output / "scores.csv")
    columns = ("key", "source", "generator", "label", "logit", "score", "error", "degradation")
    assert tuple(rows[0]) == (*columns, "width", "height", "digest")
    assert [row["key"] for row in rows] == sorted(
        path.relative_to(tree).as_posix() for path in tree.rglob("*.*")
    )
    result = json.loads((output / "result.json").read_text())[""]
    saved = json.loads((output / "output.json").read_text())[""]
    assert result.keys() == saved.keys() == {"gan", "diffusion"}
    for generator, cell in result.items():
        part = [row for row in rows if row["generator"] in ("", generator)]
        labels = np.array([int(row["label"]) for row in part])
        scores = np.array([float(row["score"]) for row in part])
        logits = np.array([float(row["logit"]) for row in part])
        assert cell["size"] == len(part) == 18
        assert cell["AP"] == pytest.approx(average_precision_score(labels, logits), abs=1e-9)
        assert cell["Accuracy"] == pytest.approx(np.mean((scores > 0.6) == labels), abs=1e-9)
        assert sorted(zip(saved[generator]["y_pred"], saved[generator]["y_true"], strict=True)) == (
            sorted(zip(scores, labels, strict=True))
        )
    for generator, cell in result.items():
        line = next(line for line in done.out.splitlines() if line.startswith(generator))
        assert f"{100 * cell['AP']:.1f} [" in line
    assert done.out.strip() in (output / "evaluation.log").read_text("utf-8")

    run = json.loads((output / "run.json").read_text())
    assert run["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert run["counts"] == {"pictures": 24, "unreadable": 0, "scored_now": 24, "reused": 0}
    assert (run["threshold"], run["degradations"], run["device"]) == (0.6, ["none"], "cpu")
    assert run["config"]["default"]["crop"] == 48
    assert {"command", "git_revision", "versions", "platform", "seconds"} <= run.keys()


def test_parts_of_the_data(evaluate: Cli, tmp_path: Path) -> None:
    output = tmp_path / "eval"
    done = evaluate("--output", output, "--generators", "gan", "--limit", 4)
    assert done.status == 0
    rows = read_csv(output / "scores.csv")
    assert [row["key"] for row in rows] == [
        *(f"fake/gan/{n:03}.{('jpg', 'png')[n % 2]}" for n in range(4)),
        *(f"real/{n:03}.{('jpg', 'png')[n % 2]}" for n in range(4)),
    ]


def test_the_output_has_a_name_without_being_given_one(
    cli: Cli, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    data = next(path for path in tree.iterdir() if path.is_dir()) / ".."
    done = cli("--phase", "eval", "--data", data, "--limit", 2)
    assert done.status == 0
    assert (elsewhere / "runs" / "default" / "eval_tree" / "scores.csv").exists()


# --- runs that were interrupted


def cuts(data: bytes) -> list[int]:
    """Lengths that a killed run may leave: nothing, half a header, whole and half rows."""
    lines = data.splitlines(keepends=True)
    rows = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    return [0, 5, rows[1], rows[2] - 3, rows[9], rows[10] + 1, rows[18], rows[-1] - 1, rows[-1]]


def test_a_resumed_test_ends_like_an_uninterrupted_one(
    cli: Cli, tree: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pictures[3].write_bytes(b"broken")
    inputs = ("--input", tree, pictures[0], pictures[3])  # two of them twice
    output = tmp_path / "out"
    whole = cli(*inputs, "--output", output)
    assert whole.status == 1
    files = {path: path.read_bytes() for path in (output / "predictions.csv", output / "run.json")}
    table = output / "predictions.csv"
    shown = whole.out.splitlines()
    for length in cuts(files[table]):
        table.write_bytes(files[table][:length])
        done = cli(*inputs, "--output", output, "--resume")
        assert (done.status, done.err) == (1, "")
        assert table.read_bytes() == files[table], length
        kept = max(0, files[table][:length].count(b"\n") - 1)
        assert done.out.splitlines() == shown[kept:], length
        if kept:
            assert f"{kept} of 26 pictures were scored before" in done.log


def test_a_resumed_evaluation_ends_like_an_uninterrupted_one(
    evaluate: Cli, pictures: list[Path], tmp_path: Path
) -> None:
    pictures[3].write_bytes(b"broken")
    output = tmp_path / "eval"
    whole = evaluate("--output", output)
    names = ("scores.csv", "result.json", "output.json")
    files = {output / name: (output / name).read_bytes() for name in names}
    table = output / "scores.csv"
    for length in cuts(files[table])[::3]:
        table.write_bytes(files[table][:length])
        for name in names[1:]:
            (output / name).unlink()
        done = evaluate("--output", output, "--resume")
        assert (done.status, done.out) == (whole.status, whole.out)
        for path, content in files.items():
            assert path.read_bytes() == content, (path.name, length)


@pytest.mark.parametrize("phase", ["test", "eval"])
def test_an_earlier_run_is_neither_mixed_nor_lost(
    cli: Cli, tree: Path, tmp_path: Path, phase: str
) -> None:
    output = tmp_path / "out"
    use = ("--phase", "eval", "--data", tree) if phase == "eval" else ("--input", tree)
    table = output / ("scores.csv" if phase == "eval" else "predictions.csv")
    (output / "keep").mkdir(parents=True)
    (output / "notes.txt").write_text("mine")
    assert cli(*use, "--output", output).status == 0
    first = table.read_bytes()

    refused = cli(*use, "--output", output).complaint
    assert "--resume" in refused
    assert "--overwrite" in refused
    others = {
        "weights": ("--weights", write_weights(tmp_path / "other.safetensors", seed=1)),
        "score.batch_size": ("--batch_size", 3),
        "default.views": ("--set", "default.views=5"),
        "precision": ("--precision", "bf16"),
    }
    others |= (
        {"degradations": ("--degrade", "jpeg:90"), "data": ("--generators", "diffusion")}
        if phase == "eval"
        else {
            "threshold": ("--threshold", 0.1),
            "band": ("--threshold", 0.2),
            "stability": ("--stability",),
        }
    )
    for name, flags in others.items():
        complaint = cli(*use, "--output", output, "--resume", *flags).complaint
        assert re.search(rf"--resume.*\b{name}\b", complaint), complaint
        assert table.read_bytes() == first

    table.write_text("spoiled\n")
    assert "expected the columns" in cli(*use, "--output", output, "--resume").complaint
    done = cli(*use, "--output", output, "--overwrite")
    assert done.status == 0
    assert table.read_bytes() == first
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "keep").is_dir()


# --- as a process of its own


@pytest.fixture
def many(tree: Path, pictures: list[Path]) -> Path:
    """A folder of 3000 names for a few pictures, so that scoring them takes a while."""
    folder = tree.parent / "many"
    folder.mkdir()
    for number in range(3000):
        os.link(pictures[number % len(pictures)], folder / f"{number:04}.png")
    return folder


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(weights: Path, many: Path) -> None:
    process = start("--weights", weights, "--input", many, "--workers", 0)
    assert process.stdout
    assert process.stdout.readline().count(".png") == 1
    process.stdout.close()
    assert process.stderr
    err = process.stderr.read()
    assert process.wait(60) == 130
    assert err == ""


@pytest.mark.slow
def test_an_interrupted_process_keeps_what_it_has_scored(
    weights: Path, many: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start(
        "--weights", weights, "--input", many, "--workers", 1, "--output", output,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    first = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, the workers included
    # Not communicate(), which would lose what readline() has read ahead.
    out, err = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == 130
    assert err == "\nmain.py: interrupted; --resume goes on\n"
    paths = [row["path"] for row in read_csv(output / "predictions.csv")]
    shown = [line.split(maxsplit=2)[2] for line in (first + out).splitlines()]
    assert paths[: len(shown)] == shown
    assert len(shown) <= len(paths) <= len(shown) + 1
    assert len(paths) < 3000

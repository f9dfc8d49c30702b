"""The shell scripts of the recipes: which steps they run, in which order, and with which flags."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import runner, write_weights
from conftest import ROOT, make_tree
from models import backbone_files
from trees import write_tree

from detectors._cospy_options import CoSpyOptions
from detectors._default_options import DefaultOptions
from detectors.cospy import CoSpy
from engine.cli import parser, rules

SCRIPTS = {
    "train.sh": (),
    "scripts/train_spai.sh": ("--csv", "x.csv"),
    "scripts/train_ssp.sh": ("--subset", "sdv4"),
    "scripts/test_ssp.sh": ("--subset", "sdv4"),
    "scripts/train_fake2m.sh": ("--reals", "cc3m=x"),
}
# Notes its words, one a line; then does what ACT says at the call whose number is in AT.
FAKE = """#!/usr/bin/env bash
{ printf '%s\\n' "$@"; echo; } >> "$CALLS"
if [ "$(grep -c '^$' "$CALLS")" = "${AT:-0}" ]; then eval "$ACT"; fi
"""
Done = subprocess.CompletedProcess[str]
Shell = Callable[..., Done]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the fake Python notes its words."""
    return tmp_path / "calls"


@pytest.fixture
def environment(tmp_path: Path, calls: Path) -> dict[str, str]:
    fake = tmp_path / "a python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    return {**os.environ, "PYTHON": str(fake), "CALLS": str(calls)}


@pytest.fixture
def shell(tmp_path: Path, environment: dict[str, str]) -> Shell:
    """Runs a script with a Python that only notes how it is called."""

    def run(name: str, *words: object, **more: str) -> Done:
        command = ["bash", str(ROOT / name), *map(str, words)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment | more,
            check=False,
        )  # fmt: skip

    return run


def noted(calls: Path) -> list[list[str]]:
    """The words of each call, without those that start main.py."""
    if not calls.exists():
        return []
    steps = [call.split("\n") for call in calls.read_text().split("\n\n") if call]
    return [words[words.index(str(ROOT / "main.py")) + 1 :] for words in steps]


def commands(calls: Path) -> list[str]:
    """The flags of each call; main.py must take them."""
    for words in noted(calls):
        args = parser.parser().parse_args(words)
        assert rules.broken(args, rules.detector_named(args)) is None
    return [" ".join(words) for words in noted(calls)]


def test_cospy_is_trained_in_the_published_steps(shell: Shell, calls: Path) -> None:
    assert shell("train.sh", "--gpu", 0, "--dataset", "sd-v1_4").returncode == 0
    start = "--phase train --train_dataset sd-v1_4 --mode"
    artifact = f"{start} branch --branch artifact --epochs 20"
    semantic = f"{start} branch --branch semantic --epochs 10 --feat_interp"
    assert commands(calls) == [
        f"{artifact} --check --gpu 0",
        f"{semantic} --check --gpu 0",
        f"{artifact} --gpu 0",
        f"{semantic} --gpu 0",
        f"{start} fusion --epochs 1 --gpu 0",
    ]


def test_progan_is_trained_without_mixed_features(shell: Shell, calls: Path) -> None:
    more = ("--resume", "--leak_free", "--", "--data_root", "a b", "--resume", "--ckpt", "x*")
    assert shell("train.sh", "--dataset", "progan", *more).returncode == 0
    start, end = "--phase train --train_dataset progan --mode", "--resume --data_root a b --resume"
    assert commands(calls)[2:] == [
        f"{start} branch --branch artifact --epochs 20 {end} --ckpt x*",
        f"{start} branch --branch semantic --epochs 10 {end} --ckpt x*",
        f"{start} fusion --epochs 1 --leak_free {end} --ckpt x*",
    ]
    assert [word for word in noted(calls)[0] if word in ("a b", "x*")] == ["a b", "x*"]


def test_spai_is_trained_on_a_csv(shell: Shell, calls: Path) -> None:
    given = ("--csv", "my list.csv", "--backbone_weights", "vit.pth", "--gpu", 1, "--output", "out")
    more = ("--", "--save_all", "--accumulate", 4, "--test_csv", "a.csv", "b.csv")
    assert shell("scripts/train_spai.sh", *given, *more).returncode == 0
    assert shell("scripts/train_spai.sh", "--csv", "a.csv", "--overwrite").returncode == 0
    start = "--phase train --detector spai --data"
    assert commands(calls) == [
        f"{start} my list.csv --backbone_weights vit.pth --output out --gpu 1 --save_all "
        "--accumulate 4 --test_csv a.csv b.csv",
        f"{start} a.csv --overwrite",
    ]


def test_ssp_is_trained_on_subsets_and_tested_on_all(shell: Shell, calls: Path) -> None:
    assert shell("scripts/train_ssp.sh", "--subset", "sdv4,adm,sdv4").returncode == 0
    assert shell("scripts/train_ssp.sh", "--subset", "adm", "--published").returncode == 0
    assert shell("scripts/test_ssp.sh", "--subset", "adm", "--gpu", 2).returncode == 0
    assert shell("scripts/test_ssp.sh", "--subset", "sdv4,adm").returncode == 0
    assert shell("scripts/test_ssp.sh", "--weights", "w.pth", "--output", "out").returncode == 0
    train = "--phase train --detector ssp --benchmark genimage --generators"
    test = "--phase eval --detector ssp --benchmark genimage --weights"
    assert commands(calls) == [
        f"{train} adm,sdv4 --output runs/ssp/adm,sdv4",
        f"{train} adm --output runs/ssp/adm --set data.val_split=val --set data.val_generators=all",
        f"{test} runs/ssp/adm/best.safetensors --output runs/ssp/adm/genimage "
        "--set data.published=ssp-adm --gpu 2",
        f"{test} runs/ssp/adm,sdv4/best.safetensors --output runs/ssp/adm,sdv4/genimage",
        f"{test} w.pth --output out",
    ]


def test_fake2m_trains_then_measures_on_mpbench(shell: Shell, calls: Path) -> None:
    given = ("--reals", "cc3m=a b", "--test_reals", "ffhq=c", "--gpu", 0)
    assert shell("scripts/train_fake2m.sh", *given).returncode == 0
    given = ("--reals", "cc3m=x", "--detector", "ssp", "--output", "out")
    assert shell("scripts/train_fake2m.sh", *given).returncode == 0
    recipe = ROOT / "configs" / "fake2m.yaml"
    assert commands(calls) == [
        "--phase train --detector classifier --benchmark fake2m --set data.reals=cc3m=a b --output "
        f"runs/classifier/fake2m --config {recipe} --backbone_weights convnext-small-imagenet "
        "--gpu 0",
        "--phase eval --detector classifier --benchmark mpbench --weights "
        "runs/classifier/fake2m/best.safetensors --output runs/classifier/fake2m/mpbench --set "
        "data.reals=ffhq=c --gpu 0",
        "--phase train --detector ssp --benchmark fake2m --set data.reals=cc3m=x --output out",
        "--phase eval --detector ssp --benchmark mpbench --weights out/best.safetensors --output "
        "out/mpbench",
    ]


def test_ssp_is_trained_on_all_subsets_one_after_the_other(
    shell: Shell, calls: Path, tmp_path: Path
) -> None:
    begun = tmp_path / "runs" / "ssp_baseline" / "midjourney"
    begun.mkdir(parents=True)
    (begun / "run.json").touch()
    words = ("all", "--detector", "ssp_baseline", "--published_trained", "--", "--data_root", "x")
    assert shell("scripts/train_ssp.sh", *words).returncode == 0
    start = "--detector ssp_baseline --benchmark genimage"
    found = commands(calls)
    assert found[:3] == [
        f"--phase train {start} --generators midjourney --output runs/ssp_baseline/midjourney "
        "--set data.val_split=val --resume --data_root x",
        f"--phase eval {start} --weights runs/ssp_baseline/midjourney/best.safetensors --output "
        "runs/ssp_baseline/midjourney/genimage --data_root x",
        f"--phase train {start} --generators sdv4 --output runs/ssp_baseline/sdv4 "
        "--set data.val_split=val --data_root x",
    ]
    assert len(found) == 16
    assert shell("scripts/train_ssp.sh", "all", "--resume").returncode == 2


@pytest.mark.parametrize("name", SCRIPTS)
def test_several_gpus_are_several_processes(shell: Shell, calls: Path, name: str) -> None:
    assert shell(name, *SCRIPTS[name], "--gpus", 2).returncode == 0
    steps = [call.split("\n") for call in calls.read_text().split("\n\n") if call]
    for words in steps:
        several = [str(ROOT / "scripts" / "_launch.py"), "2"]
        expected = [] if "--check" in words else several
        assert words[: len(expected) + 1] == [*expected, str(ROOT / "main.py")]
        assert "--gpu" not in words
    assert "--check" not in steps[-1]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--nonsense", "'--nonsense'"),
        ("word", "'word'"),
        ("--gpu", "--gpu: expected a value"),
        ("--gpu one", "'one'"),
        ("--gpus 0", "1 or more"),
        ("--gpu 0 --gpus 2", "one of them"),
        ("--resume --overwrite", "found both"),
        ("--epochs 3", "after --"),
        ("--gpu=0", "expected '--gpu 0'"),
        ("--gpu --resume", "--gpu: expected a value; found '--resume'"),
        ("-- --workers 2 --phase test", "--phase: expected another flag"),
        ("-- --detector=ssp", "--detector: expected another flag"),
    ],
)
def test_wrong_flags_are_one_line(
    shell: Shell, calls: Path, name: str, words: str, said: str
) -> None:
    done = shell(name, *SCRIPTS[name], *words.split())
    assert (done.returncode, done.stdout, noted(calls)) == (2, "", [])
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{Path(name).name}: ")
    assert said in line
    assert "--help" in line


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("train.sh", "--dataset coco", "sd-v1_4 or progan; found 'coco'"),
        ("train.sh", "--dataset", "--dataset: expected a value"),
        ("train.sh", "-- --output x", "--output: expected another flag"),
        ("scripts/train_spai.sh", "--csv a.csv -- --data b", "--data: expected another flag"),
        ("scripts/train_ssp.sh", "--subset sdv4 -- --output=x", "--output: expected another flag"),
        ("scripts/train_ssp.sh", "--subset sdv4,sdx", "--subset: expected adm,.*found 'sdx'"),
        ("scripts/train_ssp.sh", "--subset *", r"--subset: expected adm,.*found '\*'"),
        ("scripts/test_ssp.sh", "--subset sd*", r"--subset: expected adm,.*found 'sd\*'"),
        ("scripts/test_ssp.sh", "--subset \x1b[2J", r"--subset: expected adm,.*found '\?\[2J'"),
        ("scripts/test_ssp.sh", "--subset ../x", "--subset: expected adm,.*found '../x'"),
        ("scripts/train_spai.sh", "", "--csv"),
        ("scripts/train_ssp.sh", "", "--subset"),
        ("scripts/test_ssp.sh", "", "--subset or --weights"),
    ],
)
def test_what_is_needed_is_asked_for(
    shell: Shell, calls: Path, name: str, words: str, said: str
) -> None:
    (calls.parent / "sdv4").touch()  # which a shell would put in the place of sd*
    done = shell(name, *words.split())
    assert (done.returncode, noted(calls)) == (2, [])
    assert re.search(said, done.stderr)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_every_flag(shell: Shell, calls: Path, name: str) -> None:
    done = shell(name, "--help")
    assert (done.returncode, done.stderr, noted(calls)) == (0, "", [])
    content = (ROOT / name).read_text().split("while ")[1]
    known = set(re.findall(r"^ +(--\w+)", content.split("done\n")[0], re.M))
    for flag in ("--gpu", "--gpus", "--resume", "--overwrite", "-- FLAGS", *known):
        assert flag in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_step_that_fails_is_the_last(shell: Shell, calls: Path) -> None:
    done = shell("train.sh", AT="4", ACT="exit 7")
    assert (done.returncode, len(noted(calls))) == (7, 4)


def test_what_a_later_step_lacks_is_found_before_the_first(shell: Shell, calls: Path) -> None:
    done = shell("train.sh", AT="2", ACT="exit 2")
    assert done.returncode == 2
    assert ["--check" in words for words in noted(calls)] == [True, True]


@pytest.mark.parametrize("name", SCRIPTS)
def test_python_is_looked_for(shell: Shell, tmp_path: Path, name: str) -> None:
    done = shell(name, *SCRIPTS[name], PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "found '/nowhere/python', which is not there: bash scripts/setup.sh" in done.stderr


def test_the_folder_is_found_whatever_cdpath_says(
    shell: Shell, calls: Path, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "link").symlink_to(ROOT)
    done = shell("scripts/train_ssp.sh", "--subset", "adm", CDPATH=f".:{tmp_path}")
    assert (done.returncode, len(noted(calls))) == (0, 1)


@pytest.mark.parametrize(
    ("number", "leaves"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGINT, 0)]
)
def test_a_signal_lets_the_step_save_and_starts_no_other(
    environment: dict[str, str], calls: Path, tmp_path: Path, number: int, leaves: int
) -> None:
    """Also where the step ends by itself at that moment."""
    name, status = signal.Signals(number).name.removeprefix("SIG"), 128 + number
    act = f"trap 'sleep 0.3; touch {tmp_path}/saved; exit {leaves}' {name}; "
    act += f"touch {tmp_path}/ready; for i in {{1..200}}; do sleep 0.05; done"
    process = subprocess.Popen(
        ["bash", ROOT / "train.sh"], env=environment | {"AT": "3", "ACT": act}, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as a terminal does
    assert process.wait(20) == status
    assert (tmp_path / "saved").exists()
    assert len(noted(calls)) == 3


def test_the_scripts_are_clean() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not there")
    done = subprocess.run(
        [program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# --- for real

SMALL = ("--device", "cpu", "--workers", "0", "--set", "cospy.size=tiny", "--set",
         "train.report=false", "--epochs", "1", "--batch_size", "4")  # fmt: skip


# A recipe of a few steps, by what all scripts share.
RECIPE = f"""set -euo pipefail
program=recipe.sh
usage=none
source '{ROOT}/scripts/_shell.sh'
while [ $# -gt 0 ]; do shared_flag "$@"; shift "$taken"; done
ready
step --phase train --device cpu --set default.branch=artifact default.crop=32 \\
    train.report=false --batch_size 2 --workers 0 --weights start.safetensors --data set --epochs 50
"""


@pytest.fixture
def recipe(tmp_path: Path) -> list[str | Path]:
    make_tree(tmp_path / "set", count=12)
    options = DefaultOptions(branch="artifact", crop=48, size="tiny")
    write_weights(tmp_path / "start.safetensors", options=options)
    (tmp_path / "recipe.sh").write_text(RECIPE)
    return ["bash", tmp_path / "recipe.sh", "--gpus", "2", "--"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_save_after_a_signal(
    recipe: list[str | Path], tmp_path: Path, number: int
) -> None:
    log = tmp_path / "out" / "training.log"
    process = subprocess.Popen(
        [*recipe, "--output", "out"], cwd=tmp_path, start_new_session=True, text=True,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    while not (log.exists() and "pictures to train on" in log.read_text()):
        time.sleep(0.1)
    time.sleep(1)
    for _ in range(2):  # impatient, as people are
        os.killpg(process.pid, number)
        time.sleep(0.3)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in said) == (128 + number, False), said
    assert said.splitlines()[-1].endswith("after saving out; --resume goes on")
    assert (tmp_path / "out" / "last.pt").exists()


@pytest.mark.slow
def test_processes_end_with_the_status_of_the_first_that_fails(
    recipe: list[str | Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*recipe, "--data", "nowhere"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHON": sys.executable}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    for line in done.stderr.splitlines():
        assert re.match(r"main.py: (process 1: )?nowhere: expected ", line)


@pytest.mark.slow
def test_train_sh_leaves_a_detector_that_evaluation_finds(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = write_tree("cnndet", tmp_path / "data", count=3)
    model = CoSpy(CoSpyOptions(train_dataset="progan", size="tiny"))
    files = backbone_files(model, tmp_path)
    monkeypatch.chdir(tmp_path)
    backbones = ("--backbone_weights", *map(str, files))
    given = ("--", "--data_root", str(tree.root), *backbones, *SMALL)
    command = ["bash", str(ROOT / "train.sh"), "--dataset", "progan"]
    done = subprocess.run(
        [*command, *given], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split("weights in ")[1] for line in done.stdout.splitlines()] == [
        f"ckpt/progan/{part}/best.safetensors" for part in ("artifact", "semantic", "fusion")
    ]
    for part in ("artifact", "semantic", "fusion"):
        names = {path.name for path in (tmp_path / "ckpt/progan" / part).iterdir()}
        assert {"best.safetensors", "best_model.pth", "final_model.pth", "epoch_0.pth"} <= names
        assert {"final.safetensors", "epoch_0.safetensors", "training.log"} <= names

    cli = runner(capsys, caplog, monkeypatch, "--device", "cpu", "--train_dataset", "progan")
    use = ("--mode", "fusion", *backbones, "--workers", 0, "--set", "score.resamples=2")
    ours = cli("--phase", "eval", "--data", tree.root / "val", *use)
    assert ours.status == 0, ours.err
    # As the published program would have left them.
    for path in (tmp_path / "ckpt").rglob("*.safetensors"):
        path.unlink()
    again = ("--set", "cospy.size=tiny", "--overwrite")
    published = cli("--phase", "eval", "--data", tree.root / "val", *use, *again)
    assert (published.status, published.out) == (0, ours.out)
    fused = cli(
        "--phase", "train", "--mode", "fusion", "--data_root", tree.root, *backbones, *SMALL,
        "--overwrite",
    )  # fmt: skip
    assert fused.status == 0, fused.err

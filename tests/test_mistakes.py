"""Command lines that are wrong: status 2, one line that names what is wrong, and no file touched.

Both tables have the words of a command line and a pattern of its answer. Those of `EARLY` are
answered where PyTorch cannot be imported, all by one process; those of `LATE` need what it loads.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import Cli, plain_cli, write_weights
from conftest import ROOT, make_tree
from trees import write_tree

__all__ = ["plain_cli"]  # a fixture

EVAL, TRAIN = "--phase eval --data set", "--phase train --data set"
CNNDET = "--phase train --benchmark cnndet --data_root cnndet"
COSPY = f"{TRAIN} --train_dataset progan"
OF_TRAINING = (
    "--accumulate 2", "--save_every 3", "--save_all", "--val_data x", "--leak_free", "--check",
    "--feat_interp", "--feat_interp_alpha 1", "--feat_interp_ratio 1",
)  # fmt: skip
WITHOUT_PICTURES = (
    "eval --detector default", "eval --data_root x", "eval --protocol matched",
    "eval --set data.mscoco=x", "train --detector ssp", "train --data_root cnndet",
)  # fmt: skip
# fmt: off
EARLY = [
    # no such flag, no such value
    ("--phase guess", "'train'.*'eval'.*'test'.*--help"),
    ("--detector nobody", "cospy.*default.*ssp"),
    ("--phase eval --benchmark imagenet", "'imagenet'.*genimage"),
    ("--precision fp8", "fp32"),
    ("--wieghts x", "--wieghts"),
    ("--inp x", "--inp"),
    ("--input", "--input: .*at least one"),
    ("--phase eval --limit 0", "--limit: .*1 or more.*'0'"),
    ("--batch_size some", "--batch_size: .*whole number.*'some'"),
    ("--workers -1", "--workers: .*0 to 1024.*'-1'"),
    ("--threads 0", "--threads: .*1 to 1024.*'0'"),
    ("--seed 1.5", "--seed: .*whole number.*'1.5'"),
    ("--seed 99999999999999999999", "--seed: .* 0 to"),
    ("--threshold 1.1", "--threshold: .*0 to 1.*'1.1'"),
    ("--threshold nan", "--threshold: .*0 to 1.*'nan'"),
    ("--threshold nowhere.yaml", "--threshold: .*nowhere.yaml"),
    ("--threshold a.png", "--threshold: .*scripts/own_threshold.py"),
    ("--prevalence 0", "--prevalence: .*more than 0.*'0'"),
    ("--prevalence 1.0", "--prevalence: .*less than 1.*'1.0'"),
    (f"{TRAIN} --accumulate 0", "--accumulate: .*1 or more"),
    (f"{TRAIN} --feat_interp_ratio 2", "--feat_interp_ratio: .*0 to 1"),
    (f"{EVAL} --epochs last", "--epochs: .*'last'"),
    (f"{EVAL} --cache ''", "--cache: .*found an empty one"),
    ("a.png --device ''", "--device: .*found an empty one"),
    *((f"a.png --tag {tag}", f"--tag: .*'{re.escape(tag)}'") for tag in ("a/b", "../up", ".")),
    # flags that do not go together, or have no effect
    *(
        (f"--phase {phase} {words}", f"{words.split()[0]}: expected --phase train; found {phase}")
        for words in OF_TRAINING
        for phase in ("test", "eval")
    ),
    ("--data x", "--data: expected --phase train or eval"),
    ("--limit 3 a.png", "--limit: expected --phase train or eval"),
    ("--epochs 2", "--epochs: expected --phase train or eval"),
    (f"{EVAL} --until 2023", "--until: expected --phase train; found eval"),
    *((f"{TRAIN} --until {end}", f"--until: expected YYYY or YYYY-MM; found '{end}'")
      for end in ("23", "2023-13", "2023-01-01")),
    ("--test_csv x", "--test_csv: expected --phase train or eval"),
    ("--degrade jpeg:90 a.png", "--degrade: expected --phase eval"),
    (f"{TRAIN} --prevalence 0.1", "--prevalence: expected --phase test or eval"),
    (f"{TRAIN} --threshold 0.4", "--threshold: expected --phase test or eval"),
    (f"{TRAIN} --split test", "--split: expected --phase test or eval"),
    (f"{TRAIN} --json", "--json: expected --phase test"),
    (f"{EVAL} --input x", "--input: expected --phase test"),
    (f"{EVAL} --stability", "--stability: expected --phase test"),
    (f"{EVAL} --credentials", "--credentials: expected --phase test"),
    ("a.png --trust_list b.pem", "--trust_list: expected --credentials too"),
    ("--phase eval a.png", "--phase eval: .*--data"),
    ("a.png --input b.png", "--input: .*'a.png'"),
    ("--output x", "--output: .*--input too"),
    ("a.png --resume", "--resume: .*--output too.*--help"),
    ("a.png --output o --resume --overwrite", "--overwrite: not allowed with .*--resume"),
    ("a.png --device cpu --gpu 0", "--gpu: expected one of them, --device"),
    ("a.png --pretrain --weights x", "--pretrain: .*--weights"),
    ("--detector ssp --mode branch", "--mode: expected --detector cospy; found ssp"),
    ("--detector ssp --ckpt x a.png", "--ckpt: expected --detector cospy; found ssp"),
    (f"{TRAIN} --feat_interp", "--feat_interp: expected --detector cospy; found default"),
    (f"{TRAIN} --leak_free", "--leak_free: expected --detector cospy; found default"),
    (f"{COSPY} --leak_free --val_data set", "--val_data: expected without --leak_free"),
    (f"{COSPY} --pretrain", "--pretrain: expected --phase test"),
    *(
        (f"{TRAIN} --detector ensemble {words}", f"{words.split()[0]}: .*found ensemble")
        for words in ("--accumulate 2", "--weights x", "--epochs 2")
    ),
    *((f"{TRAIN} --epochs {epochs}", "--epochs: expected one whole number")
      for epochs in ("0", "1,2", "all")),
    *(
        (f"--phase {words}", r"--phase \w+: expected --data FOLDER or CSV, or --benchmark NAME")
        for words in WITHOUT_PICTURES
    ),
    *((f"{EVAL} {words}", f"{words.split()[0]}: expected --benchmark too")
      for words in ("--protocol matched", "--data_root set")),
    (f"{TRAIN} --data_root set", "--data_root: expected --benchmark too"),
    (f"{EVAL} --benchmark spai", "--benchmark: expected one of them, --data"),
    (f"{TRAIN} --benchmark cnndet", "--benchmark: expected one of them, --data"),
    (f"{EVAL} --test_csv set", "--test_csv: expected without --data"),
    ("--phase eval --benchmark spai --test_csv set", "--test_csv: .*--benchmark"),
    ("--phase eval --benchmark spai --split all", "--split: .*found all"),
    ("--phase eval --test_csv set list.csv", "--test_csv: expected --output too"),
    (f"{EVAL} --weights epochs --epochs 2", "--epochs: expected --output too"),
    (f"{EVAL} --epochs 2 --output out", "--epochs: expected --weights FOLDER"),
    ("--phase eval --csv_root .", "--csv_root: expected --data"),
    (f"{EVAL} --csv_root . --csv_root .", "--csv_root: expected a CSV as --data"),
    (f"{TRAIN} --csv_root set", "--csv_root: expected a CSV as --data.*found set"),
    ("list.csv --csv_root set --csv_root set", "--csv_root: .*each of the 1; found 2"),
    ("a.png --split test", "--split: .*found a.png"),
    # options
    ("a.png --set views=1", "--set: .*section.key=value.*'views=1'"),
    ("a.png --set nobody.x=1", "'nobody'.*default.*train, data, score"),
    ("a.png --set default.views=1 default.crpo=64", r"default\.crpo: .*crop.*views"),
    ("a.png --set score.batch=1", r"score\.batch: .*batch_size"),
    ("a.png --set default.views=many", r"default\.views: .*1 or 5.*'many'"),
    ("a.png --set default.views=2", r"default\.views: .*1 or 5.*2"),
    ("a.png --set score.batch_size=0", r"score\.batch_size: .* 1; found 0"),
    ("a.png --set default.views=[", r"default\.views: .*YAML"),
    ("a.png --set train.lr=fast", r"train\.lr: .*number; found 'fast'"),
    ("--detector ssp a.png --set ssp.patches=few", r"ssp\.patches: .*'few'"),
    *((f"a.png --set data.{key}=exif", f"data.{key}: .*'upright' or 'published'")
      for key in ("decoding", "train_decoding")),
    (f"{TRAIN} --set train.balance=1000", r"train\.balance: .* 1; found 1000"),
    (f"{TRAIN} --set train.warmup=.inf", r"train\.warmup: .*finite number"),
    *((f"{EVAL} --degrade {chain}", "--degrade: expected")
      for chain in ("jpg:5", "blur:x", "jpeg", "jpeg:0", "crop:64+", "jpeg:90,crop:64")),
    ("a.png --config nowhere.yaml", "nowhere.yaml: expected a YAML file"),
    ("a.png --config cut.yaml", "cut.yaml: expected a YAML file"),
    ("a.png --config key.yaml", r"default\.crpo: .*crop"),
    ("a.png --config list.yaml", "list.yaml: expected sections of keys; found list"),
    ("a.png --config number.yaml", "number.yaml: expected keys below 'default'; found 3"),
    # names of nothing, or of something else
    ("nothere.jpg no.png", "--input: .*nothere.jpg, no.png"),
    ("a.png --output a.png", "--output a.png: expected a folder"),
    ("--weights nobody a.png", "--weights: .*cospy-progan"),
    ("--weights nobody.pth a.png", "--weights: .*nobody.pth"),
    ("--detector ssp a.png", "fetch_weights"),
    ("--backbone_weights nobody -- a.png", "--backbone_weights: .*clip-vit-b-16"),
    ("--phase eval --data a.png", "a.png: expected a folder or a .csv"),
    ("--phase eval --data nowhere", "nowhere: expected a folder or a .csv"),
    ("--phase train --data nowhere", "nowhere: expected a folder or a .csv"),
    (f"{TRAIN} --val_data nowhere", "nowhere: expected a folder"),
    (f"{TRAIN} --test_csv nowhere.csv", "nowhere.csv: expected a folder"),
    ("--phase eval --test_csv set nowhere.csv --output out", "nowhere.csv: expected a folder"),
    ("--phase eval --compare set set", "--compare set: .*no run.json"),
    (f"{EVAL} --weights epochs --epochs 2,3 --output out", "of epoch 3 in epochs; found 2, 10"),
    (f"{EVAL} --weights set --epochs all --output out", "--epochs: .*in set; found none"),
    ("--phase eval --benchmark genimage", "data/GenImage: expected"),
    ("--phase eval --benchmark genimage --data_root nowhere", "nowhere: expected"),
    ("--phase eval --benchmark genimage --protocol none", "genimage has published, matched"),
    ("--phase train --benchmark cnndet --data_root nowhere", "nowhere: expected train/"),
    *((f"--phase train --benchmark {name}", f"one to train on: cnndet.*found {name}")
      for name in ("cospy_bench", "in_the_wild")),
]
# fmt: on
WEIGHTS = "--weights tiny.safetensors"
SCORED, MEASURED = f"{WEIGHTS} --input", f"{WEIGHTS} --phase eval --data"
# fmt: off
LATE = [
    *((f"{SCORED} a.png --device '{name}'", "--device: expected .*cpu, cuda")
      for name in ("tpu", "meta", "cpu:x")),
    (f"{SCORED} a.png --device cuda:99", "CUDA devices.*--device cpu"),
    (f"{SCORED} a.png --precision fp16", "expected a GPU"),
    (f"{SCORED} a.png --config detector.yaml", "'ssp'.*default"),
    (f"{SCORED} a.png --output a.png/below", "a.png"),
    (f"{SCORED} set --output o --tag class", "--tag"),
    (f"{SCORED} empty", "expected pictures"),
    (f"{SCORED} scored.csv --csv_root set --output o", "--tag"),
    (f"{SCORED} list.csv --csv_root set --output . --overwrite", "another folder"),
    (f"{SCORED} list.csv twin/list.csv --csv_root set --output o", "list.csv"),
    (f"{WEIGHTS} --input -", "found none"),
    (f"{MEASURED} set --generators gna", "gna.*diffusion, gan"),
    (f"{MEASURED} set --sources coco", "--sources"),
    (f"{MEASURED} set --set data.mscoco=x", "--benchmark too"),
    (f"{MEASURED} set --output set", "outside of the pictures"),
    (f"{MEASURED} set --output set/runs/one", "outside of the pictures"),
    (f"{MEASURED} splits.csv --csv_root set", "a split test; found train, val.*--split all"),
    (f"{MEASURED} splits.csv --csv_root set --split test", "'test'"),
    (f"{WEIGHTS} --phase eval --benchmark genimage --data_root set", "set: expected"),
    *(
        (f"{WEIGHTS} --phase {phase} {words}", said)
        for phase in ("eval", "train")
        for words, said in (("", f"--phase {phase}: .*--data"), ("--data empty", "empty: expected"),
                            ("--data unlabelled", "real"))
    ),
    (f"{CNNDET} --set data.val_split=chek", "split chek.*held_out"),
    (f"{CNNDET} --set data.train_split=tr", "a split tr;.*beside"),
    (f"{CNNDET} --generators sdv4", "no sdv4; found progan"),
    ("--phase train --benchmark fake2m --data_root fake2m", "synthetic pictures for training"),
    (f"{TRAIN} --set data.mscoco=x", r"data\.mscoco: expected --benchmark"),
    (f"{TRAIN} --set train.val_degrade=jpg:5", "jpg"),
    (f"{TRAIN} --val_data set/real", "expected"),
    ("--phase train --data cnndet --test_csv set set", "found .* twice|each file once"),
    (f"{TRAIN} --detector ssp --set data.leak_free=true", "leak_free: .*train and val"),
    (f"{COSPY} --mode branch --leak_free", "--mode fusion"),
    (f"{COSPY} --feat_interp_ratio 0", "--feat_interp too"),
    (f"{COSPY} --branch semantic", "--branch: .*found fusion"),
]
# fmt: on
FILES = {
    "key.yaml": "default: {crpo: 3}",
    "detector.yaml": "detector: ssp",
    "list.yaml": "- 1",
    "number.yaml": "default: 3",
    "cut.yaml": "{",
    "list.csv": "image\nreal/000.jpg\n",
    "twin/list.csv": "image\nreal/001.png\n",
    "scored.csv": "image,default\nreal/000.jpg,1\n",
    "splits.csv": "image,class,split\nreal/000.jpg,0,train\nfake/gan/000.jpg,1,val\n",
}  # fmt: skip
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
sys.path.insert(0, sys.argv[1])
import main
for words in json.load(sys.stdin):
    try:
        status = main.main(words)
    except SystemExit as error:
        status = error.code
    print(status, flush=True)
    print("\\0", end="", file=sys.stderr, flush=True)
"""


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the command lines of both tables are given."""
    folder = tmp_path_factory.mktemp("here")
    make_tree(folder / "set", count=1)
    for name in ("empty", "unlabelled", "twin", "epochs"):
        (folder / name).mkdir()
    for copy in ("a.png", "b.png", "unlabelled/a.png"):
        shutil.copy(folder / "set" / "real" / "000.jpg", folder / copy)
    for name, content in FILES.items():
        (folder / name).write_text(content)
    for family in ("cnndet", "fake2m"):
        write_tree(family, folder / "trees" / family).root.rename(folder / family)
    for name in ("tiny", "epochs/epoch_2", "epochs/epoch_10"):
        write_weights(folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def answers(here: Path) -> dict[str, tuple[str, str]]:
    """The exit status and the standard error of each of EARLY."""
    before = contents(here)
    words = [words for words, _ in EARLY]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(ROOT)],
        input=json.dumps([shlex.split(line) for line in words]),
        capture_output=True, text=True, cwd=here, check=True,
    )  # fmt: skip
    assert contents(here) == before
    told = zip(done.stdout.split(), done.stderr.split("\0")[:-1], strict=True)
    return dict(zip(words, told, strict=True))


@pytest.mark.parametrize(("words", "said"), EARLY)
def test_mistakes_need_no_torch(answers: dict[str, tuple[str, str]], words: str, said: str) -> None:
    status, answer = answers[words]
    [line] = answer.splitlines()
    assert (status, line[:9]) == ("2", "main.py: ")
    assert re.search(said, line), line


@pytest.mark.parametrize(("words", "said"), LATE)
def test_mistakes_that_need_more(
    plain_cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(here)
    before = contents(here)
    complaint = plain_cli(*shlex.split(words)).complaint
    assert re.search(said, complaint), complaint
    assert contents(here) == before


def test_a_python_without_the_packages_says_what_sets_it_up(tmp_path: Path) -> None:
    for words in (["--phase", "eval", "--data", "."], ["x.png"]):
        done = subprocess.run(
            [sys.executable, "-S", "-E", str(ROOT / "main.py"), *words], capture_output=True,
            text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "scripts/setup.sh" in line and ".venv/bin/python" in line

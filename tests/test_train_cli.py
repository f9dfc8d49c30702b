"""Phase train from the command line: what its flags choose, and what is left to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import Cli, runner, write_weights
from conftest import ROOT, make_tree, read_csv
from models import backbone_files
from trees import Tree, write_tree

from datasets import LayoutError, Record
from detectors._cospy_options import CoSpyOptions
from detectors._default_options import DefaultOptions
from detectors.cospy import CoSpy
from engine.cli import parser, settings, train_request
from engine.cli.train_request import Pictures
from engine.config import Config, ConfigError
from engine.phases import train
from engine.weights.cards import Card
from engine.weights.files import read_weights, save_original, save_weights
from engine.weights.loading import read_folder

COSPY = ("--train_dataset", "progan", "--mode")
FUSION = (*COSPY, "fusion")


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return runner(capsys, caplog, monkeypatch, "--device", "cpu", "--phase", "train")


def chosen(*words: object) -> tuple[Pictures, Config]:
    """What phase train would see, and its configuration."""
    args = parser.parser().parse_args(["--phase", "train", *map(str, words)])
    name = settings.detector_name(args)
    config = settings.resolve_config(args, name, None)
    train_request.check_flags(args, name, config)
    return train_request.pictures(args, config), config


def keys(records: list[Record]) -> set[str]:
    return {record.key for record in records}


def benchmark(folder: Path, family: str, count: int = 4) -> tuple[Tree, list[object]]:
    """A miniature, and the words that name it."""
    tree = write_tree(family, folder / family, count)
    parts = [f"data.{name}={place}" for name, place in tree.locations.items()]
    given: list[object] = ["--benchmark", family, "--data_root", tree.root]
    return tree, [*given, *(["--set", *parts] if parts else [])]


# --- which pictures of a benchmark


@pytest.mark.parametrize(
    ("family", "words", "splits"),
    [
        ("cnndet", "--detector default", ("train", "val")),
        ("ldm", "--detector spai", ("train", "val")),
        ("drct2m", "--train_dataset sd-v1_4 --mode end2end", ("train", "val")),
        ("drct2m", "--train_dataset sd-v1_4 --mode fusion", ("val", "val")),
        ("cnndet", "--train_dataset progan --mode fusion", ("val", "val")),
        ("genimage", "--detector ssp --set data.val_split=val", ("train", "val")),
        ("genimage", "--detector ssp --set data.val_split=valid", ("train", "val")),
    ],
)
def test_splits_of_a_benchmark(
    tmp_path: Path, family: str, words: str, splits: tuple[str, str]
) -> None:
    tree, given = benchmark(tmp_path, family)
    found, _ = chosen(*given, *words.split())
    assert keys(found.train) == tree.splits[splits[0]]
    assert keys(found.val) == tree.splits[splits[1]]
    assert str(tree.root) in found.how
    for split in splits:
        assert split in found.how


@pytest.mark.parametrize("family", ["drct2m", "genimage", "fake2m"])
def test_what_is_measured_later_chooses_nothing(tmp_path: Path, family: str) -> None:
    """The test pictures stay unseen; every generator is in both parts."""
    tree, given = benchmark(tmp_path, family, count=10)
    found, _ = chosen(*given, "--detector", "ssp")
    train, val = keys(found.train), keys(found.val)
    assert train.isdisjoint(val)
    assert train | val == tree.splits["train"]
    assert {r.generator for r in found.val} == {r.generator for r in found.train}
    assert ("drct_val" if family == "drct2m" else "held out") in found.how


def test_held_out_is_a_choice(tmp_path: Path) -> None:
    tree, given = benchmark(tmp_path, "cnndet")
    found, _ = chosen(*given, "--set", "data.val_split=held_out")
    assert keys(found.train) | keys(found.val) == tree.splits["train"]
    assert "held out" in found.how


def test_a_subset_trains_against_its_own_reals(tmp_path: Path) -> None:
    _, given = benchmark(tmp_path, "genimage")
    found, _ = chosen(*given, "--detector", "ssp", "--generators", "adm,sdv4")
    for records in (found.train, found.val):
        assert {r.source for r in records} == {"adm", "sdv4"}
        groups = Counter((r.source, r.generator) for r in records)
        assert groups.keys() == {("adm", ""), ("adm", "adm"), ("sdv4", ""), ("sdv4", "sdv4")}
    assert found.how.endswith("generators: adm, sdv4")


def test_sources_and_limits_hold_for_both_parts(tmp_path: Path) -> None:
    _, given = benchmark(tmp_path, "genimage")
    more = ("--set", "data.val_split=val", "--sources", "glide", "--limit", 2)
    found, _ = chosen(*given, "--detector", "ssp", *more)
    for records in (found.train, found.val):
        assert Counter((r.source, r.generator) for r in records) == {
            ("glide", ""): 2,
            ("glide", "glide"): 2,
        }


@pytest.mark.parametrize(("family", "place"), [("drct2m", "sd-v1_4"), ("cnndet", "progan")])
def test_cospy_knows_its_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, place: str
) -> None:
    tree = write_tree(family, tmp_path / "tree")
    (tmp_path / "data" / "train").mkdir(parents=True)
    tree.root.rename(tmp_path / "data" / "train" / place)
    monkeypatch.chdir(tmp_path)
    found, _ = chosen("--train_dataset", place, "--mode", "branch")
    wanted = {key for key in tree.splits["train"] if "sdxl" not in key}
    assert keys(found.train) == wanted
    assert {r.generator for r in found.val} - {""} <= {"stable-diffusion-v1-4", "progan"}


def test_the_log_says_what_is_not_unseen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, drct = benchmark(tmp_path, "drct2m", count=10)
    _, genimage = benchmark(tmp_path, "genimage")
    sd = ("--train_dataset", "sd-v1_4", "--mode", "fusion")

    def said(*words: object) -> str:
        caplog.clear()
        chosen(*words)
        return "\n".join(caplog.messages)

    published = said(*drct, *sd)
    assert re.search("chosen by the pictures that it is trained on.*--leak_free", published)
    assert "Co-Spy-Bench's source mscoco" in published
    assert "chosen by the pictures" not in said(*drct, *sd, "--leak_free")
    assert "mscoco" in said(*drct, *sd, "--leak_free")
    # Two names of the pictures that DRCT measures on.
    for split in ("val", "test"):
        told = said(*drct, "--detector", "ssp", "--set", f"data.val_split={split}")
        assert "COCO val2017 are what the epoch is chosen by" in told
        assert f"the split {split}, whose pictures --phase eval --benchmark drct2m" in told
    assert said(*drct, "--detector", "ssp") == ""
    assert "--phase eval --benchmark genimage" in said(
        *genimage, "--detector", "ssp", "--set", "data.val_split=val"
    )
    assert said(*genimage, "--detector", "ssp") == ""


def test_cospy_finds_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all of DRCT-2M, unless the one generator is where it is looked for first."""
    monkeypatch.chdir(tmp_path)
    words = ("--train_dataset", "sd-v1_4", "--mode", "end2end")
    whole = write_tree("drct2m", tmp_path, 3)
    (tmp_path / "data" / "train").mkdir(parents=True)
    whole.root.rename(tmp_path / "data" / "DRCT-2M")
    found, _ = chosen(*words)
    assert found.places == [Path("data/DRCT-2M")]
    assert Counter(r.generator for r in found.train) == {"": 3, "stable-diffusion-v1-4": 3}
    (tmp_path / "data" / "DRCT-2M").rename(tmp_path / "data" / "train" / "sd-v1_4")
    assert chosen(*words)[0].places == [Path("data/train/sd-v1_4")]


def test_leak_free_halves_share_nothing(tmp_path: Path) -> None:
    tree, given = benchmark(tmp_path, "cnndet", count=6)
    found, config = chosen(*given, *FUSION, "--leak_free")
    train, val = keys(found.train), keys(found.val)
    assert config.data.leak_free
    assert train.isdisjoint(val)
    assert train | val == tree.splits["val"]
    for records in (found.train, found.val):
        assert Counter(r.generator for r in records) == {"": 6, "progan": 6}
    assert "0.5 of every generator of split val" in found.how


# --- validation and test pictures of one's own


def test_each_csv_has_its_own_root(tmp_path: Path) -> None:
    names = ("data", "val", "test")
    trees = {name: make_tree(tmp_path / name, count=2) for name in names}
    words: list[object] = []
    for flag, name in zip(("--data", "--val_data", "--test_csv"), names, strict=True):
        (tmp_path / f"{name}.csv").write_text("image,class\nreal/000.jpg,0\nfake/gan/000.jpg,1\n")
        words += [flag, tmp_path / f"{name}.csv"]
    folder = ("--test_csv", trees["data"])  # which has none
    found, _ = chosen(*words, *folder, *(w for n in names for w in ("--csv_root", trees[n])))
    parts = (found.train, found.val, found.tests["test"])
    for name, records in zip(names, parts, strict=True):
        assert {r.path.is_relative_to(trees[name]) for r in records} == {True}
    same, _ = chosen(*words, "--csv_root", trees["val"])
    assert {r.path.is_relative_to(trees["val"]) for r in same.train} == {True}
    with pytest.raises(LayoutError, match="each of the 3; found 2"):
        chosen(*words, "--csv_root", trees["val"], "--csv_root", trees["data"])


def test_val_data_are_taken_whole_or_by_their_split(tmp_path: Path) -> None:
    data, other = make_tree(tmp_path / "data"), make_tree(tmp_path / "other", seed=1)
    found, _ = chosen("--data", data, "--val_data", other)
    assert (len(found.train), len(found.val)) == (24, 24)
    assert {r.path.is_relative_to(other) for r in found.val} == {True}
    assert "other for validation" in found.how
    for split in ("train", "val"):
        (other / split).mkdir()
    for place in ("real", "fake"):
        shutil.copytree(other / place, other / "train" / place)
        (other / place).rename(other / "val" / place)
    found, _ = chosen("--data", data, "--val_data", other)
    assert len(found.val) == 24
    assert all(key.startswith("val/") for key in keys(found.val))


def test_training_never_takes_named_test_pictures_with_val_data(tmp_path: Path) -> None:
    lines = [f"{s}{c}.png,{c},{s}" for s in ("train", "val", "test") for c in (0, 1)]
    (tmp_path / "list.csv").write_text("\n".join(["image,class,split", *lines]))
    other = make_tree(tmp_path / "other")
    found, _ = chosen("--data", tmp_path / "list.csv", "--val_data", other)
    assert keys(found.train) == {"train0.png", "train1.png"}


def test_validation_on_training_pictures_is_told(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = chosen("--data", tree, "--val_data", tree / "real" / "..")
    assert len(found.val) == 24
    assert "24 of 24 validation pictures are trained on too" in caplog.messages


def test_pictures_in_two_splits_are_told(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(key, int("fake" in key)) for key in sorted(keys(chosen("--data", tree)[0].train))]
    lines = [f"{key},{label},train" for key, label in rows]
    lines += [f"{key},{label},{s}" for key, label in rows[::9] for s in ("val", "test")]
    (tree / "list.csv").write_text("\n".join(["image,class,split", *lines]))
    caplog.clear()
    found, _ = chosen("--data", tree / "list.csv", "--test_csv", tree / "list.csv")
    said = "3 of 3 {} pictures are trained on too"
    assert caplog.messages == [said.format("validation"), said.format("list")]
    assert found.how.endswith(f"; {said.format('validation')}; {said.format('list')}")


def test_tests_are_named_by_their_files(tmp_path: Path) -> None:
    data = make_tree(tmp_path / "data")
    for folder in ("a", "b"):
        make_tree(tmp_path / folder / "set")
        lines = [f"set/real/{i:03}.{s},0,test" for i, s in ((0, "jpg"), (1, "png"))]
        lines += ["set/fake/gan/000.jpg,1,test", "set/fake/gan/001.png,1,val"]
        (tmp_path / folder / "set.csv").write_text("\n".join(["image,class,split", *lines]))
    files = [tmp_path / "a" / "set.csv", tmp_path / "b" / "set.csv"]
    found, _ = chosen("--data", data, "--test_csv", *files, "--test_csv", tmp_path / "a" / "set")
    assert {name: len(records) for name, records in found.tests.items()} == {
        "set": 3, str(files[1]): 3, str(tmp_path / "a" / "set"): 24,
    }  # fmt: skip


def test_generators_are_chosen_in_both_parts(tree: Path) -> None:
    """Those of a named validation split are others than those of training."""
    lines = ["image,class,split,generator"]
    for name, generator, split in (("gan", "gan", "train"), ("diffusion", "new", "val")):
        paths = sorted((tree / "fake" / name).iterdir())
        lines += [f"fake/{name}/{path.name},1,{split},{generator}" for path in paths]
    reals = sorted((tree / "real").iterdir())
    lines += [f"real/{p.name},0,{('train', 'val')[i % 2]}," for i, p in enumerate(reals)]
    (tree / "list.csv").write_text("\n".join(lines))
    words = ("--data", tree / "list.csv", "--generators")
    found, _ = chosen(*words, "gan,new")
    assert [{r.generator for r in part} for part in (found.train, found.val)] == [
        {"", "gan"}, {"", "new"},
    ]  # fmt: skip
    with pytest.raises((ConfigError, LayoutError), match="synthetic pictures for validation"):
        chosen(*words, "gan")


# --- flags that are numbers


def test_flags_reach_the_recipe(tree: Path) -> None:
    _, config = chosen("--data", tree, "--accumulate", 3, "--save_every", 0, "--save_all")
    options = config.train
    assert (options.accumulate, options.save_every, options.save_epochs) == (3, 0, 1)
    semantic = ("--train_dataset", "sd-v1_4", "--mode", "branch", "--branch", "semantic")
    for words, mixing in (
        ((), (False, 0.2, 0.5)),
        (("--feat_interp",), (True, 0.2, 0.5)),
        (("--feat_interp", "--feat_interp_alpha", 1, "--feat_interp_ratio", 0), (True, 1, 0)),
    ):
        options = chosen("--data", tree, *semantic, *words)[1].options
        found = (options.feat_interp, options.feat_interp_alpha, options.feat_interp_ratio)
        assert found == mixing


def test_help_of_training_imports_no_torch() -> None:
    code = "import sys; from engine.cli import parser as c; c.parser(); "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- whole runs

SMALL = ("--batch_size", 4, "--workers", 0)
FRESH = ("--set", "default.branch=artifact", "default.crop=32", *SMALL)


@pytest.fixture
def start(tmp_path: Path) -> tuple[object, ...]:
    """Words for the small detector's training."""
    options = DefaultOptions(branch="artifact", crop=48, size="tiny")
    weights = write_weights(tmp_path / "start.safetensors", options=options)
    return (*SMALL, "--detector", "default", "--weights", weights)


def test_a_run_on_a_benchmark_with_tests(
    cli: Cli, start: tuple[object, ...], tmp_path: Path
) -> None:
    """The epoch of the lowest validation loss is the best one, whatever the tests give."""
    _, given = benchmark(tmp_path, "cnndet", count=6)
    other, output = make_tree(tmp_path / "other", count=1), tmp_path / "run"
    more = ("--epochs", 2, "--save_all", "--test_csv", other, "--output", output)
    done = cli(*start, *given, *more, "--set", "train.select=loss", "train.report=false")
    assert (done.status, done.err) == (0, "")
    rows = read_csv(output / "history.csv")
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert done.out.startswith(f"best epoch {best['epoch']}: AP ")
    assert f"val_loss {float(best['val_loss']):.4f}" in done.out
    assert done.out.endswith(f"weights in {output}/best.safetensors\n")
    assert {f"other {name}" for name in ("AP", "AUROC", "accuracy", "val_loss")} <= rows[0].keys()
    assert {path.name for path in output.glob("epoch_*")} == {
        f"epoch_{number}.safetensors" for number in range(2)
    }
    run = json.loads((output / "run.json").read_text())
    assert run["split"].startswith("splits train and val of ")
    assert any("splits train and val of" in line for line in done.log)
    trained = ("--phase", "test", "--weights", output / "best.safetensors")
    assert len(cli(*trained, "--input", other).out.splitlines()) == 4


def test_a_finished_run_is_not_done_again(
    cli: Cli, start: tuple[object, ...], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = (*start, "--data", tree, "--output", tmp_path / "run", "--epochs", 1)
    first = cli(*use)
    assert first.status == 0, first.err
    described = (tmp_path / "run" / "run.json").read_bytes()
    said = cli(*use, "--resume", "--seed", 7).complaint
    assert "train.seed" in said
    assert (tmp_path / "run" / "run.json").read_bytes() == described

    def refuse(*_: Any) -> None:
        raise AssertionError("a finished run builds no model")

    with monkeypatch.context() as patch:
        patch.setattr(train, "model_to_train", refuse)
        again = cli(*use, "--resume", "--save_every", 7)
        assert (again.status, again.out, again.err) == (0, first.out, "")
        for gone in ("final.safetensors", "validation/run.json"):
            file, away = tmp_path / "run" / gone, tmp_path / "away"
            file.rename(away)
            assert cli(*use, "--resume").status == 70  # by `refuse`: it begins to train
            away.rename(file)
    # Measured on more, or begun with other weights, it would be another run.
    assert "other --test_csv" in cli(*use, "--resume", "--test_csv", tree).complaint
    weights = ("--weights", tmp_path / "run" / "final.safetensors")
    assert "other weights to start from" in cli(*use, *weights, "--resume").complaint
    # What is left of it is done, here the report.
    shutil.rmtree(tmp_path / "run" / "validation")
    done = cli(*use, "--resume")
    assert (done.status, done.out) == (0, first.out)
    assert (tmp_path / "run" / "validation" / "report.md").exists()


def test_without_weights_the_default_detector_starts_afresh(
    cli: Cli, tree: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    done = cli(*FRESH, "--detector", "default", "--data", tree, "--epochs", 1, "--output", output)
    assert done.status == 0, done.err
    state, _ = read_weights(output / "best.safetensors")
    means = [v for k, v in state.items() if k.endswith("running_mean")]
    assert all(mean.abs().sum() > 0 for mean in means), "batch norms that learn"
    told = json.loads((output / "run.json").read_text())["config"]["train"]
    assert told["freeze_batchnorm"] is False


def test_a_check_trains_nothing_and_misses_what_training_would(
    cli: Cli, start: tuple[object, ...], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "run"
    done = cli(*start, "--data", tree, "--output", output, "--check")
    assert (done.status, done.err) == (0, "")
    how = f"0.1 of every generator of {tree} held out for validation"
    assert done.out == f"{output}: 21 pictures to train on, 3 for validation: {how}\n"
    assert not output.exists()
    output.mkdir()
    (output / "best.safetensors").touch()
    use = ("--data", tree, "--check")
    assert "holds an earlier run" in cli(*start, *use, "--output", output).complaint
    assert "found no" in cli(*start, "--data", tmp_path / "none", "--check").complaint
    fresh = cli(*FRESH, *use, "--detector", "default")
    assert fresh.status == 0 and "train.freeze_batchnorm: false" in fresh.log[0]
    idle = cli(*use, "--detector", "ssp", "--epochs", 1)
    assert "--epochs 2 or more" in idle.complaint
    semantic = (*COSPY, "branch", "--branch", "semantic")
    assert "clip-vit-l-14, which these weights" in cli(*semantic, *use).complaint
    assert "semantic_weights.pth" in cli(*FUSION, *use, "--ckpt", tmp_path / "ckpt").complaint
    assert "--check: expected --phase train" in cli("--phase", "eval", "--check").complaint


# --- CO-SPY's folders


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """ckpt/ as the published program leaves it after its three steps, on tiny networks."""
    torch.manual_seed(3)
    model = CoSpy(CoSpyOptions(train_dataset="progan", size="tiny"))
    backbone_files(model, tmp_path)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("semantic.encoder.")}
    parts = {
        "semantic": {k: v for k, v in state.items() if k.startswith("semantic.")},
        "artifact": {k: v for k, v in state.items() if k.startswith("artifact.")},
        "fusion": {k: v for k, v in state.items() if k.startswith("fc.")},
    }
    for part, own in parts.items():
        folder = tmp_path / "ckpt" / "progan" / part
        folder.mkdir(parents=True)
        save_original(folder / "best_model.pth", CoSpy.publish(own))
    return tmp_path / "ckpt"


def test_what_the_published_program_trained_is_read(
    cli: Cli, published: Path, tree: Path, tmp_path: Path
) -> None:
    whole = read_folder("cospy", published / "progan", ("semantic", "artifact", "fusion"))
    assert whole.state["fc.weight"].shape == (1, 2)
    tiny = ("--set", "cospy.size=tiny", "--ckpt", published, "--workers", 0)
    backbone = ("--backbone_weights", tmp_path / "clip-vit-l-14.safetensors")
    test = ("--phase", "test", "--json", "--input", tree / "real")
    for mode in ("fusion", "branch"):
        done = cli(*test, *COSPY, mode, *tiny, *(backbone if mode == "fusion" else ()))
        assert (done.status, len(done.rows)) == (0, 12), done.err
    before = read_weights(published / "progan" / "fusion" / "best_model.pth")[0]["fc.weight"]
    done = cli(
        *FUSION, *tiny, *backbone, "--data", tree, "--set", "train.report=false", "--overwrite",
        "--batch_size", 4,
    )  # fmt: skip
    assert done.status == 0, done.err
    after = read_weights(published / "progan" / "fusion" / "best.safetensors")[0]
    for key in ("artifact.fc.weight", "semantic.fc.weight"):
        assert torch.equal(after[key], whole.state[key])
    assert not torch.equal(after["fc.weight"], before)


def test_branches_trained_elsewhere_are_fused(
    cli: Cli, published: Path, tree: Path, tmp_path: Path
) -> None:
    backbone = ("--backbone_weights", tmp_path / "clip-vit-l-14.safetensors")
    use = ("--set", "cospy.size=tiny", "train.report=false", "--workers", 0, "--batch_size", 4)
    use += ("--data", tree, "--limit", 4, "--epochs", 1, *backbone, "--ckpt", tmp_path / "empty")
    places = [tmp_path / part for part in ("semantic run", "artifact run")]
    for place in places:
        branch = place.name.split()[0]
        done = cli(*COSPY, "branch", "--branch", branch, *use, "--output", place)
        assert done.status == 0, done.err
    alone = (*COSPY, "branch", "--branch", "artifact", "--weights", places[1])
    scored = cli("--phase", "test", *alone, *use[:2], "--input", tree / "real", "--json")
    assert (scored.status, len(scored.rows)) == (0, 12), scored.err
    assert "--output" in cli(*FUSION, *use, "--output", tmp_path / "none").complaint
    half = cli(*FUSION, *use, "--weights", f"{places[1]},{places[1]}").complaint
    assert "semantic/best.safetensors" in half and "--weights FOLDER,FOLDER" in half
    together = tmp_path / "fusion run"
    both = ",".join(map(str, reversed(places)))
    done = cli(*FUSION, *use, "--weights", both, "--output", together)
    assert done.status == 0, done.err
    fused = read_weights(together / "best.safetensors")[0]
    for place, key in zip(places, ("semantic.fc.weight", "artifact.fc.weight"), strict=True):
        assert torch.equal(fused[key], read_weights(place / "best.safetensors")[0][key])


def test_a_part_that_is_nowhere_is_named(cli: Cli, published: Path, tree: Path) -> None:
    (published / "progan" / "semantic" / "best_model.pth").unlink()
    given = (*FUSION, "--ckpt", published, "--data", tree, "--set", "cospy.size=tiny")
    said = cli(*given, "--overwrite").complaint
    assert "semantic_weights.pth" in said
    assert "semantic/best.safetensors" in said


def test_branches_are_read_whole(cli: Cli, published: Path, tree: Path, tmp_path: Path) -> None:
    """Those of another variant, or with something missing, are not fused."""
    use = (
        *(*FUSION, "--ckpt", published, "--data", tree, "--overwrite", "--set", "cospy.size=tiny"),
        *("--backbone_weights", tmp_path / "clip-vit-l-14.safetensors"),
    )
    artifact = published / "progan" / "artifact" / "best_model.pth"
    state = read_weights(artifact)[0]
    save_original(artifact, dict(list(state.items())[:5]))
    assert "missing artifact." in cli(*use).complaint
    artifact.unlink()
    own = {k: v for k, v in CoSpy.convert(state).items() if k.startswith("artifact.")}
    options = {"train_dataset": "sd-v1_4", "mode": "branch", "branch": "artifact"}
    save_weights(artifact.with_name("best.safetensors"), own, Card("cospy", options))
    assert "train_dataset sd-v1_4" in cli(*use).complaint
    start = (*COSPY, "branch", "--data", tree, "--weights", artifact.with_name("best.safetensors"))
    assert "train_dataset sd-v1_4" in cli(*start, "--output", tmp_path / "out").complaint


# --- several processes


@pytest.mark.slow
def test_two_processes_train_together(
    cli: Cli, start: tuple[object, ...], tree: Path, tmp_path: Path
) -> None:
    words = [
        *start,
        "--data",
        tree,
        "--epochs",
        1,
        "--set",
        "train.report=false",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += ["2", str(ROOT / "main.py"), "--phase", "train", "--output", str(tmp_path / "two")]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("best epoch 1: AP ")
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    assert run["processes"] == 2


def test_an_ensemble_is_fitted_by_one_process(
    cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = cli("--detector", "ensemble", "--data", tree).complaint
    assert "one process in training; found 2" in said

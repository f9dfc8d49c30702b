"""CO-SPY in both variants and all modes, with tiny networks: what learns, what is frozen, how files
are read, the command line."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Cli, runner
from conftest import EXAMPLE, make_picture, make_tree
from models import backbone_files, randomise
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from trees import write_tree

import main
from detectors import _clip, _vae, cospy
from detectors._errors import OptionError, WeightsError
from detectors._options import describe_options
from engine.training.checkpoint import own_state
from engine.weights.cards import Card
from engine.weights.files import read_weights, save_weights
from engine.weights.loading import build, open_weights

VARIANTS = tuple(cospy.VARIANTS)
MODES: dict[str, dict[str, str]] = {
    "semantic": {"mode": "branch", "branch": "semantic"},
    "artifact": {"mode": "branch", "branch": "artifact"},
    "fusion": {"mode": "fusion"},
    "end2end": {"mode": "end2end"},
}
TIME = r"\d\d-\d\d at \d\d:\d\d:\d\d"  # of CO-SPY's log files
EVERY = [(variant, mode) for variant in VARIANTS for mode in MODES]


def make(variant: str, mode: str) -> cospy.CoSpy:
    model = cospy.CoSpy(cospy.CoSpyOptions(train_dataset=variant, size="tiny", **MODES[mode]))
    randomise(model)
    return model.eval()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch_of(model: cospy.CoSpy, train: bool = False) -> Tensor:
    pictures = [make_picture(i, fake=bool(i % 2), size=(300, 260)) for i in range(2)]
    transform = model.transform(train)
    return model.collate([transform(p, rng(i)) for i, p in enumerate(pictures)])


@pytest.mark.parametrize(("variant", "mode"), EVERY)
def test_only_what_is_published_as_trainable_learns(variant: str, mode: str) -> None:
    model = make(variant, mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    torch.manual_seed(0)  # end2end: no coefficient is dropped
    model.loss(batch_of(model, train=True), torch.tensor([0.0, 1.0])).backward()
    optimizer.step()
    changed = {k.rsplit(".", 1)[0] for k, v in model.state_dict().items() if not v.equal(before[k])}
    learns = {
        "semantic": {"semantic.fc"},
        "artifact": {"artifact.fc", "artifact.trunk"},
        "fusion": {"fc"},
        "end2end": {"fc", "semantic.fc", "artifact.fc", "artifact.trunk"},
    }[mode]
    assert {name for name in learns if any(key.startswith(name) for key in changed)} == learns
    frozen = [key for key in changed if not key.startswith(tuple(learns))]
    assert frozen == []


@pytest.mark.parametrize(("variant", "mode"), EVERY)
def test_frozen_parts_stay_in_evaluation_mode(variant: str, mode: str) -> None:
    model = make(variant, mode).train()
    assert model.training
    if model.semantic is not None:
        assert not any(m.training for m in model.semantic.encoder.modules())
    if model.artifact is not None:
        if model.artifact.vae is not None:
            assert not any(m.training for m in model.artifact.vae.modules())
        assert model.artifact.trunk.bn1.training == (mode != "fusion")
    model.requires_grad_(False).eval().train()  # as an average of a model is


@pytest.mark.parametrize("variant", VARIANTS)
def test_fusion_training_gives_each_branch_its_own_view(variant: str) -> None:
    model = make(variant, "fusion")
    views = batch_of(model, train=True)
    semantic, artifact = model.inputs(views)
    size = 384 if variant == "sd-v1_4" else 224
    assert (semantic.shape[2:], artifact.shape[2:]) == ((size, size), (224, 224))
    assert views.shape[2:] == (size, size + 224)
    torch.testing.assert_close(semantic * 255, views[..., :size].float())
    torch.testing.assert_close(artifact * 255, views[:, :, :224, size:].float())


def test_fusion_loss_keeps_the_bias_above_its_floor() -> None:
    logits, labels = torch.zeros(2), torch.tensor([0.0, 1.0])
    bce = np.log(2)
    for bias, penalty in ((2.0, 0.0), (2.5, 0.0), (1.25, 0.75)):
        found = cospy.fusion_loss(logits, labels, torch.tensor([bias]), 2.0)
        assert found.item() == pytest.approx(bce + penalty)


def test_end2end_drops_one_coefficient_in_three_batches_of_ten() -> None:
    model = make("progan", "end2end").train()
    torch.manual_seed(0)
    drawn = [model._coefficients() for _ in range(2000)]
    assert set(drawn) == {(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)}
    assert 0.26 < sum(d != (1.0, 1.0) for d in drawn) / len(drawn) < 0.34
    assert {model.eval()._coefficients() for _ in range(50)} == {(1.0, 1.0)}


def test_end2end_weighs_features_by_logits() -> None:
    model = make("progan", "end2end")
    assert model.semantic is not None
    assert model.artifact is not None
    batch = batch_of(model)
    x, _ = model.inputs(batch)
    with torch.inference_mode():
        s, a = model.semantic.feature(x), model.artifact.feature(x)
        joined = torch.cat([model.semantic.fc(s) * s, model.artifact.fc(a) * a], dim=1)
        torch.testing.assert_close(model(batch), model.fc(joined).squeeze(1))


def test_the_residual_is_what_diffusers_autoencoder_takes() -> None:
    """Which normalises by other sums, and samples nothing here."""
    branch = make("sd-v1_4", "artifact").artifact
    assert branch is not None
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = branch.residual(x)
        for module in branch.vae.modules():
            if isinstance(module, nn.GroupNorm):
                module.__class__ = nn.GroupNorm
        again = branch.vae.decode(branch.vae.encode(x).latent_dist.mean).sample
    torch.testing.assert_close(0.07 * found, x - again, rtol=0, atol=1e-4)


# --- published layouts


def published(model: cospy.CoSpy) -> dict[str, dict[str, Tensor]]:
    """The files that the published code would write for the model."""
    state = {k: v.contiguous() for k, v in own_state(model).items()}
    own = {k: v for k, v in state.items() if k.startswith("fc.")}
    semantic = {k.removeprefix("semantic."): v for k, v in state.items() if "semantic.fc" in k}
    artifact = {
        k.replace("artifact.trunk.", "artifact_encoder.").replace("artifact.fc.", "fc."): v
        for k, v in state.items()
        if k.startswith("artifact.")
    }
    return {"semantic": semantic, "artifact": artifact, "fusion": own}


def write_folder(model: cospy.CoSpy, folder: Path) -> Path:
    folder.mkdir()
    for name, state in published(model).items():
        torch.save(state, folder / f"{name}_weights.pth")
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_of_three_published_files_is_one_detector(variant: str, tmp_path: Path) -> None:
    model = make(variant, "fusion")
    folder = write_folder(model, tmp_path / variant)
    file = open_weights(folder, "cospy", ("semantic", "artifact", "fusion"))
    loaded = build("cospy", model.options, file, backbone_files(model, tmp_path))
    assert set(loaded.external) == set(cospy.CoSpy.external(model.options).values())
    batch = batch_of(model)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(batch), model(batch), rtol=0, atol=0)
    (folder / "artifact_weights.pth").unlink()
    with pytest.raises(WeightsError, match=r"artifact_weights\.pth"):
        open_weights(folder, "cospy", ("semantic", "artifact", "fusion"))


def test_the_four_parts_of_an_end2end_file(tmp_path: Path) -> None:
    model = make("sd-v1_4", "end2end")
    state = model.state_dict()
    parts: dict[str, dict[str, Tensor]] = {"sem_fc": {}, "art_fc": {}, "art_encoder": {}}
    parts["classifier"] = {}
    names = {
        "semantic.fc.": ("sem_fc", ""),
        "artifact.fc.": ("art_fc", ""),
        "artifact.trunk.": ("art_encoder", ""),
        "artifact.vae.": ("art_encoder", "vae."),
        "fc.": ("classifier", ""),
    }
    for key, value in state.items():
        for prefix, (part, inner) in names.items():
            if key.startswith(prefix):
                parts[part][inner + key.removeprefix(prefix)] = value
    torch.save(parts, tmp_path / "end2end_weights.pth")
    file = open_weights(tmp_path / "end2end_weights.pth", "cospy")
    encoder = [p for p in backbone_files(model, tmp_path) if "siglip" in p.name]
    loaded = build("cospy", model.options, file, encoder)
    batch = batch_of(model)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(batch), model(batch), rtol=0, atol=0)


def test_the_autoencoder_comes_with_the_file_or_alone(tmp_path: Path) -> None:
    """The published artifact file holds it; one of our own training does not."""
    model = make("sd-v1_4", "artifact")
    whole = published(model)["artifact"] | {
        k.replace("artifact.", "artifact_encoder."): v.contiguous()
        for k, v in model.state_dict().items()
        if k.startswith("artifact.vae.")
    }
    batch = batch_of(model)
    for state, backbones in ((whole, []), (published(model)["artifact"], [0])):
        torch.save(state, tmp_path / "artifact_weights.pth")
        file = open_weights(tmp_path / "artifact_weights.pth", "cospy")
        files = backbone_files(model, tmp_path) if backbones else []
        loaded = build("cospy", model.options, file, files)
        with torch.inference_mode():
            torch.testing.assert_close(loaded.model(batch), model(batch), rtol=0, atol=0)


def test_old_names_of_the_autoencoders_attention() -> None:
    state = _vae.autoencoder(True).state_dict()
    old = {new: name for name, new in _vae.RENAMED.items()}
    published = {}
    for key, value in state.items():
        name = key
        for new, before in old.items():
            if ".attentions." in key:
                name = name.replace(f".{new}.", f".{before}.")
        published[name] = value
    assert published.keys() != state.keys()
    assert _vae.current_keys(published).keys() == state.keys()
    assert _vae.current_keys({"fc.weight": torch.zeros(1)}) == {}


def test_clip_of_the_transformers_library_is_the_same_network() -> None:
    encoder = _clip.clip_vit_l14(True)
    randomise(encoder)
    state = encoder.state_dict()
    theirs: dict[str, Tensor] = {"visual_projection.weight": state["proj"].T.contiguous()}
    back = {new: old for old, new in _clip.RENAMED.items()}
    for key, value in state.items():
        if key == "proj":
            continue
        name = key
        for new, old in back.items():
            name = name.replace(new, old)
        if "attn.in_proj_" in name:
            kind = key.rsplit("_", 1)[1]
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                inner = name.replace(f"attn.in_proj_{kind}", f"self_attn.{part}_proj.{kind}")
                theirs[f"vision_model.{inner}"] = chunk
        else:
            theirs[f"vision_model.{name}"] = value
    theirs["text_model.embeddings.token_embedding.weight"] = torch.zeros(2)
    found = _clip.vision_keys(theirs)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[k], state[k]) for k in state)


def test_quick_gelu_is_used() -> None:
    """open_clip's plain ViT-L-14 has GELU, which gives other features."""
    names = {type(m).__name__ for m in _clip.clip_vit_l14(True).modules()}
    assert "QuickGELU" in names
    assert "GELU" not in names


def test_text_towers_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("progan", "semantic")
    [path] = backbone_files(model, tmp_path)
    save_file({**load_file(path), "text_projection": torch.zeros(3)}, path)
    read: list[str] = []

    def spy(file: Path, wanted: Any, dtype: Any = None) -> Any:
        state, card = read_weights(file, wanted, dtype)
        read.extend(state)
        return state, card

    monkeypatch.setattr("engine.weights.loading.read_weights", spy)
    own = {k.removeprefix("semantic."): v for k, v in own_state(model).items()}
    monkeypatch.undo()
    torch.save(own, tmp_path / "semantic_weights.pth")
    file = open_weights(tmp_path / "semantic_weights.pth", "cospy")
    monkeypatch.setattr("engine.weights.loading.read_weights", spy)
    build("cospy", model.options, file, [path])
    assert read
    assert all(key.startswith("visual.") for key in read)


def test_frozen_parts_are_held_in_half_precision_when_asked(tmp_path: Path) -> None:
    model = make("sd-v1_4", "fusion")
    file = open_weights(write_folder(model, tmp_path / "w"), "cospy", tuple(published(model)))
    files = backbone_files(model, tmp_path)
    loaded = build("cospy", model.options, file, files, torch.bfloat16)
    frozen = tuple(cospy.CoSpy.external(model.options))
    kinds = {
        (key.startswith(frozen), value.dtype)
        for key, value in loaded.model.state_dict().items()
        if value.is_floating_point()
    }
    assert kinds == {(True, torch.bfloat16), (False, torch.float32)}
    batch = batch_of(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert bool(loaded.model(batch).isfinite().all())


# --- explanations


def test_the_semantic_branch_has_no_residual_to_explain_it() -> None:
    semantic = make("progan", "semantic")
    with pytest.raises(OptionError, match="semantic branch has no residual"):
        semantic.explain(batch_of(semantic))


# --- the command line


@pytest.fixture
def bare(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Cli:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-cache"))
    small = ("--device", "cpu", "--set", "cospy.size=tiny", "--ckpt", tmp_path / "ckpt")
    return runner(capsys, caplog, monkeypatch, *small)


def test_weights_of_the_other_variant_are_refused(bare: Cli, tmp_path: Path) -> None:
    """Without the autoencoder, artifact branches of both variants have the same keys."""
    model = make("sd-v1_4", "artifact")
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("artifact.vae.")}
    (tmp_path / "artifact").mkdir()
    weights = tmp_path / "artifact" / "best.safetensors"
    save_weights(weights, own, Card("cospy", describe_options(model.options)))
    ask = (
        "--train_dataset",
        "progan",
        "--mode",
        "branch",
        "--branch",
        "artifact",
        "--input",
        EXAMPLE,
    )
    for given in (weights, tmp_path):
        said = bare(*ask, "--weights", given).complaint
        assert "train_dataset sd-v1_4; found --train_dataset progan" in said
    save_weights(weights, own, Card("ssp", {}))
    assert "those of ssp" in bare(*ask, "--weights", tmp_path).complaint


def test_verdict_with_a_folder_of_weights(bare: Cli, tree: Path, tmp_path: Path) -> None:
    model = make("progan", "fusion")
    folder = write_folder(model, tmp_path / "progan")
    some = sorted((tree / "real").iterdir())[:3]
    flags = ("--train_dataset", "progan", "--weights", folder, "--input", *some, "--json")
    missing = bare(*flags).complaint
    assert "clip-vit-l-14" in missing
    assert "scripts/fetch_weights.py" in missing
    assert "--backbone_weights" in missing
    files = backbone_files(model, tmp_path)
    output = tmp_path / "out"
    done = bare(*flags, "--backbone_weights", *files, "--explain", "--output", output)
    assert (done.status, len({row["score"] for row in done.rows})) == (0, 3)
    assert {row["detector"] for row in done.rows} == {"cospy"}
    run = json.loads((output / "run.json").read_text())
    [(name, part)] = run["weights"]["frozen"].items()
    assert name == "clip-vit-l-14"
    assert part["sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    drawn = sorted((output / "explain").iterdir())
    assert len(drawn) == 3
    for path in drawn:
        with Image.open(path) as picture:
            picture.verify()


def test_branches_then_fusion_are_trained_and_used(bare: Cli, tmp_path: Path) -> None:
    """train.sh's three steps; the fusion finds the branches below --ckpt, and is a file of its
    own afterwards that needs nothing but the frozen encoder."""
    tree = make_tree(tmp_path / "tree", count=2)
    encoder = backbone_files(make("progan", "semantic"), tmp_path)
    train = ("--phase", "train", "--train_dataset", "progan", "--data", tree, "--epochs", 1)
    few = ("--batch_size", 4, "--workers", 0, "--backbone_weights", *encoder)
    early = bare(*train, *few)
    assert early.status == 2
    assert "semantic_weights.pth, semantic/best.safetensors or semantic/best_model.pth" in early.err
    for branch in ("artifact", "semantic"):
        files = few if branch == "semantic" else few[:4]
        done = bare(*train, "--mode", "branch", "--branch", branch, *files)
        assert done.status == 0, done.err
    assert bare(*train, *few).status == 0
    best = tmp_path / "ckpt" / "progan" / "fusion" / "best.safetensors"
    keys = load_file(best).keys()
    assert {"fc.weight", "semantic.fc.weight", "artifact.trunk.conv1.weight"} <= keys
    assert not any(key.startswith("semantic.encoder") for key in keys)
    flags = ("--train_dataset", "progan", "--backbone_weights", *encoder)
    scored = bare(*flags, "--input", tree / "real")
    assert (scored.status, len(scored.out.splitlines())) == (0, 4)


def test_published_weights_that_cannot_be_downloaded(
    bare: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.weights.manifest.PRETRAINED", tmp_path)
    said = bare("--train_dataset", "progan", "--pretrain", "--input", EXAMPLE).complaint
    assert "cospy-progan" in said
    assert "--from PATH" in said


def test_results_lie_and_are_called_as_published(
    bare: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make("progan", "fusion")
    write_folder(model, tmp_path / "progan")
    monkeypatch.setattr("engine.weights.manifest.PRETRAINED", tmp_path)
    monkeypatch.setattr("engine.reporting.drawing.png", lambda figure: b"not looked at")
    root = write_tree("aigcdetect", tmp_path).root
    flags: list[object] = ["--phase", "eval", "--train_dataset", "progan", "--data_root", root]
    flags += ["--backbone_weights", *backbone_files(model, tmp_path), "--cache", "none"]
    flags += ["--set", "score.resamples=10"]
    done = bare(*flags, "--pretrain")
    assert done.status == 0, done.err
    folder = tmp_path / "ckpt" / "progan" / "fusion"
    output = folder / "pretrain_AIGCDetectionBenchMark"
    result = json.loads((output / "result.json").read_text())
    assert list(result) == list(json.loads((output / "output.json").read_text())) == ["test"]
    log = (output / "evaluation.log").read_text(encoding="utf-8")
    for name, cell in result["test"].items():
        ap, accuracy = f"AP {100 * cell['AP']:.2f}%", f"Accuracy {100 * cell['Accuracy']:.2f}%"
        said = f"AIGCDetectionBenchMark - test - {name} | Size {cell['size']} | {ap} | {accuracy}"
        line = rf"^{TIME} \| INFO \| eval:\d+ \| Evaluate on {re.escape(said)}$"
        assert len(re.findall(line, log, re.MULTILINE)) == 1
    mean = np.mean([cell["AP"] for cell in result["test"].values()])
    assert f"Average Performance on AIGCDetectionBenchMark | AP {100 * mean:.2f}%" in log

    # A run of an earlier version goes on where it is, and is compared by its name.
    earlier = folder / "pretrain_aigcdetect"
    output.rename(earlier)
    rows = (earlier / "scores.csv").read_bytes()
    (earlier / "scores.csv").write_bytes(rows[: len(rows) // 2])
    assert bare(*flags, "--pretrain", "--resume").status == 0
    assert (earlier / "scores.csv").read_bytes() == rows and not output.exists()
    # By their name they are the published weights, too.
    assert bare(*flags, "--weights", "cospy-progan").status == 0
    assert (output / "scores.csv").read_bytes() == rows
    assert main.main(["--phase", "eval", "--compare", str(earlier), str(output)]) == 0
    assert "16 pictures in common" in capsys.readouterr().out

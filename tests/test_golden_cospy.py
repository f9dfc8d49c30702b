"""CO-SPY's parity with the published code, both variants: preprocessing, residuals, features,
logits, and the training of the fusion."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_rule import INPUTS, check, fill, golden, published
from torch import Tensor

from datasets._images import open_picture
from detectors import cospy
from detectors._base import WeightsError
from engine.config import CONFIGS, Config, read_yaml, resolve
from engine.runtime.device import Device
from engine.runtime.distributed import World
from engine.training.schedule import lr_at
from engine.training.step import Batch, Stepper
from engine.weights.loading import load_exact

FILES = {v: f"cospy {v} artifact_weights.pth" for v in ("sd-v1_4", "progan")}
BRANCH = {"mode": "branch", "branch": "artifact"}


def names(file: str) -> list[str]:
    return sorted(golden(file)["images"] if "images" in golden(file) else golden(file))


def batch_of(model: cospy.CoSpy, name: str) -> Tensor:
    path = next(path for path in INPUTS if path.name == name)
    return model.collate([model.transform(train=False)(open_picture(path), rng())])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def semantic_state(model: cospy.CoSpy) -> dict[str, Tensor]:
    """The encoder and the linear layer, filled by the golden rule in open_clip's names."""
    assert model.semantic is not None
    shapes = {f"visual.{k}": v.shape for k, v in model.semantic.encoder.state_dict().items()}
    state = model.convert_backbone({key: fill(key, list(s)) for key, s in shapes.items()})
    for part, shape in (("weight", [1, model.semantic.features]), ("bias", [1])):
        state[f"semantic.fc.{part}"] = fill(f"semantic.fc.{part}", shape)
    return state


@cache
def artifact(variant: str) -> cospy.CoSpy:
    model = cospy.CoSpy(cospy.CoSpyOptions(train_dataset=variant, **BRANCH)).eval()
    load_exact(model, model.convert(published(FILES[variant])), Path(variant))
    return model


def check_artifact(variant: str, name: str) -> None:
    expected = golden(f"cospy_{variant}_artifact.json")[name]
    model = artifact(variant)
    assert model.artifact is not None
    seen: list[Tensor] = []
    hook = model.artifact.trunk.register_forward_hook(lambda _, i, o: seen.extend([i[0], o]))
    batch = batch_of(model, name)
    with torch.inference_mode():
        logit = model(batch)
    hook.remove()
    residual, feature = seen
    x = model.artifact.normalised(model.inputs(batch)[1])
    check(x, expected["input"], rtol=1e-5, atol=1e-5)
    if variant == "sd-v1_4":
        check(x - residual * 7 / 100, expected["reconstruction"], rtol=1e-3, atol=1e-4)
    check(feature, expected["feature"], rtol=1e-3, atol=1e-5)
    assert logit.tolist() == pytest.approx([expected["logit"]], rel=1e-3)


# The autoencoder takes seconds a picture: one is enough for the quick suite.
@pytest.mark.parametrize("name", names("cospy_progan_artifact.json"))
def test_artifact_branch_of_progan(name: str) -> None:
    check_artifact("progan", name)


@pytest.mark.parametrize("name", names("cospy_sd-v1_4_artifact.json")[:1])
def test_artifact_branch_of_sd(name: str) -> None:
    check_artifact("sd-v1_4", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", names("cospy_sd-v1_4_artifact.json")[1:])
def test_artifact_branch_of_sd_on_the_others(name: str) -> None:
    check_artifact("sd-v1_4", name)


def check_semantic(variant: str) -> None:
    """Input, feature and logit of every picture of the golden file."""
    options = cospy.CoSpyOptions(train_dataset=variant, mode="branch", branch="semantic")
    with torch.device("meta"):
        model = cospy.CoSpy(options)
    model.load_state_dict(semantic_state(model), assign=True)
    model.eval()
    assert model.semantic is not None
    for name, expected in golden(f"cospy_{variant}_semantic.json").items():
        x, _ = model.inputs(batch_of(model, name))
        check(model.semantic.normalised(x), expected["input"], rtol=1e-5, atol=1e-5)
        with torch.inference_mode():
            check(model.semantic.feature(x), expected["feature"], rtol=1e-3, atol=1e-4)
            logit = model(batch_of(model, name))
        assert logit.tolist() == pytest.approx([expected["logit"]], rel=1e-3)


def test_semantic_branch_of_progan() -> None:
    check_semantic("progan")


@pytest.mark.slow
def test_semantic_branch_of_sd() -> None:
    check_semantic("sd-v1_4")


def fusion_model() -> cospy.CoSpy:
    with torch.device("meta"):
        model = cospy.CoSpy(cospy.CoSpyOptions())
    state = semantic_state(model) | model.convert(published(FILES["sd-v1_4"]))
    for part in ("weight", "bias"):
        state[f"fc.{part}"] = torch.tensor(golden("cospy_sd-v1_4_fusion.json")[f"fc.{part}"])
    model.load_state_dict(state, assign=True)
    return model.eval()


@pytest.mark.slow
def test_fusion_of_sd() -> None:
    model = fusion_model()
    assert model.semantic is not None
    assert model.artifact is not None
    for name, expected in golden("cospy_sd-v1_4_fusion.json")["images"].items():
        batch = batch_of(model, name)
        shared, small = model.inputs(batch)
        check(shared, expected["input"], rtol=1e-5, atol=1e-5)
        check(small, expected["artifact_input"], rtol=1e-5, atol=1e-5)
        with torch.inference_mode():
            semantic = model.semantic.fc(model.semantic.feature(shared))
            other = model.artifact.fc(model.artifact.feature(small))
            logit = model(batch)
        assert semantic.item() == pytest.approx(expected["semantic_logit"], rel=1e-3)
        assert other.item() == pytest.approx(expected["artifact_logit"], rel=1e-3)
        assert logit.item() == pytest.approx(expected["logit"], rel=1e-3)
        assert torch.sigmoid(logit).item() == pytest.approx(expected["probability"], abs=1e-4)


def recipe(variant: str, epochs: int) -> Config:
    """The configuration that ships for the fusion, with other epochs."""
    path = CONFIGS / f"cospy_{variant}_fusion.yaml"
    changes = {"cospy": {"size": "tiny"}, "train": {"epochs": epochs}}
    return resolve("cospy", [(str(path), read_yaml(path)), ("", changes)])


@pytest.mark.parametrize("variant", FILES)
def test_fusion_training(variant: str) -> None:
    """Every loss and the final weights of the published calibration, by the training loop's own
    step on the detector's own loss, as the shipped configuration says."""
    recorded = golden("cospy_fusion_training.json")
    run = recorded["runs"][variant]
    config = recipe(variant, recorded["epochs"])
    options, batch_size = config.train, recorded["batch_size"]
    assert options.batch_size == batch_size
    assert options.label_smoothing == 0
    model = cospy.CoSpy(config.options).train()
    assert model.fc.bias.tolist() == run["init_bias"] == [run["bias_floor"]]
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor(run["init_weight"]))
    before = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("fc.")}
    stepper = Stepper(model, options, Device(torch.device("cpu")), World())
    logits, labels = torch.tensor(recorded["logits"]), torch.tensor(recorded["labels"])
    pairs = list(zip(logits.split(batch_size), labels.split(batch_size), strict=True))
    losses: list[float] = []
    for x, y in pairs * recorded["epochs"]:
        batch = Batch(x, y.tolist(), [str(i) for i in range(len(y))], embedded=True)
        rate = lr_at(options, len(losses), len(pairs))
        losses.append(stepper.step([batch], rate).loss)
    assert losses == pytest.approx(run["losses"], rel=1e-5)
    np.testing.assert_allclose(model.fc.weight.detach(), run["final_weight"], rtol=1e-5)
    np.testing.assert_allclose(model.fc.bias.detach(), run["final_bias"], rtol=1e-5)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("variant", FILES)
def test_artifact_files_are_taken_whole(variant: str) -> None:
    """The unused layer is known and left out; a key less or more is an error that names it."""
    state: dict[str, Any] = published(FILES[variant])
    model = artifact(variant)
    unused = {k for k in state if k.startswith("artifact_encoder.fc1.")}
    assert bool(unused) == (variant == "progan")
    assert len(model.convert(state)) == len(state) - len(unused) == len(model.state_dict())
    without = {k: v for k, v in state.items() if k != "artifact_encoder.conv1.weight"}
    with pytest.raises(WeightsError, match=r"missing artifact\.trunk\.conv1\.weight"):
        load_exact(model, model.convert(without), Path("x.pth"))
    more = {**state, "artifact_encoder.layer3.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unexpected artifact\.trunk\.layer3"):
        load_exact(model, model.convert(more), Path("x.pth"))

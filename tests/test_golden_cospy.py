"""CO-SPY's parity with the published code, both variants: preprocessing, residuals, features,
logits, and the training of the fusion."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_rule import GOLDEN, assigned, check, empty, fill, golden, layout, published
from torch import Tensor

from datasets._images import open_picture
from detectors import cospy
from detectors._errors import WeightsError
from engine.config import CONFIGS, Config, read_yaml, resolve
from engine.runtime.device import Device
from engine.runtime.distributed import World
from engine.training.schedule import lr_at
from engine.training.step import Batch, Stepper
from engine.weights.loading import load_exact

FILES = {v: f"cospy {v} artifact_weights.pth" for v in ("sd-v1_4", "progan")}
BRANCH = {"mode": "branch", "branch": "artifact"}


def batch_of(model: Any, name: str) -> Tensor:
    picture = open_picture(GOLDEN / "inputs" / name)
    return model.collate([model.transform(train=False)(picture, np.random.default_rng(0))])


def semantic_state(model: Any) -> dict[str, Tensor]:
    """The encoder and the linear layer, filled by the golden rule in open_clip's names."""
    shapes = {f"visual.{k}": v.shape for k, v in model.semantic.encoder.state_dict().items()}
    state = model.convert_backbone({key: fill(key, list(s)) for key, s in shapes.items()})
    for part, shape in (("weight", [1, model.semantic.features]), ("bias", [1])):
        state[f"semantic.fc.{part}"] = fill(f"semantic.fc.{part}", shape)
    return state


@cache
def artifact(variant: str) -> Any:
    options = cospy.CoSpyOptions(train_dataset=variant, **BRANCH)
    return assigned(cospy.CoSpy, options, cospy.CoSpy.convert(published(FILES[variant])))


@pytest.mark.parametrize("branch", ["artifact", "semantic"])
@pytest.mark.parametrize("variant", FILES)
def test_inputs_of_each_branch(variant: str, branch: str) -> None:
    """What the networks see of every picture; they themselves are not needed."""
    options = cospy.CoSpyOptions(train_dataset=variant, mode="branch", branch=branch)
    model = empty(cospy.CoSpy, options)
    part = getattr(model, branch)
    for name, expected in golden(f"cospy_{variant}_{branch}.json").items():
        x = model.inputs(batch_of(model, name))[branch == "artifact"]
        check(part.normalised(x), expected["input"], rtol=1e-5, atol=1e-5)


def test_inputs_of_the_fusion() -> None:
    model = empty(cospy.CoSpy, cospy.CoSpyOptions())
    for name, expected in golden("cospy_sd-v1_4_fusion.json")["images"].items():
        shared, small = model.inputs(batch_of(model, name))
        check(shared, expected["input"], rtol=1e-5, atol=1e-5)
        check(small, expected["artifact_input"], rtol=1e-5, atol=1e-5)


# The autoencoder takes ten seconds a picture, reading an encoder of 300 million weights as long.
# In the quick suite test_cospy.py has both of them tiny.
NETWORKS = [("progan", name) for name in golden("cospy_progan_artifact.json")]
NETWORKS += [
    pytest.param("sd-v1_4", name, marks=pytest.mark.slow)
    for name in golden("cospy_sd-v1_4_artifact.json")
]


@pytest.mark.parametrize(("variant", "name"), NETWORKS)
def test_artifact_branch(variant: str, name: str) -> None:
    expected = golden(f"cospy_{variant}_artifact.json")[name]
    model = artifact(variant)
    seen: list[Tensor] = []
    hook = model.artifact.trunk.register_forward_hook(lambda _, i, o: seen.extend([i[0], o]))
    batch = batch_of(model, name)
    with torch.inference_mode():
        logit = model(batch)
    hook.remove()
    residual, feature = seen
    if variant == "sd-v1_4":
        x = model.artifact.normalised(model.inputs(batch)[1])
        check(x - residual * 7 / 100, expected["reconstruction"], rtol=1e-3, atol=1e-4)
    check(feature, expected["feature"], rtol=1e-3, atol=1e-5)
    assert logit.tolist() == pytest.approx([expected["logit"]], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("variant", FILES)
def test_semantic_branch(variant: str) -> None:
    """Feature and logit of every picture of the golden file."""
    options = cospy.CoSpyOptions(train_dataset=variant, mode="branch", branch="semantic")
    state = semantic_state(empty(cospy.CoSpy, options))
    model = assigned(cospy.CoSpy, options, state)
    for name, expected in golden(f"cospy_{variant}_semantic.json").items():
        batch = batch_of(model, name)
        with torch.inference_mode():
            feature = model.semantic.feature(model.inputs(batch)[0])
            check(feature, expected["feature"], rtol=1e-3, atol=1e-4)
            assert model(batch).tolist() == pytest.approx([expected["logit"]], rel=1e-3)


def fusion_model() -> Any:
    model = empty(cospy.CoSpy, cospy.CoSpyOptions())
    state = semantic_state(model) | model.convert(published(FILES["sd-v1_4"]))
    for part in ("weight", "bias"):
        state[f"fc.{part}"] = torch.tensor(golden("cospy_sd-v1_4_fusion.json")[f"fc.{part}"])
    return assigned(cospy.CoSpy, cospy.CoSpyOptions(), state)


@pytest.mark.slow
def test_fusion_of_sd() -> None:
    model = fusion_model()
    for name, expected in golden("cospy_sd-v1_4_fusion.json")["images"].items():
        batch = batch_of(model, name)
        shared, small = model.inputs(batch)
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
    state: dict[str, Any] = layout(FILES[variant])
    model = empty(cospy.CoSpy, cospy.CoSpyOptions(train_dataset=variant, **BRANCH))
    unused = {k for k in state if k.startswith("artifact_encoder.fc1.")}
    assert bool(unused) == (variant == "progan")
    assert len(model.convert(state)) == len(state) - len(unused) == len(model.state_dict())
    without = {k: v for k, v in state.items() if k != "artifact_encoder.conv1.weight"}
    with pytest.raises(WeightsError, match=r"missing artifact\.trunk\.conv1\.weight"):
        load_exact(model, model.convert(without), Path("x.pth"))
    more = {**state, "artifact_encoder.layer3.0.conv1.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unexpected artifact\.trunk\.layer3"):
        load_exact(model, model.convert(more), Path("x.pth"))

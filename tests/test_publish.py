"""Weight files in the published layouts: what `publish` makes, `convert` reads back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_rule import golden
from models import randomise, tiny
from torch import Tensor

import detectors
from detectors import cospy
from detectors._base import Detector
from detectors._spai_files import UNUSED
from detectors._spai_options import SpaiOptions
from detectors._spectral import frequency_mask
from detectors._ssp_options import SspOptions
from detectors.spai import MASK, Spai
from detectors.ssp import Ssp
from engine.weights.loading import open_weights, read_folder

BRANCHES = [("branch", "semantic"), ("branch", "artifact")]
VARIANTS = list(cospy.VARIANTS)
Shapes = dict[str, list[int]]


def co_spy(variant: str, mode: str, branch: str = "artifact") -> cospy.CoSpy:
    options = cospy.CoSpyOptions(train_dataset=variant, mode=mode, branch=branch, size="tiny")
    model = cospy.CoSpy(options)
    randomise(model)
    return model.eval()


def read_back(model: Detector, path: Path) -> dict[str, Tensor]:
    """What a user's command reads of the file that the model's weights make."""
    torch.save(type(model).publish(model.state_dict()), path)
    file = open_weights(path, type(model).__module__.rsplit(".", 1)[1])
    assert file.card is None
    return file.state


def without_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CO-SPY's files hold no frozen encoder, but the autoencoder, which is frozen too."""
    return {k: v for k, v in state.items() if not k.startswith("semantic.encoder.")}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [key for key, value in expected.items() if not torch.equal(found[key], value)]
    assert different == []


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: list(value.shape) for key, value in state.items()}


def empty(kind: Any, options: Any) -> Any:
    """A network of the published size, without numbers."""
    with torch.device("meta"):
        return kind(options)


@pytest.mark.parametrize("name", [n for n in detectors.available() if n not in ("cospy", "spai")])
def test_what_is_published_is_read_back(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    # The published files of these are a part on top of an encoder, without it.
    frozen = "encoder." if name in ("rine", "univfd") else " "
    expected = {k: v for k, v in before.items() if not k.startswith(frozen)}
    assert_same(read_back(model, tmp_path / "w.pth"), expected)
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("mode", "branch"), [*BRANCHES, ("end2end", "artifact")])
def test_cospys_files_are_read_back(variant: str, mode: str, branch: str, tmp_path: Path) -> None:
    model = co_spy(variant, mode, branch)
    expected = without_encoder(model.state_dict())
    assert any(k.startswith("artifact.vae.") for k in expected) == (
        variant == "sd-v1_4" and branch == "artifact"
    )
    assert_same(read_back(model, tmp_path / "w.pth"), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fusion_is_three_files(variant: str, tmp_path: Path) -> None:
    """Its own holds the last layer; those of the branches, read with it, make the whole."""
    model = co_spy(variant, "fusion")
    state = model.state_dict()
    fusion = cospy.CoSpy.publish(state)
    assert shapes(fusion) == {"fc.weight": [1, 2], "fc.bias": [1]}
    for name in ("semantic", "artifact"):
        part = {k: v for k, v in state.items() if k.startswith(f"{name}.")}
        torch.save(cospy.CoSpy.publish(part), tmp_path / f"{name}_weights.pth")
    torch.save(fusion, tmp_path / "fusion_weights.pth")
    whole = read_folder("cospy", tmp_path, ("semantic", "artifact", "fusion"))
    assert_same(whole.state, without_encoder(state))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_four_parts_of_end2end(variant: str) -> None:
    model = co_spy(variant, "end2end")
    parts = cospy.CoSpy.publish(model.state_dict())
    assert set(parts) == {"sem_fc", "art_fc", "art_encoder", "classifier"}
    for name, fc in (("sem_fc", model.semantic), ("art_fc", model.artifact), ("classifier", model)):
        assert_same(parts[name], fc.fc.state_dict())  # type: ignore[union-attr]
    assert model.artifact is not None
    expected = model.artifact.trunk.state_dict()
    if model.artifact.vae is None:
        expected |= {"fc1.weight": torch.zeros(1, 64), "fc1.bias": torch.zeros(1)}
    else:
        expected |= {f"vae.{k}": v for k, v in model.artifact.vae.state_dict().items()}
    assert_same(parts["art_encoder"], expected)


def test_cospys_published_keys_and_shapes() -> None:
    """Those of the published files, so that the published code, which refuses an end2end file that
    lacks a key or has another, reads it."""
    prefix = "artifact_encoder."
    for variant in VARIANTS:
        options = cospy.CoSpyOptions(train_dataset=variant, mode="branch", branch="artifact")
        state = empty(cospy.CoSpy, options).state_dict()
        theirs = golden("state_dict_keys.json")[f"cospy {variant} artifact_weights.pth"]
        assert shapes(cospy.CoSpy.publish(state)) == theirs
        top = {"fc.weight": torch.zeros(1, 9), "fc.bias": torch.zeros(1)}
        part = cospy.CoSpy.publish(state | top)["art_encoder"]
        encoder = {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}
        assert shapes(part) == encoder
    for variant, width in (("sd-v1_4", 1152), ("progan", 768)):
        state = {"semantic.fc.weight": torch.zeros(1, width), "semantic.fc.bias": torch.zeros(1)}
        assert shapes(cospy.CoSpy.publish(state)) == {"fc.weight": [1, width], "fc.bias": [1]}
        assert cospy.VARIANTS[variant].features == width


def test_ssps_published_keys_and_sign() -> None:
    model = empty(Ssp, SspOptions())
    assert (
        shapes(Ssp.publish(model.state_dict()))
        == golden("state_dict_keys.json")["ssp Net_epoch_best.pth"]
    )
    own = tiny("ssp").state_dict()
    published = Ssp.publish(own)
    for key, value in own.items():
        theirs = key.replace("network.", "disc.")
        real = -value if theirs.startswith("disc.fc.") else value
        assert torch.equal(published[theirs], real), key


def without_key_bias(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SPAI's attentions have none."""
    cleared = {key: value.clone() for key, value in state.items()}
    for key, value in cleared.items():
        if key.endswith("qkv.bias"):
            value.chunk(3)[1].zero_()
    return cleared


def test_spais_file_is_read_back(tmp_path: Path) -> None:
    model = tiny("spai")
    expected = without_key_bias(model.state_dict())
    assert_same(read_back(model, tmp_path / "spai.pth"), expected)
    [(name, weights)] = Spai.publish(model.state_dict()).items()
    assert name == "model"
    assert torch.equal(weights[MASK], frequency_mask())


def test_the_bias_of_keys_changes_no_logit() -> None:
    """So that a file without it holds the whole detector."""
    model = Spai(Spai.tiny()).eval()
    model.load_state_dict(tiny("spai").state_dict())
    assert any(v.chunk(3)[1].any() for k, v in model.state_dict().items() if "qkv.bias" in k)
    drawn = torch.Generator().manual_seed(0)
    batch = [torch.randint(0, 256, (3, 230, 260), dtype=torch.uint8, generator=drawn)]
    with torch.inference_mode():
        expected = model(batch)
        model.load_state_dict(without_key_bias(model.state_dict()))
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


def test_spais_published_keys_and_shapes() -> None:
    theirs = golden("state_dict_keys.json")['spai spai.pth["model"]']
    unused = tuple(f"mfvit.vit.{name}" for name in UNUSED)
    used = {k: v for k, v in theirs.items() if not k.startswith(unused)}
    assert shapes(Spai.publish(empty(Spai, SpaiOptions()).state_dict())["model"]) == used

"""Masked frequency modelling: the published numbers, ten steps, a resume, and what comes of it."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Cli, runner
from conftest import EXAMPLE, make_picture
from golden_rule import GOLDEN, fill, golden
from torch import Tensor
from training import Killed, at_step, kill, plain

from datasets._images import open_picture
from detectors import _transforms as T
from detectors._mfm import CropTransform, MaskedFrequencies, corrupted, loss_map, low_frequencies
from detectors._mfm import spectral_loss as loss_of
from detectors._spai_options import SpaiOptions
from detectors.spai import Spai
from engine import config
from engine.config import CONFIGS, TrainOptions
from engine.training.outputs import CHECKPOINT, HISTORY
from engine.training.schedule import lr_at, scaled
from engine.training.step import parameter_groups
from engine.weights.loading import load_backbone

VARIANTS: dict[str, dict[str, Any]] = {
    "gamma 1": {},
    "gamma 2": {"mfm_gamma": 2.0},
    "focal": {"mfm_focal": 1.0},
    "focal, logarithm, batch": {
        "mfm_focal": 1.0, "mfm_focal_log": True, "mfm_focal_batch": True,
    },
    "patches 2": {"mfm_patches": 2},
    "mean spectrum": {"mfm_mean_spectrum": True},
}  # fmt: skip


def near(tensor: Tensor, name: str) -> None:
    expected = golden("spai_mfm.json")[name]
    assert list(tensor.shape) == expected["shape"]
    values = tensor.double().flatten()
    np.testing.assert_allclose(values[expected["index"]], expected["value"], rtol=1e-3, atol=1e-5)
    assert float(values.norm()) == pytest.approx(expected["l2"], rel=1e-5)


@cache
def batch() -> list[Tensor]:
    pictures = [
        T.as_bytes(open_picture(GOLDEN / "inputs" / name).crop((40, 30, 264, 254)))
        for name in golden("spai_mfm.json")["pictures"]
    ]
    return [torch.stack(pictures), torch.tensor([True, False])]


def test_the_mask_has_its_own_grid() -> None:
    mask = low_frequencies(16, 999)
    assert float(mask.sum()) == golden("spai_mfm.json")["mask_low_sum"]
    seen = mask[112].nonzero()
    assert [int(seen.min()), int(seen.max())] == golden("spai_mfm.json")["mask_low_row_112"]
    band = low_frequencies(16, 40)
    assert band[112, 112] == band[112, 160] == 1 and band[112, 140] == 0


def test_the_published_numbers() -> None:
    """From the corrupted picture to the loss and its variants."""
    with torch.device("meta"):
        model = MaskedFrequencies(SpaiOptions())
    keys = golden("spai_mfm.json")["keys"]
    published = {key: fill(key, shape) for key, shape in keys.items()}
    model.load_state_dict(MaskedFrequencies.convert(published), assign=True)
    with torch.inference_mode():
        seen, target, masks = model.eval()._pair(batch())
        near(corrupted(batch()[0].float() / 255, masks), "corrupted")
        tokens = model.encode(seen)
        near(tokens, "encoder_output")
        found = model.decoder(tokens)
        near(found, "reconstruction")
        near(loss_map(found, target, model.options), "loss_map")
        for name, options in VARIANTS.items():
            value = float(loss_of(found, target, masks, SpaiOptions(**options)))
            assert value == pytest.approx(golden("spai_mfm.json")["loss_variants"][name], rel=1e-4)
        loss = model.loss(batch(), torch.zeros(2))
    assert float(loss) == pytest.approx(golden("spai_mfm.json")["loss"], rel=1e-4)
    kept = {k for k in keys if not k.startswith(("encoder.cls_", "encoder.actual_"))}
    state = MaskedFrequencies.publish(model.state_dict())["model"]
    assert state.keys() == kept | {"encoder.cls_token"}
    assert all(torch.equal(state[key], published[key]) for key in state)


def test_the_loss_can_be_of_what_was_taken_away() -> None:
    options = SpaiOptions(mfm_target="masked")
    found, target = torch.rand(2, 2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = MaskedFrequencies(Spai.tiny()).masks(torch.tensor([True, False]))
    spectra = [torch.fft.fftshift(torch.fft.fft2(x, norm="ortho"), dim=(-2, -1))
               for x in (found, target)]  # fmt: skip
    gone = (1 - masks)[:, None].expand(-1, 3, -1, -1).bool()
    expected = (spectra[0] - spectra[1]).abs()[gone].mean()
    assert float(loss_of(found, target, masks, options)) == pytest.approx(float(expected), rel=1e-4)


def test_crops_and_the_share_of_low_frequencies() -> None:
    picture = make_picture(0, fake=True, size=(300, 260))
    low = 0
    for seed in range(120):
        item, kept = CropTransform(0.25)(picture, np.random.default_rng(seed))
        assert (item.shape, item.dtype) == ((3, 224, 224), torch.uint8)
        low += kept
    assert low / 120 == pytest.approx(0.25, abs=0.1)


def test_the_published_schedule() -> None:
    """The rate grows with the step; warm-up and end have rates of their own."""
    recipe = config.resolve("spai", [("", config.read_yaml(CONFIGS / "spai_mfm.yaml"))]).train
    options = scaled(dataclasses.replace(recipe, accumulate=2), 4)
    assert options.lr == pytest.approx(3e-4 * 2)
    rates = [lr_at(options, step, 10) for step in (0, 100, 200, 1500, 2999)]
    middle = 2.5e-6 * 2 + (6e-4 - 5e-6) / 2
    assert rates[:2] == pytest.approx([5e-7, 5e-7 + (6e-4 - 5e-7) / 2])
    assert rates[2] > 0.98 * 6e-4 and rates[3] == pytest.approx(middle)
    assert rates[4] == pytest.approx(5e-6, rel=0.01)
    assert scaled(TrainOptions(lr=0.1), 4).lr == 0.1


def test_positions_do_not_decay() -> None:
    recipe = config.resolve("spai", [("", config.read_yaml(CONFIGS / "spai_mfm.yaml"))]).train
    model = MaskedFrequencies(Spai.tiny())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {g["weight_decay"]: {names[id(p)] for p in g["params"]}
              for g in parameter_groups(model, recipe)}  # fmt: skip
    assert {"encoder.pos_embed", "encoder.cls_token", "encoder.norm.weight"} <= groups[0.0]
    assert "decoder.0.weight" in groups[0.05] and "encoder.blocks.0.attn.qkv.weight" in groups[0.05]


# --- the command line


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return runner(capsys, caplog, monkeypatch, "--phase", "train", "--detector", "spai")


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """Twenty pictures without labels, and ten steps."""
    folder = tmp_path / "anything"
    folder.mkdir()
    for i in range(20):
        make_picture(i, fake=bool(i % 2), size=(96, 80)).save(folder / f"{i}.png")
    sizes = {"depth": 2, "dim": 64, "heads": 2}
    sets = [f"spai.{key}={value}" for key, value in sizes.items()]
    sets += ["train.objective=mfm", "train.lr=0.05", "train.lr_per=128", "train.warmup=0"]
    return ["--data", folder, "--set", *sets, "--epochs", 2, "--batch_size", 4]


def test_ten_steps_a_resume_and_a_backbone(cli: Cli, words: list[object], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = cli(*words, "--output", whole)
    assert done.status == 0, done
    assert done.out.rstrip().endswith(f"--backbone_weights takes {whole / 'final_model.pth'}")
    rows = (whole / HISTORY).read_text().splitlines()
    assert rows[0] == "epoch,loss,lr"
    losses = [float(row.split(",")[1]) for row in rows[1:]]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert not list(whole.glob("*.safetensors")), "nothing that could be taken for a detector"
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 7, kill)
        with pytest.raises(Killed):
            cli(*words, "--output", killed, "--save_every", 1)
    assert (killed / CHECKPOINT).exists() and not (killed / "final_model.pth").exists()
    assert cli(*words, "--output", killed, "--save_every", 1, "--resume").status == 0
    assert (killed / HISTORY).read_bytes() == (whole / HISTORY).read_bytes()
    results = [torch.load(folder / "final_model.pth")["model"] for folder in (whole, killed)]
    assert plain(results[0]) == plain(results[1])
    again = cli(*words, "--output", whole, "--resume")
    assert (again.status, again.out) == (0, done.out)
    model = Spai(dataclasses.replace(Spai.tiny(), depth=2, dim=64, heads=2))
    load_backbone(model, whole / "final_model.pth")
    assert torch.equal(model.vit.pos_embed, results[0]["encoder.pos_embed"])


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (
            ["--set", "train.objective=mae"],
            "train.objective: expected one of detection, mfm; found",
        ),
        (["--backbone_weights", EXAMPLE], "--backbone_weights: expected train.objective="),
        (["--val_data", "."], "--val_data: expected train.objective=detection; found mfm"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    more: list[object], named: str, cli: Cli, words: list[object], tmp_path: Path
) -> None:
    assert named in cli(*words, *more, "--output", tmp_path / "run").complaint

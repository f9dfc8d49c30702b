"""Weights for the benchmark, by the rule of the golden runs: nothing is downloaded."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import detectors
from engine.weights.files import Card
from engine.weights.loading import Loaded, WeightFile, build

from ._bench_base import ROOT

PUBLISHED = {
    "ssp": "ssp Net_epoch_best.pth",
    "spai": 'spai spai.pth["model"]',
    "progan": "cospy progan artifact_weights.pth",
    "sd-v1_4": "cospy sd-v1_4 artifact_weights.pth",
}
VAE = "artifact_encoder.vae."
# SigLIP SO400M's text tower as open_clip's file has it, about 450 M parameters.
TEXT_WIDTH, TEXT_HIDDEN, TEXT_LAYERS, VOCABULARY = 1152, 4304, 27, 32000


@dataclass(frozen=True)
class Case:
    """A detector with a golden file of its own; `options` are those of its class."""

    title: str
    detector: str
    golden: str
    options: dict[str, Any] = field(default_factory=dict)


def _cospy(variant: str, part: str) -> Case:
    mode = {"mode": "fusion"} if part == "fusion" else {"mode": "branch", "branch": part}
    options = {"train_dataset": variant, **mode}
    return Case(f"CO-SPY {variant} {part}", "cospy", f"cospy_{variant}_{part}.json", options)


SSP = Case("SSP", "ssp", "ssp.json")
SPAI = Case("SPAI", "spai", "spai.json")
SD_ARTIFACT = _cospy("sd-v1_4", "artifact")
SD_FUSION = _cospy("sd-v1_4", "fusion")
CASES = (
    SSP,
    SPAI,
    _cospy("progan", "artifact"),
    _cospy("progan", "semantic"),
    SD_ARTIFACT,
    _cospy("sd-v1_4", "semantic"),
    SD_FUSION,
)


@cache
def rule() -> ModuleType:
    """tests/golden_rule.py, which is no package's."""
    path = ROOT / "tests" / "golden_rule.py"
    spec = importlib.util.spec_from_file_location("golden_rule", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def filled(file: str) -> dict[str, Tensor]:
    """A published file's state dict, see `PUBLISHED`; drawn anew, so that memory can be freed."""
    shapes = rule().golden("state_dict_keys.json")[PUBLISHED[file]]
    return {key: rule().fill(key, shape) for key, shape in shapes.items()}


def vision_tower(options: Any) -> dict[str, Tensor]:
    """The semantic encoder of CO-SPY's `options` in open_clip's key names."""
    with torch.device("meta"):
        encoder = options.variant.encoder(options.tiny)
    shapes = {f"visual.{key}": list(value.shape) for key, value in encoder.state_dict().items()}
    return {key: rule().fill(key, shape) for key, shape in shapes.items()}


def semantic_fc(features: int) -> dict[str, Tensor]:
    """What `semantic_weights` holds."""
    shapes = {"weight": [1, features], "bias": [1]}
    return {f"fc.{k}": rule().fill(f"semantic.fc.{k}", shape) for k, shape in shapes.items()}


def fusion_fc() -> dict[str, Tensor]:
    """What `fusion_weights` holds."""
    recorded = rule().golden(SD_FUSION.golden)
    return {f"fc.{part}": torch.tensor(recorded[f"fc.{part}"]) for part in ("weight", "bias")}


def _cospy_state(kind: Any, options: Any) -> dict[str, Tensor]:
    """The state dict of a branch or of the fusion, as a folder of files gives it."""
    state: dict[str, Tensor] = {}
    if options.mode == "fusion" or options.branch == "artifact":
        state |= kind.convert(filled(options.train_dataset))
    if options.mode == "fusion" or options.branch == "semantic":
        state |= kind.convert_backbone(vision_tower(options))
        state |= kind.convert(semantic_fc(options.variant.features))
    if options.mode == "fusion":
        state |= kind.convert(fusion_fc())
    return state


def load(case: Case, dtype: torch.dtype | None = None, fast: bool = True) -> Loaded:
    """The detector as the command line loads it; `dtype` of its frozen parts. Without `fast` its
    layers are those of the weight file."""
    kind = detectors.load(case.detector)
    options = kind.Options(**case.options)
    if case.detector == "cospy":
        state, card = _cospy_state(kind, options), Card("cospy", {})
        file = WeightFile(Path(case.golden), state, card, "")
    else:
        file = WeightFile(Path(case.golden), filled(case.detector), None, "")
    loaded = build(case.detector, options, file, dtype=dtype)
    if fast:
        loaded.model.optimise()
    return loaded


# --- files for child processes


def _saved(state: dict[str, Tensor], path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def spai_file(folder: Path) -> Path:
    """SPAI in the published layout."""
    return _saved(filled("spai"), folder / "spai.safetensors")


def text_tower() -> dict[str, Tensor]:
    """As large as the one that the published SigLIP file holds; constant."""
    width, hidden = TEXT_WIDTH, TEXT_HIDDEN
    state = {"text.token_embedding.weight": torch.ones(VOCABULARY, width)}
    for layer in range(TEXT_LAYERS):
        stem = f"text.transformer.resblocks.{layer}."
        state[f"{stem}attn.in_proj_weight"] = torch.ones(3 * width, width)
        state[f"{stem}attn.out_proj.weight"] = torch.ones(width, width)
        state[f"{stem}mlp.c_fc.weight"] = torch.ones(hidden, width)
        state[f"{stem}mlp.c_proj.weight"] = torch.ones(width, hidden)
    return state


def cospy_files(folder: Path) -> tuple[Path, list[Path]]:
    """CO-SPY sd-v1_4 as a user has it: a folder with its three files, and the files of the
    frozen parts, SigLIP with its text tower and the autoencoder."""
    options = detectors.load("cospy").Options(**SD_FUSION.options)
    own = folder / "sd-v1_4"
    own.mkdir()
    artifact = filled("sd-v1_4")
    vae = {k.removeprefix(VAE): v for k, v in artifact.items() if k.startswith(VAE)}
    rest = {k: v for k, v in artifact.items() if not k.startswith(VAE)}
    _saved(rest, own / "artifact_weights.safetensors")
    _saved(semantic_fc(options.variant.features), own / "semantic_weights.safetensors")
    _saved(fusion_fc(), own / "fusion_weights.safetensors")
    siglip = _saved(vision_tower(options) | text_tower(), folder / "siglip.safetensors")
    return own, [siglip, _saved(vae, folder / "vae.safetensors")]

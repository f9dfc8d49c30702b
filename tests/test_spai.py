"""SPAI: patches and padding, frequencies, streaming, conversion, training views, relevance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import make_picture
from models import randomise, tiny
from PIL import Image
from torch import Tensor

from detectors import _opencv
from detectors._errors import OptionError
from detectors._spai_options import SpaiOptions
from detectors._spai_pictures import (
    attention_map,
    patch_corners,
    random_crop,
    random_kernel,
    seen_part,
)
from detectors._spectral import Dropout, PatchEncoder, TokenStatistics, split_frequencies
from detectors.spai import PATCH, Spai, ViewsTransform


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pictures() -> list[Tensor]:
    """Items of three sizes: five-crop, a grid of 6, a grid of 4 with a remainder."""
    drawn = torch.Generator().manual_seed(0)
    sizes = ((230, 260), (450, 672), (500, 460))
    return [torch.randint(0, 256, (3, *s), dtype=torch.uint8, generator=drawn) for s in sizes]


def variant(**changes: object) -> Spai:
    """The tiny detector with other options and the same weights."""
    model = Spai(dataclasses.replace(Spai.tiny(), **changes)).eval()
    model.load_state_dict(tiny("spai").state_dict())
    return model


# --- pictures and patches


@pytest.mark.parametrize(
    ("length", "before", "after"), [(300, 7, 9), (10, 9, 9), (3, 20, 31), (2, 3, 4), (1, 5, 6)]
)
def test_margins_mirror_as_often_as_it_takes(length: int, before: int, after: int) -> None:
    expected = [0]
    step = 1
    while len(expected) < before + length + after + 2 * length:
        if not 0 <= expected[-1] + step < length:
            step = -step
        expected.append(expected[-1] + step if length > 1 else 0)
    start = -before % max(1, 2 * length - 2)
    found = _opencv.reflected(np.arange(-before, length + after), length).tolist()
    assert found == expected[start : start + before + length + after]
    assert found[before : before + length] == list(range(length))


@pytest.mark.parametrize("size", [(1, 1), (31, 500), (224, 223), (2, 30_000)])
def test_small_pictures_are_centred(size: tuple[int, int]) -> None:
    picture = make_picture(0, fake=True, size=size)
    item = tiny("spai").transform(train=False)(picture, rng())
    assert item.shape[1] >= PATCH
    assert item.shape[2] >= PATCH
    assert item.numel() <= 3 * PATCH * 100 * PATCH
    shown = torch.from_numpy(seen_part(picture, SpaiOptions())).permute(2, 0, 1)
    top, left = ((i - s) // 2 for i, s in zip(item.shape[1:], shown.shape[1:], strict=True))
    assert torch.equal(item[:, top : top + shown.shape[1], left : left + shown.shape[2]], shown)


def test_whole_pictures_are_items_as_they_are() -> None:
    """Also those of more rows than are copied at a time."""
    picture = make_picture(0, fake=False, size=(241, 700))
    item = tiny("spai").transform(train=False)(picture, rng())
    assert torch.equal(item, torch.from_numpy(np.array(picture)).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("limit", "size"),
    [(300, (300, 450)), (601, (601, 902)), (1200, (1200, 1800)), (None, (600, 900))],
)
def test_resize_to_makes_the_shorter_side(limit: int | None, size: tuple[int, int]) -> None:
    """Of a picture that is smaller, too, as published."""
    picture = make_picture(0, fake=False, size=(900, 600))
    item = variant(resize_to=limit).transform(train=False)(picture, rng())
    assert item.shape == (3, *size)


def test_pictures_are_perturbed_in_the_published_order() -> None:
    """JPEG, WebP, blur, noise, scale, shorter side; the same each time."""
    picture = make_picture(0, fake=False, size=(300, 260))
    asked = {"test_jpeg": 60, "test_webp": 70, "test_blur": 5, "test_noise": 3.0}
    asked |= {"test_scale": 0.5, "resize_to": 230}
    transform = variant(**asked).transform(train=False)
    item = transform(picture, rng(1))
    assert torch.equal(item, transform(picture, rng(2)))
    assert item.shape == (3, 230, 265)
    pixels = np.asarray(picture)
    pixels = _opencv.encoded(_opencv.encoded(pixels, "JPEG", 60), "WEBP", 70)
    pixels = _opencv.blur(pixels, 5, None)
    quiet = variant(**asked | {"test_noise": 0.0}).transform(train=False)(picture, rng())
    expected = _opencv.resize(_opencv.resize(pixels, 150, 130), 265, 230)
    assert torch.equal(quiet, torch.from_numpy(expected).permute(2, 0, 1))
    assert 0.5 < float((item.float() - quiet.float()).std()) < 3


def test_what_is_enlarged_too_far_is_refused() -> None:
    strip = make_picture(0, fake=True, size=(3000, 2))
    with pytest.raises(OSError, match="at most 179 megapixels"):
        variant(resize_to=512).transform(train=False)(strip, rng())


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", Tensor.mean), ("max", Tensor.max)])
def test_ten_crops_are_judged_alone(reduction: str, reduce: Callable[[Tensor], Tensor]) -> None:
    """Mean or max of the logits, not of the probabilities, as published."""
    picture = make_picture(0, fake=True, size=(420, 300))
    model = variant(ten_crop=reduction)
    item = model.transform(train=False)(picture, rng())
    assert item.shape == (10, 3, PATCH, PATCH)
    whole = tiny("spai").transform(train=False)(picture, rng())
    corners = patch_corners(300, 420, False, 4)
    sides = (whole, whole.flip(-1))
    crops = [side[:, y : y + PATCH, x : x + PATCH] for side in sides for y, x in corners]
    assert torch.equal(item, torch.stack(crops))
    with torch.inference_mode():
        alone = torch.cat([tiny("spai")([crop]) for crop in item])
        found = model([item, item.flip(-1)])
    assert alone.std() > 1e-5
    torch.testing.assert_close(found, torch.stack([reduce(alone)] * 2), rtol=1e-5, atol=1e-5)
    with pytest.raises(OptionError, match=r"--explain: expected spai\.ten_crop=null"):
        model.check_explain()


def test_patches_of_a_picture() -> None:
    assert patch_corners(448, 671, False, 4) == [(0, 0), (0, 224), (224, 0), (224, 224)]
    five = [(0, 0), (0, 447), (223, 0), (223, 447), (112, 224)]
    assert patch_corners(447, 671, False, 4) == five, "halves are rounded to even"
    assert patch_corners(224, 224, False, 4) == 5 * [(0, 0)]
    assert len(patch_corners(224, 896, False, 4)) == 4


def test_the_fewest_patches_of_a_grid_are_an_option() -> None:
    """As the published `minimum_patches`."""
    picture = torch.zeros(3, 448, 672, dtype=torch.uint8)
    assert [len(variant(minimum_patches=n).corners(picture)) for n in (1, 6, 7)] == [6, 6, 5]
    assert variant(minimum_patches=1).corners(picture[:, :300, :300]) == [(0, 0)]


@pytest.mark.parametrize(
    ("height", "width"), [(224, 224), (225, 896), (447, 300), (448, 448), (600, 700), (672, 500)]
)
def test_the_remainder_can_be_covered(height: int, width: int) -> None:
    seen = np.zeros((height, width), bool)
    corners = patch_corners(height, width, cover=True, fewest=4)
    for top, left in corners:
        assert 0 <= top <= height - PATCH
        assert 0 <= left <= width - PATCH
        seen[top : top + PATCH, left : left + PATCH] = True
    assert seen.all()
    plain = patch_corners(height, width, cover=False, fewest=4)
    if len(plain) >= 4 and len(plain) != 5:
        assert set(plain) <= set(corners)


def test_covering_the_remainder_makes_it_matter() -> None:
    picture = pictures()[2]
    changed = picture.clone()
    changed[:, 448:] = 255 - changed[:, 448:]
    with torch.inference_mode():
        plain = tiny("spai")([picture, changed])
        assert abs(float(plain[0] - plain[1])) < 1e-6
        covered = variant(cover_remainder=True)([picture, changed])
    assert abs(float(covered[0] - covered[1])) > 1e-4


# --- frequencies


def split_by_fft(x: Tensor) -> tuple[Tensor, Tensor]:
    """The published formula."""
    coordinate = torch.cat([torch.arange(111, -1, -1), torch.arange(112)])
    radius = (coordinate[:, None] ** 2 + coordinate[None] ** 2).double().sqrt()
    mask = (radius < 16).double()
    spectrum = torch.fft.fftshift(torch.fft.fft2(x.double()))
    views = (torch.fft.ifft2(torch.fft.ifftshift(spectrum * m)).real for m in (mask, 1 - mask))
    low, high = (view.clamp(0, 1).float() for view in views)
    return low, high


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_frequencies_are_split_as_by_fft(precision: torch.dtype | None) -> None:
    noise = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    picture = make_picture(0, fake=True, size=(224, 224))
    smooth = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    x = torch.cat([noise, smooth, torch.ones(1, 3, 224, 224)])
    with torch.autocast("cpu", precision, enabled=precision is not None):
        found = split_frequencies(x)
    for view, expected in zip(found, split_by_fft(x), strict=True):
        assert view.dtype == torch.float32
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)


# --- streaming


@pytest.mark.parametrize("size", [1, 3, 4, 64])
def test_logits_do_not_depend_on_the_chunks(size: int) -> None:
    batch = pictures()
    seen: list[int] = []
    model = variant(feature_batch=size)
    model.vit.patch_embed.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    with torch.inference_mode():
        expected = torch.cat([tiny("spai")([item]) for item in batch])
        assert expected.std() > 1e-4
        torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)
    assert sum(seen) == 3 * (5 + 6 + 4)
    assert max(seen) == 3 * min(size, 15), "three views of a chunk are one batch"
    assert len(seen) == -(-15 // size)


def test_a_large_picture_is_cut_before_it_becomes_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never are more than a chunk's patches in float at once."""
    model = variant(feature_batch=2)
    sizes: list[int] = []
    plain = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda x: (sizes.append(x.numel()), plain(x))[1])
    picture = torch.zeros(3, 1200, 1200, dtype=torch.uint8).expand(3, 1200, 1200)
    with torch.inference_mode():
        model([picture])
    assert max(sizes) <= 2 * 3 * PATCH * PATCH


def test_half_precision_moves_scores_little() -> None:
    with torch.inference_mode():
        exact = tiny("spai")(pictures())
        with torch.autocast("cpu", torch.bfloat16):
            rough = tiny("spai")(pictures())
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough.sigmoid(), exact.sigmoid(), rtol=0, atol=0.02)


# --- training


def test_the_vit_is_frozen_and_the_rest_learns() -> None:
    model = Spai(dataclasses.replace(Spai.tiny(), drop_path=0.5))
    randomise(model)
    model.train()
    items = [make_picture(i, fake=bool(i), size=(300, 300)) for i in range(2)]
    views = [model.transform(train=True)(item, rng(i)) for i, item in enumerate(items)]
    before = {k: v.clone() for k, v in model.vit.state_dict().items()}
    torch.manual_seed(0)
    model.loss(views, torch.tensor([0.0, 1.0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("vit.")), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert all(torch.equal(v, before[k]) for k, v in model.vit.state_dict().items())


def test_stochastic_depth_stays_on_in_training() -> None:
    model = Spai(dataclasses.replace(Spai.tiny(), drop_path=0.5, dropout=0.0))
    randomise(model)
    batch = [pictures()[0]]

    def drawn() -> set[float]:
        with torch.no_grad():
            return {round(float(model(batch)), 5) for _ in range(4)}

    torch.manual_seed(0)
    assert len(drawn()) > 1
    model.eval()
    assert len(drawn()) == 1


def test_the_vit_learns_where_training_starts_from_nothing() -> None:
    """With its gradients exact, for all that is computed again."""
    views = [pictures()[0]]

    def gradients(model: Spai) -> dict[str, Tensor]:
        model.zero_grad()
        model.loss(views, torch.ones(1)).backward()
        return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}

    model = variant(feature_batch=2)
    assert not any(name.startswith("vit.") for name in gradients(model))
    model.start_from_nothing()
    found = gradients(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert float(found["vit.blocks.0.attn.qkv.weight"].abs().max()) > 0
    whole = gradients(variant(feature_batch=64, unfreeze_backbone=True))
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6, msg=name)
    frozen = variant(unfreeze_backbone=False)
    frozen.start_from_nothing()
    assert not any(parameter.requires_grad for parameter in frozen.vit.parameters())


NOTHING = {
    **{f"aug_{name}": 0.0 for name in ("flip", "flip_vertical", "rotate", "blur", "noise", "jpeg")},
    "aug_crop_area": (1.0, 1.0),
}


@pytest.mark.parametrize(
    ("step", "options"),
    [
        ("flip", {}), ("flip_vertical", {}), ("rotate", {"aug_rotate_degrees": 30.0}),
        ("blur", {"aug_blur_kernel": (7, 7), "aug_blur_sigma": (2.0, 2.0)}),
        ("noise", {"aug_noise_variance": (400.0, 400.0)}),
        ("jitter", {"aug_jitter_brightness": (0.5, 0.5)}),
        ("sharpen", {"aug_sharpen_alpha": (0.4, 0.4)}),
        ("jpeg", {"aug_jpeg_quality": (10, 10)}), ("webp", {"aug_webp_quality": (10, 10)}),
    ],
)  # fmt: skip
def test_each_step_of_the_augmentation_can_be_had_alone(
    step: str, options: dict[str, object]
) -> None:
    picture = make_picture(0, fake=True, size=(PATCH, PATCH))
    pixels = np.asarray(picture)
    plain = ViewsTransform(SpaiOptions(**NOTHING)).view(picture, rng())
    assert np.array_equal(np.asarray(plain), pixels), "nothing is done"
    transform = ViewsTransform(SpaiOptions(**NOTHING | {f"aug_{step}": 1.0} | options))
    found = np.asarray(transform.view(picture, rng()))
    assert found.shape == pixels.shape and not np.array_equal(found, pixels)
    exact = {
        "flip": pixels[:, ::-1],
        "flip_vertical": pixels[::-1],
        "blur": _opencv.blur(pixels, 7, 2.0),
        "jpeg": _opencv.encoded(pixels, "JPEG", 10),
        "webp": _opencv.encoded(pixels, "WEBP", 10),
    }
    if step in exact:
        assert np.array_equal(found, exact[step])
    if step == "noise":
        assert np.std(found[64:96] - pixels[64:96].astype(float)) == pytest.approx(20, rel=0.2)


def test_crops_of_one_area_are_plain() -> None:
    """Mirrored where the picture is too small."""
    pixels = np.asarray(make_picture(0, fake=True, size=(300, 100)))
    found = random_crop(pixels, SpaiOptions(aug_crop_area=(0.5, 0.5)), rng())
    assert found.shape == (PATCH, PATCH, 3)
    top = (PATCH - 100) // 2
    assert np.array_equal(found[top + 1], found[top - 1]), "reflected about the first row"
    left = next(x for x in range(77) if np.array_equal(found[top], pixels[0, x : x + PATCH]))
    assert np.array_equal(found[top : top + 100], pixels[:, left : left + PATCH])


def test_kernels_are_drawn_as_published() -> None:
    """Even sizes become the next odd one, so that 3 px are half as frequent."""
    drawn = [random_kernel((3, 9), rng(i)) for i in range(700)]
    shares = {size: drawn.count(size) / 700 for size in sorted(set(drawn))}
    assert shares == pytest.approx({3: 1 / 7, 5: 2 / 7, 7: 2 / 7, 9: 2 / 7}, abs=0.05)


@pytest.mark.parametrize("count", [2, 4])
def test_training_sees_so_many_views(count: int) -> None:
    model = variant(views=count)
    picture = make_picture(0, fake=True, size=(400, 300))
    state = torch.get_rng_state()
    item = model.transform(train=True)(picture, rng(1))
    assert (item.shape, item.dtype) == ((3, PATCH, count * PATCH), torch.uint8)
    views = item.split(PATCH, dim=2)
    assert not any(torch.equal(views[0], view) for view in views[1:])
    assert torch.equal(torch.get_rng_state(), state)
    assert count < 4 or model.corners(item) == [(0, PATCH * n) for n in range(4)]


# --- relevance


def relevance_of(model: Spai, picture: Image.Image, attention: list[float]) -> Tensor:
    corners = model.corners(model.transform(train=False)(picture, rng()))
    return torch.tensor([[*c, a] for c, a in zip(corners, attention, strict=True)])


def test_overlay_colours_patches_by_attention() -> None:
    model, picture = tiny("spai"), make_picture(0, fake=False, size=(500, 600))
    before = picture.tobytes()
    drawn = model.overlay(picture, relevance_of(model, picture, [0.7, 0.1, 0.1, 0.1]))
    other = model.overlay(picture, relevance_of(model, picture, [0.1, 0.7, 0.1, 0.1]))
    assert picture.tobytes() == before
    assert drawn.size == other.size
    assert drawn.width == 500
    assert 600 < drawn.height < 700
    pixels, others = (np.asarray(d).astype(int) for d in (drawn, other))
    differ = (pixels != others).any(axis=2)
    assert differ[:224, :448].all()
    assert not differ[224:].any()
    assert not differ[:, 448:].any()
    yellow, grey = pixels[100, 100], pixels[550, 490]
    assert yellow[0] - yellow[2] > 80, "much attention is yellow"
    assert pixels[300, 300, 2] - pixels[300, 300, 0] > 10, "little attention is blue"
    assert np.ptp(grey) == 0, "what no patch saw has no colour"


def test_overlay_maps_patches_back_to_the_picture() -> None:
    """Positions are those of the shrunk or padded item."""
    shrunk = attention_map((1000, 500), np.array([[0, 0, 1.0]]), SpaiOptions(resize_to=250))
    assert shrunk.shape == (500, 800)
    assert np.isfinite(shrunk[:448, :358]).all()
    assert np.isnan(shrunk[448:]).all()
    assert np.isnan(shrunk[:, 359:]).all()
    padded = attention_map((100, 300), np.array([[0, 0, 0.5], [76, 0, 0.3]]), SpaiOptions())
    assert padded.shape == (300, 100)
    assert np.unique(padded[:76]) == pytest.approx([1.0])
    assert np.unique(padded[76:224]) == pytest.approx([0.8])
    assert np.unique(padded[224:]) == pytest.approx([0.6])
    strip = attention_map((30_000, 2), np.array([[0, 11_200, 1.0]]), SpaiOptions())
    seen = np.flatnonzero(np.isfinite(strip[0]))
    assert seen.min() / 800 * 30_000 == pytest.approx(15_000, abs=40)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_on_the_cpu_is_dropout(p: float) -> None:
    layer, x = Dropout(p), torch.full((1001, 333), 2.0)
    torch.manual_seed(3)
    first = layer(x)
    kept = first != 0
    # Five standard deviations of so many coins.
    assert float(kept.float().mean()) == pytest.approx(
        1 - p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5
    )
    assert torch.allclose(first[kept], torch.tensor(2 / (1 - p)))
    rows = kept.float()
    together = float((rows[:, :-1] * rows[:, 1:]).mean())
    assert together == pytest.approx((1 - p) ** 2, abs=0.01), "neighbours are independent"
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), x)


def with_autograd(views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`token_statistics` in words of its own."""
    products = torch.einsum("vbnd,wbnd->bnvw", views, views)
    return products, views[0].mean(dim=1), views[0].std(dim=1) * (views.shape[2] - 1) ** 0.5


def test_statistics_of_tokens_and_their_derivative() -> None:
    drawn = torch.Generator().manual_seed(0)
    views = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=drawn) + 2
    views.requires_grad_()
    weights = [torch.randn(out.shape, generator=drawn) for out in with_autograd(views)]
    found = []
    for measure in (with_autograd, TokenStatistics.apply):
        values = measure(views)
        total = sum((v * w).sum() for v, w in zip(values, weights, strict=True))
        found.append([*values, *torch.autograd.grad(total, views)])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected)


def test_tokens_that_are_all_alike_have_a_gradient() -> None:
    views = torch.ones(3, 1, 4, 2, requires_grad=True)
    _, _, spread = TokenStatistics.apply(views)
    spread.sum().backward()
    assert spread.tolist() == [[0, 0]] and torch.equal(views.grad, torch.zeros_like(views))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_of_what_is_computed_again(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several passes, one of which is smaller."""

    def gradients() -> list[Tensor]:
        model = variant(feature_batch=2).train()
        torch.manual_seed(0)
        with torch.autocast("cpu", precision, precision != torch.float32):
            loss = model.loss(pictures()[:1], torch.ones(1))
        trained = [p for p in model.parameters() if p.requires_grad]
        return list(torch.autograd.grad(loss, trained))

    found = gradients()
    kept = lambda self, index, tokens: self.restoration.block(index, tokens)  # noqa: E731
    monkeypatch.setattr(PatchEncoder, "_statistics", kept)
    expected = gradients()
    share = 1e-5 if precision == torch.float32 else 0.02  # of the largest
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for again, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(again, whole, rtol=0, atol=share * largest)

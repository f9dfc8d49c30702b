"""CO-SPY's recipe: the views of training and validation, feature interpolation, the shipped
configurations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cli_runner import Cli, runner
from conftest import make_picture
from models import backbone_files, randomise
from PIL import Image
from torch import Tensor

from detectors import _transforms as T
from detectors import cospy
from detectors._augment import Distortion, blur
from detectors._cospy_options import CoSpyOptions
from detectors._cospy_views import View, augmented
from detectors._errors import OptionError
from detectors._options import describe_options
from detectors.cospy import CoSpy, interpolate
from engine.config import CONFIGS, read_yaml, resolve
from engine.training.checkpoint import own_state
from engine.weights.cards import Card
from engine.weights.files import save_weights
from engine.weights.loading import build, open_weights, read_folder

VARIANTS = tuple(cospy.VARIANTS)
SEMANTIC = {"mode": "branch", "branch": "semantic"}
ARTIFACT = {"mode": "branch", "branch": "artifact"}
MIXING = {**SEMANTIC, "feat_interp": True, "feat_interp_ratio": 1.0}


def make(variant: str, **options: Any) -> CoSpy:
    model = CoSpy(CoSpyOptions(train_dataset=variant, size="tiny", **options))
    randomise(model)
    return model.eval()


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- views


PICTURE = make_picture(0, fake=True, size=(400, 390))


def windows(image: Image.Image, side: int) -> dict[bytes, tuple[int, int]]:
    """Every square of a picture, by some of its pixels."""
    pixels = np.asarray(image)
    return {
        pixels[top : top + side : 5, left : left + side : 5].tobytes(): (top, left)
        for top in range(image.height - side + 1)
        for left in range(image.width - side + 1)
    }


def as_pixels(item: Tensor) -> bytes:
    """(3, H, W) uint8 as `windows` knows it."""
    return item[:, ::5, ::5].permute(1, 2, 0).contiguous().numpy().tobytes()


def drawn(model: CoSpy, count: int) -> list[Tensor]:
    return [model.val_transform()(PICTURE, rng(seed)) for seed in range(count)]


@pytest.mark.parametrize(
    ("variant", "options", "resize", "crop"),
    [
        ("progan", SEMANTIC, 256, 224),
        ("progan", ARTIFACT, 256, 224),
        ("progan", {"mode": "end2end"}, 256, 224),
        ("sd-v1_4", ARTIFACT, 256, 224),
        ("sd-v1_4", {"mode": "end2end"}, 384, 384),
    ],
)
def test_validation_crops_at_random(
    variant: str, options: dict[str, str], resize: int, crop: int
) -> None:
    """Neither mirrored nor distorted."""
    known = windows(T.resize_shorter(PICTURE, resize), crop)
    places = [known[as_pixels(item)] for item in drawn(make(variant, **options), 6)]
    assert len(set(places)) > 3


def distorted() -> dict[str, dict[bytes, tuple[int, int]]]:
    """The four pictures that validation of the semantic branch of sd-v1_4 crops."""
    plain = T.resize_shorter(PICTURE, 384)
    soft = blur(plain, 1.5)
    pictures = {"plain": plain, "blur": soft, "jpeg": T.jpeg(plain, 65), "both": T.jpeg(soft, 65)}
    return {name: windows(picture, 384) for name, picture in pictures.items()}


def test_validation_distorts_half_of_the_pictures_alike() -> None:
    known = distorted()
    kinds = [
        next(name for name, squares in known.items() if as_pixels(item) in squares)
        for item in drawn(make("sd-v1_4", **SEMANTIC), 80)
    ]
    assert all(8 <= count <= 35 for count in Counter(kinds).values()), Counter(kinds)
    assert len(set(kinds)) == 4


def test_the_fusion_is_validated_with_each_branchs_own_view() -> None:
    known, small = distorted(), windows(T.resize_shorter(PICTURE, 256), 224)
    model = make("sd-v1_4", mode="fusion")
    for item in drawn(model, 6):
        assert item.shape == (3, 384, 384 + 224)
        semantic, artifact = model.inputs(item[None])
        first, second = ((255 * x[0]).round().byte() for x in (semantic, artifact))
        assert any(as_pixels(first) in squares for squares in known.values())
        assert as_pixels(second) in small
    both = drawn(make("progan", mode="fusion"), 1)[0]
    assert both.shape == (3, 224, 448)
    assert not torch.equal(both[..., :224], both[..., 224:]), "crops of their own"


@pytest.mark.parametrize("first", [False, True])
def test_end2end_mirrors_before_it_distorts(first: bool) -> None:
    """Which the blocks of JPEG tell, where the width is no multiple of 8."""
    picture = make_picture(1, fake=True, size=(228, 224))
    view = View(224, 224, Distortion(jpeg_prob=1, quality=(30, 30)), mirror_first=first)
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    before = windows(T.jpeg(mirrored, 30), 224)
    after = windows(T.jpeg(picture, 30).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 224)
    plain = windows(T.jpeg(picture, 30), 224)
    seen = [as_pixels(T.as_bytes(augmented(picture, view, rng(seed)))) for seed in range(12)]
    assert set(seen) <= (before if first else after).keys() | plain.keys()
    assert 0 < sum(square in plain for square in seen) < 12
    assert cospy.VARIANTS["sd-v1_4"].joint.mirror_first


# --- feature interpolation


def batch_of(count: int) -> tuple[Tensor, Tensor]:
    """Features of which sums of two, weighted, tell the weights: one-hot; and labels."""
    return torch.eye(count), torch.rand(count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_labels_are_mixed_as_features_are(alpha: float) -> None:
    """Each with one partner, by the same delta."""
    features, labels = batch_of(64)
    torch.manual_seed(0)
    mixed, soft = interpolate(features, labels, alpha, 1.0)
    torch.testing.assert_close(soft, mixed @ labels)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(64))
    assert int((mixed > 0).sum(dim=1).max()) == 2
    assert float(mixed.min()) >= 0
    assert 0 <= float(soft.min()) <= float(soft.max()) <= 1


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 1.0])
def test_about_the_ratio_of_the_batch_is_mixed(ratio: float) -> None:
    features, labels = batch_of(1500)
    torch.manual_seed(0)
    mixed, soft = interpolate(features, labels, 1.0, ratio)
    changed = (mixed != features).any(dim=1)
    assert float(changed.float().mean()) == pytest.approx(ratio, abs=0.04 if ratio else 0)
    assert torch.equal(soft[~changed], labels[~changed])
    partners = mixed[changed].fill_diagonal_(0).argmax(dim=1) if ratio else torch.arange(1500)
    assert len(set(partners.tolist())) > 0.3 * max(1, int(changed.sum()))


def test_the_share_that_is_kept_follows_beta() -> None:
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), as of Beta(alpha, alpha)."""
    features, labels = batch_of(3000)
    for alpha in (0.2, 2.0):
        torch.manual_seed(0)
        mixed, _ = interpolate(features, labels, alpha, 1.0)
        kept = mixed.diagonal()
        assert float(kept.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(kept.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_a_batch_of_one_stays_as_it_is(label: float) -> None:
    features = torch.randn(1, 5)
    mixed, soft = interpolate(features, torch.tensor([label]), 0.2, 1.0)
    assert torch.equal(mixed, features)
    assert torch.equal(soft, torch.tensor([label]))


def test_draws_are_those_of_the_seeded_generator() -> None:
    """And are the same for features of any precision or device, which they do not look at."""
    features, labels = batch_of(32)
    found = []
    for kind in (torch.float32, torch.float32, torch.float64):
        torch.manual_seed(3)
        found.append(interpolate(features.to(kind), labels, 0.2, 0.5)[0].float())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])
    assert not torch.equal(found[0], interpolate(features, labels, 0.2, 0.5)[0])


@pytest.mark.parametrize("alpha", [0.01, 1000.0])
def test_extreme_alphas_give_numbers(alpha: float) -> None:
    features, labels = batch_of(500)
    mixed, soft = interpolate(features, labels, alpha, 1.0)
    assert bool(mixed.isfinite().all())
    assert bool(soft.isfinite().all())
    between = (mixed.diagonal() - 0.5).abs() < 0.2
    assert float(between.float().mean()) == pytest.approx(float(alpha > 1), abs=0.05)


def test_features_are_mixed_in_training_alone() -> None:
    model, plain = make("progan", **MIXING), make("progan", **SEMANTIC)
    features = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16.0) % 2
    torch.manual_seed(0)
    before = torch.get_rng_state()
    expected = F.binary_cross_entropy_with_logits(plain.classify(features), labels)
    assert torch.equal(model.embedded_loss(features, labels), expected)
    assert torch.equal(plain.train().embedded_loss(features, labels), expected)
    assert torch.equal(torch.get_rng_state(), before)
    found = model.train().embedded_loss(features, labels)
    torch.set_rng_state(before)
    mixed, soft = interpolate(features, labels, 0.2, 1.0)
    assert torch.equal(found, F.binary_cross_entropy_with_logits(model.classify(mixed), soft))
    assert not torch.equal(found, expected)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (ARTIFACT, "branch artifact"),
        ({"mode": "fusion"}, "fusion"),
        ({"mode": "end2end"}, "end2end"),
    ],
)
def test_only_the_semantic_branch_has_features_to_mix(options: dict[str, str], found: str) -> None:
    with pytest.raises(
        OptionError, match=rf"cospy\.feat_interp: expected .* semantic.*; found {found}"
    ):
        make("progan", feat_interp=True, **options)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with both branches as training leaves them, the semantic one on mixed features."""
    for name, options in (("semantic", MIXING), ("artifact", ARTIFACT)):
        model = make("progan", **options)
        (tmp_path / name).mkdir()
        card = Card("cospy", describe_options(model.options))
        save_weights(tmp_path / name / "best.safetensors", own_state(model), card)
    return tmp_path


def test_what_learned_from_mixed_features_scores_and_is_fused(
    trained: Path,
    tree: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = trained / "semantic" / "best.safetensors"
    model = make("progan", **MIXING)
    loaded = build(
        "cospy", model.options, open_weights(path, "cospy"), backbone_files(model, trained)
    )
    batch = torch.stack([model.transform(False)(PICTURE, rng(0))])
    with torch.inference_mode():
        assert torch.equal(loaded.model(batch), model(batch))
    both = read_folder("cospy", trained, ("semantic", "artifact"))
    fusion = CoSpy(CoSpyOptions(train_dataset="progan", size="tiny"))
    assert both.state.keys() == {k for k in own_state(fusion) if not k.startswith("fc.")}
    bare: Cli = runner(capsys, caplog, monkeypatch, "--device", "cpu")
    given = ("--weights", path, "--backbone_weights", trained / "clip-vit-l-14.safetensors")
    assert bare(*given, "--input", tree / "real" / "000.jpg", "--json").status == 0
    for asked, found in (("--mode", "fusion"), ("--branch", "artifact")):
        said = bare(*given, asked, found, "--input", tree / "real").complaint
        assert f"found {asked} {found}" in said


# --- the shipped configurations


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("part", "epochs"), [("artifact", 20), ("semantic", 10), ("fusion", 1), ("end2end", 10)]
)
def test_configurations_are_the_published_recipe(variant: str, part: str, epochs: int) -> None:
    path = CONFIGS / f"cospy_{variant}_{part}.yaml"
    config = resolve("cospy", [(str(path), read_yaml(path))])
    options, train = config.options, config.train
    chosen = options.branch if options.mode == "branch" else options.mode
    assert (options.train_dataset, chosen, options.size) == (variant, part, "published")
    assert (train.epochs, train.batch_size, train.seed) == (epochs, 32, 1024)
    assert (train.optimizer, train.betas, train.weight_decay) == ("adamw", (0.9, 0.999), 0)
    assert train.lr == (0.1 if part == "fusion" else 1e-4)
    # From lr to lr / epochs, which a final_lr of null means.
    schedules = {"sd-v1_4": ("cosine", None, 0), "progan": ("step", 0, 0)}
    assert (train.schedule, train.final_lr, train.warmup) == schedules[variant]
    assert (train.select, train.balance, train.label_smoothing) == ("accuracy", None, 0)
    assert (train.clip_norm, train.ema, train.anchor) == (None, 0, 0)
    assert (train.head_lr, train.freeze_batchnorm, train.val_degrade) == (1, False, "none")
    assert (train.drop_last, train.save_epochs, train.publish) == (False, 5, True)
    assert not options.feat_interp  # without its flag
    assert (options.feat_interp_alpha, options.feat_interp_ratio) == (0.2, 0.5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_classifiers_start_small(variant: str) -> None:
    """N(0, 0.02), each of them; the fusion's is moved from there."""
    torch.manual_seed(0)
    for options in (SEMANTIC, ARTIFACT, {"mode": "end2end"}):
        model = CoSpy(CoSpyOptions(train_dataset=variant, size="tiny", **options))
        layers = [value for key, value in model.named_parameters() if key.endswith("fc.weight")]
        layers = [value for value in layers if value.requires_grad]
        assert len(layers) == (3 if options.get("mode") == "end2end" else 1)
        assert all(0.012 < float(value.detach().std()) < 0.028 for value in layers)
    moved = [
        CoSpy(CoSpyOptions(train_dataset=variant, size="tiny")).fc.weight.detach()
        for _ in range(10)
    ]
    assert float(torch.cat(moved).std()) == pytest.approx(0.02, rel=0.5)
    start = 0.5 if variant == "sd-v1_4" else 0.0  # the biases' is in test_golden_cospy.py
    assert float(torch.cat(moved).mean()) == pytest.approx(start, abs=0.02)

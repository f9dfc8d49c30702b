"""What every detector says about its training: a validation view, and a frozen part that comes
first, whose output may be kept."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_picture
from models import FrozenToy, Toy, ToyOptions, randomise, tiny
from torch import Tensor, nn

import detectors
from detectors import cospy
from detectors._base import Detector
from detectors._errors import OptionError

MODES: dict[str, dict[str, str]] = {
    "semantic": {"mode": "branch", "branch": "semantic"},
    "artifact": {"mode": "branch", "branch": "artifact"},
    "fusion": {"mode": "fusion"},
    "end2end": {"mode": "end2end"},
}
EMBEDDING = ["toy", *(f"{v} {m}" for v in cospy.VARIANTS for m in ("semantic", "fusion"))]
OTHERS = [
    "plain toy",
    "ssp",
    *(f"{v} {m}" for v in cospy.VARIANTS for m in ("artifact", "end2end")),
]


def make(name: str, **changes: Any) -> Detector:
    """A toy, a registered detector's tiny variant, or CO-SPY by variant and mode."""
    model: Detector
    if name.endswith("toy"):
        model = (Toy if name == "plain toy" else FrozenToy)(ToyOptions())
    elif " " in name:
        variant, mode = name.split()
        given = {"train_dataset": variant, "size": "tiny", **MODES[mode], **changes}
        model = cospy.CoSpy(cospy.CoSpyOptions(**given))
    else:
        return tiny(name)
    randomise(model)
    return model.eval()


def batch_of(model: Detector, transform: Any) -> Any:
    pictures = [make_picture(i, fake=bool(i % 2), size=(300, 260)) for i in range(3)]
    return model.collate([transform(p, np.random.default_rng(i)) for i, p in enumerate(pictures)])


LABELS = torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("name", [*detectors.available(), *EMBEDDING, *OTHERS])
def test_validation_repeats_itself(name: str) -> None:
    """It draws from its generator alone, is sent to workers, and is scored like any batch."""
    model = make(name)
    transform = pickle.loads(pickle.dumps(model.val_transform()))  # noqa: S301
    with torch.inference_mode():
        found = [model(batch_of(model, transform)) for _ in range(2)]
    assert found[0].shape == (3,)
    assert torch.equal(*found)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", EMBEDDING)
def test_judging_what_was_embedded_is_the_forward_pass(name: str, train: bool) -> None:
    model = make(name)
    batch = batch_of(model, model.val_transform())
    model.train(train)
    assert model.embeds
    embedded = model.embed(batch)
    assert embedded.dtype == torch.float32
    assert not embedded.requires_grad
    assert len(embedded) == 3
    assert torch.equal(embedded, model.embed(batch)), "frozen parts are in evaluation mode"
    for whole, part in (
        (lambda: model(batch), lambda: model.classify(embedded)),
        (lambda: model.loss(batch, LABELS), lambda: model.embedded_loss(embedded, LABELS)),
    ):
        torch.manual_seed(1)
        expected = whole()
        torch.manual_seed(1)
        assert torch.equal(part(), expected)


@pytest.mark.parametrize("name", EMBEDDING)
def test_what_learns_gets_its_gradients_from_what_was_embedded(name: str) -> None:
    model = make(name).train()
    batch = batch_of(model, model.transform(True))
    embedded = model.embed(batch)
    gradients = []
    for loss in (lambda: model.loss(batch, LABELS), lambda: model.embedded_loss(embedded, LABELS)):
        model.zero_grad()
        torch.manual_seed(1)
        loss().backward()
        found = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
        assert found.keys() == {k for k, p in model.named_parameters() if p.requires_grad}
        gradients.append(found)
    assert all(torch.equal(gradients[0][k], gradients[1][k]) for k in gradients[0])


@pytest.mark.parametrize(("name", "shape"), [("semantic", (3, 64)), ("fusion", (3, 2))])
@pytest.mark.parametrize("variant", cospy.VARIANTS)
def test_what_cospy_embeds(variant: str, name: str, shape: tuple[int, int]) -> None:
    """The encoder's feature, or the logits of both branches."""
    model: Any = make(f"{variant} {name}")
    batch = batch_of(model, model.transform(True))
    embedded = model.embed(batch)
    assert embedded.shape == shape
    x, y = model.inputs(batch)
    feature = model.semantic.feature(x)
    if name == "semantic":
        assert torch.equal(embedded, feature)
    else:
        pair = [model.semantic.fc(feature), model.artifact.fc(model.artifact.feature(y))]
        assert torch.equal(embedded, torch.cat(pair, dim=1))


@pytest.mark.parametrize("name", OTHERS)
def test_without_a_frozen_part_nothing_is_embedded(name: str) -> None:
    model = make(name)
    batch = batch_of(model, model.transform(False))
    assert not model.embeds
    with pytest.raises(OptionError, match=f"{model.title}: expected a frozen part .* found none"):
        model.embed(batch)
    logits = model(batch).float()
    expected = F.binary_cross_entropy_with_logits(logits, LABELS)
    torch.testing.assert_close(model.loss(batch, LABELS), expected)


def seen_dtypes(model: nn.Module, run: Any) -> set[torch.dtype]:
    """Types of what the linear layers give while `run` runs."""
    found: set[torch.dtype] = set()
    hooks = [
        module.register_forward_hook(lambda _, __, out: found.add(out.dtype))
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ["progan semantic", "sd-v1_4 semantic", "sd-v1_4 end2end"])
def test_frozen_parts_compute_in_the_precision_of_the_caller(name: str) -> None:
    """And keep nothing for a gradient, in the modes that learn behind them too."""
    model: Any = make(name).train()
    batch = batch_of(model, model.transform(True))
    frozen = [model.semantic.encoder]
    frozen += [model.artifact.vae] if model.artifact is not None else []
    graphs: list[bool] = []
    hooks = [
        f.register_forward_hook(lambda _, __, out: graphs.append(out.requires_grad)) for f in frozen
    ]
    loss: list[Tensor] = []
    for part in frozen:
        for kind in (torch.float32, torch.bfloat16):
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
                found = seen_dtypes(part, lambda: loss.append(model.loss(batch, LABELS)))
            assert found == {kind}
    for hook in hooks:
        hook.remove()
    assert not any(graphs)
    assert all(value.requires_grad and value.dtype == torch.float32 for value in loss)

"""Parity with the published code: preprocessing, features, logits; its key layouts; the label."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_rule import INPUTS, assigned, by_name, check, empty, golden, layout, published

import detectors
from datasets._images import open_picture
from detectors import ssp
from detectors._base import Detector
from detectors._errors import WeightsError
from engine.weights.loading import build, load_exact, open_weights

COSPY_FILE, SSP_FILE = "cospy progan artifact_weights.pth", "ssp Net_epoch_best.pth"
COSPY = {"train_dataset": "progan", "mode": "branch", "branch": "artifact"}


def options(name: str) -> Any:
    return detectors.load(name).Options(**(COSPY if name == "cospy" else {}))


@cache
def detector(name: str, file: str) -> Detector:
    kind = detectors.load(name)
    return assigned(kind, options(name), kind.convert(published(file)))


def test_every_input_has_vectors() -> None:
    names = {path.name for path in INPUTS}
    assert len(names) == 6
    assert names == golden("cospy_progan_artifact.json").keys() == golden("ssp.json").keys()


@pytest.mark.parametrize("path", INPUTS, ids=by_name)
def test_ssp(path: Path) -> None:
    expected = golden("ssp.json")[path.name]
    image = ssp.prepare(open_picture(path))
    pixels = np.asarray(image)
    corners = np.array(expected["patches_top_left"])
    scores = [ssp.texture_score(pixels[y : y + 32, x : x + 32]) for y, x in corners]
    assert scores == expected["texture_scores"]
    chosen = ssp.simplest(pixels, corners, 1)
    assert chosen == [expected["chosen"]]

    model = detector("ssp", SSP_FILE)
    item = ssp.patches_to_item(image, corners[chosen])
    check(item, expected["input"], rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        check(model.residual(item), expected["srm_output"], rtol=1e-3, atol=1e-5)
        logit = model(model.collate([item]))
    # The published network scores REAL; this project's logit is that of synthetic.
    assert logit.tolist() == pytest.approx([-expected["logit_real"]], rel=1e-3)
    assert torch.sigmoid(logit).tolist() == pytest.approx(
        [expected["probability_synthetic"]], abs=1e-4
    )


def test_ssp_label_is_turned_around_by_convert_alone() -> None:
    """Loaded as it is, the published file would call reals synthetic."""
    state = published(SSP_FILE)
    converted, same = ssp.Ssp.convert(state), ssp.Ssp.renamed(state)
    assert converted.keys() == same.keys()
    turned = {key for key in same if not torch.equal(converted[key], same[key])}
    assert turned == {"network.fc.weight", "network.fc.bias"}
    assert all(torch.equal(converted[key], -same[key]) for key in turned)


@pytest.mark.parametrize(("name", "file"), [("cospy", COSPY_FILE), ("ssp", SSP_FILE)])
def test_published_files_load_as_they_are(name: str, file: str, tmp_path: Path) -> None:
    path = tmp_path / file.split()[-1]
    torch.save(published(file), path)
    loaded = build(name, options(name), open_weights(path, name))
    assert (loaded.threshold, loaded.band) == (0.5, None)
    assert not loaded.model.training
    expected = detector(name, file).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.state_dict().items())


def test_other_layouts_are_refused() -> None:
    state, model = layout(SSP_FILE), empty(ssp.Ssp, ssp.SspOptions())
    gone = next(key for key in state if key.endswith("layer1.0.conv1.weight"))
    without = {key: value for key, value in state.items() if key != gone}
    with pytest.raises(WeightsError, match=f"missing {gone.replace('disc.', 'network.')}"):
        load_exact(model, model.convert(without), Path(SSP_FILE))
    more = {**state, "semantic.fc.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unexpected semantic\.fc\.weight"):
        load_exact(model, model.convert(more), Path(SSP_FILE))

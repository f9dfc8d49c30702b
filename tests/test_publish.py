"""Folders in the hub's layout: written, read from a disk and from the hub, and by its mixin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Cli, plain_cli, script, weights, write_weights  # noqa: F401
from conftest import make_picture
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from web_site import Site, services, site  # noqa: F401

import detectors
from detectors._errors import WeightsError
from engine.api import Machine, load
from engine.config import ConfigError
from engine.weights.loaded import card_of
from scripts import publish

HERE = Machine(workers=0)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICTURES = [make_picture(number, fake=bool(number % 2)) for number in range(3)]


@pytest.fixture(scope="module")
def folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    output = tmp_path_factory.mktemp("published") / "mine"
    assert publish.main([str(weights), str(output)]) == 0
    return output


def logits(*where: Any, **how: Any) -> list[float | None]:
    return [row.logit for row in load(*where, device="cpu", machine=HERE, **how).score(PICTURES)]


def copied(folder: Path, output: Path) -> Path:
    output.mkdir()
    for path in folder.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    return output


def test_a_folder_is_read_as_the_file_that_it_was_made_of(
    folder: Path,
    weights: Path,  # noqa: F811
    plain_cli: Cli,  # noqa: F811
    tmp_path: Path,
) -> None:
    config = json.loads((folder / "config.json").read_text())
    card = card_of(weights)
    assert card and config["detector"] == "default" and config["options"] == card.options
    assert config["threshold"] == card.threshold and config["frozen"] == {}
    assert "from engine.api import load" in (folder / "README.md").read_text()
    expected = logits(weights)
    assert logits(folder) == logits("default", folder) == expected
    PICTURES[0].save(tmp_path / "0.png")
    [row] = plain_cli("--device", "cpu", "--json", "--weights", folder, tmp_path / "0.png").rows
    assert row["logit"] == pytest.approx(expected[0], rel=1e-5)


def test_config_json_serves_weights_without_a_card_and_never_contradicts_one(
    folder: Path,
    weights: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    other = copied(folder, tmp_path / "other")
    config = other / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"threshold": 0.9}))
    with pytest.raises(WeightsError, match=r"threshold.*0\.5.*0\.9"):
        load(other)
    save_file(load_file(other / "model.safetensors"), other / "model.safetensors")
    assert load(other, device="cpu", machine=HERE).score(PICTURES[0]).threshold == 0.9
    assert logits(other) == logits(weights)
    config.write_text("{")
    with pytest.raises(WeightsError, match="JSON"):
        load("default", other)


def test_the_mixin_of_the_hub_reads_and_writes_such_folders(
    folder: Path,
    weights: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    kind: Any = detectors.load("default")

    class Hosted(kind, PyTorchModelHubMixin):
        def __init__(self, detector: str, options: dict[str, Any]) -> None:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
            super().__init__(kind.Options(**values))

    model = Hosted.from_pretrained(folder, strict=True).eval()
    items = [model.transform(train=False)(picture, None) for picture in PICTURES]
    assert model(model.collate(items)).tolist() == pytest.approx(logits(weights), abs=1e-4)
    model.save_pretrained(tmp_path / "saved")
    assert logits(tmp_path / "saved") == logits(weights)


def test_a_repository_of_the_hub_is_brought_once(
    folder: Path,
    weights: Path,  # noqa: F811
    services: Site,  # noqa: F811
) -> None:
    services.commit = COMMIT
    for revision in ("main", "v1", COMMIT):
        for path in folder.iterdir():
            name = f"/org/mine/resolve/{revision}/{path.name}"
            services.files[name] = path.read_bytes()
    expected = logits(weights)
    assert logits("hf:org/mine") == expected
    asked = len(services.asked)
    assert services.requests().count("/org/mine/resolve/main/model.safetensors") == 1
    assert logits("hf:org/mine") == logits("default", "hf:org/mine") == expected
    assert len(services.asked) == asked
    assert logits("hf:org/mine@v1") == expected


def test_what_the_hub_lacks_is_said(
    services: Site,  # noqa: F811
    plain_cli: Cli,  # noqa: F811
    folder: Path,
) -> None:
    services.commit = COMMIT
    with pytest.raises(WeightsError, match=r"hf:org/none: .*--weights"):
        load("hf:org/none")
    content = (folder / "model.safetensors").read_bytes()
    services.files["/org/bare/resolve/main/model.safetensors"] = content
    with pytest.raises(WeightsError, match=r"config\.json of org/bare"):
        load("hf:org/bare")
    with pytest.raises(ConfigError, match="ORG/NAME"):
        load(weights="hf:../x")
    assert "ORG/NAME" in plain_cli("--weights", "hf:a", "--input", "x.png").complaint


def test_frozen_parts_are_left_out_where_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = script(capsys, "publish.py: ", publish.main)
    done = run("default", tmp_path / "small", "--without_frozen")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "small/config.json").read_text())["frozen"]
    assert (tmp_path / "small/model.safetensors").stat().st_size < 1_000_000
    assert logits(tmp_path / "small") == logits("default")
    assert "DIR" in run("default", tmp_path / "small").err
    assert "nothere" in run("nothere", tmp_path / "new").complaint

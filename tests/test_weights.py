"""Weight files: exact keys, damaged and hostile files, cards, names, backbones."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Cli
from cli_runner import plain_cli as cli
from conftest import EXAMPLE
from safetensors.torch import save_file
from torch import Tensor, nn

import detectors
from detectors._base import Detector
from detectors._cospy_options import CoSpyOptions
from detectors._errors import WeightsError
from detectors._options import describe_options
from detectors._packed import pack
from detectors.cospy import CoSpy
from detectors.default import Default
from detectors.ssp import Ssp
from engine.training.checkpoint import own_state, read_checkpoint, save_checkpoint
from engine.weights.cards import Card, card_metadata, sha256
from engine.weights.files import (
    read_weights,
    save_original,
    save_weights,
    tensors_digest,
    write_pickle,
)
from engine.weights.loaded import locate
from engine.weights.loading import (
    build,
    external_state,
    load_backbone,
    load_exact,
    open_weights,
)
from engine.weights.original import FORMAT

__all__ = ["cli"]  # a fixture

FILE = Path("weights.pth")
SMALL = CoSpyOptions(train_dataset="progan", mode="branch", size="tiny")


def small() -> CoSpy:
    torch.manual_seed(0)
    return CoSpy(SMALL)


def saved(path: Path, **changes: Any) -> Path:
    """A weight file of the small detector with its card."""
    model = small()
    card = Card("cospy", describe_options(model.options), **changes)
    save_weights(path, model.state_dict(), card)
    return path


# --- exact keys


def test_missing_unexpected_and_misshapen_keys_are_named_together() -> None:
    model = small()
    state = dict(model.state_dict())
    del state["artifact.fc.bias"]
    state["module.fc.bias"] = torch.zeros(1)
    state["artifact.fc.weight"] = torch.zeros(1, 3)
    with pytest.raises(WeightsError) as caught:
        load_exact(model, state, FILE)
    message = str(caught.value)
    for part in ("weights.pth", "missing artifact.fc.bias", "unexpected module.fc.bias"):
        assert part in message
    assert "artifact.fc.weight (1, 3) instead of (1, 64)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.zeros(1, 64, dtype=torch.int64), "torch.int64"),
        (torch.zeros(1, 64).to_sparse(), "torch.sparse_coo"),
    ],
)
def test_other_kinds_of_numbers_are_named(weight: Tensor, said: str) -> None:
    model = small()
    state = {**model.state_dict(), "artifact.fc.weight": weight}
    with pytest.raises(WeightsError, match=f"artifact.fc.weight.*{said}"):
        load_exact(model, state, FILE)


def test_a_long_list_of_keys_is_cut() -> None:
    with pytest.raises(WeightsError, match=r"missing (\S+, ){3}\S+ and \d+ more$"):
        load_exact(small(), {}, FILE)


def test_a_refused_file_changes_nothing() -> None:
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["artifact.fc.bias"]
    with pytest.raises(WeightsError):
        load_exact(model, state, FILE)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- damaged and hostile files


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".legacy.pth"])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        saved(path)
    else:
        zipped = suffix == ".pth"
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.stat().st_size
    read_weights(path)
    os.truncate(path, int(share * whole))
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Those of pickles: test_unpickle.py.
@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 99]
)
def test_files_that_are_no_weights_are_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="w") as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


class Malicious:
    """Unpickling it would create the file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_bare_pickle_runs_no_code(tmp_path: Path) -> None:
    path, target = tmp_path / "w.pth", tmp_path / "created"
    path.write_bytes(pickle.dumps({"fc.weight": Malicious(target)}, protocol=2))
    with pytest.raises(WeightsError, match=r"refused: "):
        read_weights(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # noqa: S301
    assert target.exists(), "the file was not malicious in the first place"


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(nn.Linear(2, 1), path)
    with pytest.raises(WeightsError, match=r"it names torch\.nn\.modules\.linear\.Linear"):
        read_weights(path)


def test_a_training_checkpoint_is_not_a_weight_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": small().state_dict()})
    with pytest.raises(WeightsError, match=r"training checkpoint; .* best\.safetensors"):
        read_weights(path)


# --- cards and names


def test_card_travels_with_the_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "a" / "w.safetensors", threshold=0.3, band=(0.2, 0.4), extra={"n": 1})
    file = open_weights(path, "cospy")
    assert file.card == Card("cospy", describe_options(SMALL), 0.3, (0.2, 0.4), {"n": 1})
    assert file.sha256 == sha256(path)
    loaded = build("cospy", SMALL, file)
    assert (loaded.threshold, loaded.band, loaded.path) == (0.3, (0.2, 0.4), path)
    assert not loaded.model.training


def test_card_of_another_detector(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="expected weights of ssp; found those of cospy"):
        open_weights(path, "ssp")


@pytest.mark.parametrize(
    "card", ["", "[]", "{}", '{"detector": "cospy", "options": 3, "threshold": "x", "band": 1}']
)
def test_broken_card(tmp_path: Path, card: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": FORMAT, "card": card})
    with pytest.raises(WeightsError, match="its card is broken"):
        read_weights(path)


@pytest.mark.parametrize(
    "changes", [{"threshold": float("nan")}, {"threshold": 1.2}, {"band": (0.9, 0.1)}]
)
def test_cards_hold_probabilities(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = saved(tmp_path / "w.safetensors", **changes)
    with pytest.raises(WeightsError, match=r"its card is broken.*are no probabilities"):
        read_weights(path)


class Bytes:
    """Unpickled, it is so many bytes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (self.count,)


def seeded(name: str) -> Detector:
    torch.manual_seed(0)
    kind = detectors.load(name)
    return kind(kind.tiny())


def written(path: Path, state: dict[str, Any], card: Card | None) -> Path:
    """A weight file of these tensors: a pickle, or safetensors with or without a card."""
    if card:
        save_weights(path, state, card)
    elif path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(value, expected[key]) for key, value in found.items()
    )


@pytest.mark.parametrize("name", detectors.available())
def test_own_weights_are_known_by_their_keys(tmp_path: Path, name: str) -> None:
    """Without their card, in whatever format; so are published ones."""
    model = seeded(name)
    own = own_state(model)
    for path in ("b.safetensors", "c.pth"):
        found = open_weights(written(tmp_path / path, own, None), name).state
        assert same(found, own), path
    whole = dict(model.state_dict())
    torch.save(type(model).publish(whole), tmp_path / "published.pth")
    published = open_weights(tmp_path / "published.pth", name).state
    assert published and all(torch.equal(published[k], v) for k, v in own.items() if k in published)
    assert same(type(model).convert(published), published)


def test_the_sign_of_ssp_is_turned_for_published_files_alone_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = seeded("ssp")
    weight = model.state_dict()["network.fc.weight"]
    theirs = {k.replace("network.", "disc."): v for k, v in model.state_dict().items()}
    earlier = Card("ssp", describe_options(model.options))
    cases: list[tuple[str, dict[str, Tensor], Card | None, int]] = [
        ("published.pth", theirs, None, -1),
        ("published.safetensors", theirs, None, -1),
        ("wrapped.pth", {"model": {f"module.{k}": v for k, v in theirs.items()}}, None, -1),
        ("own.pth", model.state_dict(), None, 1),
        ("own.safetensors", model.state_dict(), None, 1),
        ("earlier.safetensors", theirs, earlier, 1),  # this project's own had the published names
    ]
    for name, state, card, sign in cases:
        caplog.clear()
        file = open_weights(written(tmp_path / name, state, card), "ssp")
        loaded = build("ssp", Ssp.tiny(), file)
        assert torch.equal(loaded.model.state_dict()["network.fc.weight"], sign * weight), name
        said = [record for record in caplog.records if record.name == "detectors.ssp"]
        assert len(said) == (sign < 0), name
    both = {**theirs, **model.state_dict()}
    with pytest.raises(WeightsError, match="found both"):
        open_weights(written(tmp_path / "both.pth", both, None), "ssp")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_from_safetensors_too(tmp_path: Path, prefix: str) -> None:
    own = seeded("ssp").state_dict()
    path = written(tmp_path / "w.safetensors", {prefix + k: v for k, v in own.items()}, None)
    assert same(open_weights(path, "ssp").state, dict(own))


def test_the_folder_of_a_training_means_its_best_weights(tmp_path: Path) -> None:
    run = saved(tmp_path / "run" / "best.safetensors").parent
    file = open_weights(run, "cospy", ("semantic", "artifact", "fusion"))
    assert file.path == run / "best.safetensors"
    with pytest.raises(WeightsError, match=r"a folder with best\.safetensors"):
        open_weights(tmp_path, "ssp")


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """In the tensors, in the header, in the card."""
    path = saved(tmp_path / "w.safetensors", threshold=0.25)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [whole.index(b'threshold\\": 0.25') + 17, len(whole) - 1]
    for place in [*places, *rng.integers(8, len(whole), 40).tolist()]:
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            build("cospy", SMALL, open_weights(path, "cospy"))


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    """And the one before it is taken."""
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        save_checkpoint(path, {"epoch": epoch, "model": {"a": torch.arange(1000.0)}})
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(500).tobytes())] ^= 1
    path.write_bytes(content)
    state, note = read_checkpoint(path)
    assert state is not None and state["epoch"] == 1
    assert "Bad CRC-32" in note
    path.with_name("last.pt.previous").unlink()
    with pytest.raises(WeightsError, match=r"no whole checkpoint is left: .*--overwrite"):
        read_checkpoint(path)


def test_a_checkpoint_that_asks_for_all_memory_is_one_line(tmp_path: Path) -> None:
    torch.save({"format": FORMAT, "model": Bytes(1 << 36)}, tmp_path / "last.pt")
    with pytest.raises(WeightsError, match=r"memory.*--overwrite"):
        read_checkpoint(tmp_path / "last.pt")


def test_hostile_files_at_the_command_line(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"model": seeded("ssp").state_dict(), "x": Bytes(1 << 36)}, path)
    done = cli("--detector", "ssp", "--weights", path, "--input", EXAMPLE)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert str(path) in done.err


def test_files_of_earlier_versions_have_no_sum(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors")
    state, card = read_weights(path)
    assert card is not None
    values = json.loads(card_metadata(card, tensors_digest(state))["card"])
    del values["sum"]
    save_file(state, path, {"card": json.dumps(values)})
    assert read_weights(path)[1] == card


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest that knows `default` and `ssp`; only the latter's file is there."""
    path = tmp_path / "pretrained"
    path.mkdir()
    entries: dict[str, dict[str, Any]] = {
        "default": {"file": "default.safetensors", "ships": True},
        "ssp": {"file": "ssp.pth", "page": {"url": "https://x", "get": "it"}, "sha256": "0" * 64},
    }
    for name, entry in entries.items():
        entry |= {"title": name, "format": "state dict"}
    (path / "manifest.yaml").write_text(json.dumps(entries), encoding="utf-8")
    (path / "ssp.pth").write_bytes(b"content")
    monkeypatch.setattr("engine.weights.manifest.PRETRAINED", path)
    monkeypatch.setattr("engine.weights.manifest.MANIFEST", path / "manifest.yaml")
    return path


def test_unknown_name_lists_the_known_ones(manifest: Path) -> None:
    with pytest.raises(WeightsError, match="expected a file or one of default, ssp; found 'sps'"):
        locate("sps", "default")


def test_name_whose_file_is_not_there(manifest: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"default.safetensors: not there yet: .*; or name a file by --w"
    ):
        locate(None, "default")


def test_name_whose_file_has_another_digest(manifest: Path) -> None:
    for name in ("ssp", str(manifest / "ssp.pth")):
        with pytest.raises(WeightsError, match="sha256 is not the manifest's"):
            locate(name, "default")
    text = (manifest / "manifest.yaml").read_text(encoding="utf-8")
    text = text.replace("0" * 64, sha256(manifest / "ssp.pth"))
    (manifest / "manifest.yaml").write_text(text, encoding="utf-8")
    assert locate("ssp", "default") == locate(None, "ssp") == manifest / "ssp.pth"


def test_a_path_wins_over_names(manifest: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors")
    assert locate(str(path), "default") == path


# --- backbones


def efficientnet_file(path: Path) -> dict[str, Tensor]:
    """ImageNet start weights in timm's names, the classifier included."""
    from detectors._efficientnet import EfficientNetLite0

    torch.manual_seed(1)
    state = {**EfficientNetLite0().state_dict(), "classifier.weight": torch.zeros(1000, 1280)}
    torch.save(state, path)
    return state


def test_backbone_of_default_is_loaded_and_the_classifier_kept(tmp_path: Path) -> None:
    state = efficientnet_file(tmp_path / "b.pth")
    model = Default(dataclasses.replace(Default.tiny(), branch="artifact"))
    assert model.artifact is not None
    nn.init.constant_(model.artifact.fc.weight, 0.5)
    load_backbone(model, tmp_path / "b.pth")
    own = {k.removeprefix("artifact."): v for k, v in model.state_dict().items()}
    assert all(torch.equal(own[f"trunk.{k}"], v) for k, v in state.items() if "classifier" not in k)
    assert bool((own["fc.weight"] == 0.5).all())


def test_backbone_of_ssp_is_torchvisions_resnet50(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    torch.manual_seed(1)
    state = resnet50().state_dict()
    torch.save(state, tmp_path / "resnet50.pth")
    model = Ssp(Ssp.Options())
    head = model.network.fc.weight.clone()
    load_backbone(model, tmp_path / "resnet50.pth")
    own = model.state_dict()
    assert all(torch.equal(own[f"network.{k}"], v) for k, v in state.items() if "fc." not in k)
    assert torch.equal(own["network.fc.weight"], head)


@pytest.mark.parametrize("kind", [Default, Ssp])
def test_backbone_with_other_keys_is_refused(tmp_path: Path, kind: type[Detector]) -> None:
    options = kind.tiny()
    if kind is Default:
        options = dataclasses.replace(options, branch="artifact")
    model = kind(options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    root = "artifact.trunk." if kind is Default else "network."
    inner = {k.removeprefix(root): v for k, v in before.items() if k.startswith(root)}
    stem = next(iter(inner))
    files: dict[str, tuple[dict[str, Tensor], str]] = {
        "missing": ({k: v + 1 for k, v in inner.items() if k != stem}, f"missing {root}{stem}"),
        "unexpected": (
            {**inner, "stage5.weight": torch.zeros(1)},
            f"unexpected {root}stage5.weight",
        ),
        "shape": ({**inner, stem: torch.zeros(1)}, "other shapes"),
        "empty": ({}, "expected a state dict"),
    }
    for name, (state, message) in files.items():
        path = tmp_path / f"{name}.pth"
        torch.save(state, path)
        with pytest.raises(WeightsError, match=message):
            load_backbone(model, path)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_weights_of_a_detector_are_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected a backbone; found weights of cospy"):
        load_backbone(Default(Default.tiny()), saved(tmp_path / "w.safetensors"))


# --- writing


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """In its context the system refuses to write more than so many bytes into a file, as it does
    on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


SAVED = {"w.safetensors": lambda path: saved(path), "w.pth": lambda path: published(path)}


def published(path: Path) -> Path:
    save_original(path, {"model": small().state_dict()})
    return path


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.9])
def test_a_full_disk_is_an_error_of_the_file_and_leaves_the_old_one(
    tmp_path: Path, name: str, share: float
) -> None:
    path = SAVED[name](tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    old = path.read_bytes()
    with (
        pytest.raises(OSError, match="File too large") as caught,
        no_larger_than(int(share * len(old))),
    ):
        SAVED[name](path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", SAVED)
def test_a_folder_in_the_place_of_a_file_is_an_error_that_names_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        SAVED[name](tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)


def test_what_is_no_fault_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    class Broken:
        def __reduce__(self) -> str:
            raise RuntimeError("not to be pickled")

    with pytest.raises(RuntimeError, match="not to be pickled"):
        write_pickle(tmp_path / "w.part", {"a": Broken()})


def test_saved_weights_can_be_read_by_everybody(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors")
    assert path.stat().st_mode & 0o444 == 0o444


def test_channels_last_weights_are_saved_in_the_usual_order(tmp_path: Path) -> None:
    model = small()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    model.to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), Card("cospy", {}))
    state, _ = read_weights(tmp_path / "w.safetensors")
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())
    assert all(value.is_contiguous() for value in state.values())


def test_a_packed_backbone_is_rounded_once_it_is_unpacked(tmp_path: Path) -> None:
    """Its whole numbers and their magnitudes are no weights that could be bf16."""
    path, options = tmp_path / "packed.safetensors", Default.tiny()
    semantic = Default(options).semantic
    assert semantic is not None
    state = {f"visual.{k}": v.numpy() for k, v in semantic.encoder.state_dict().items()}
    save_file({k: torch.from_numpy(v).contiguous() for k, v in pack(state).items()}, path)
    exact, rough = (
        external_state(Default, options, {}, [path], dtype)[0] for dtype in (None, torch.bfloat16)
    )
    assert exact.keys() == rough.keys() != set()
    for key, value in exact.items():
        assert value.dtype == torch.float32
        assert torch.equal(rough[key], value.to(torch.bfloat16))

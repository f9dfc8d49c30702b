"""ONNX files: what is exported computes the same, says what it is, and runs by the command line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cli_runner
import numpy as np
import pytest
import torch
from cli_runner import Cli
from cli_runner import plain_cli as cli
from conftest import EXAMPLE, make_picture
from golden_rule import GOLDEN, INPUTS, published
from models import Toy, randomise, tiny
from PIL import Image
from torch import Tensor, nn

import detectors
from detectors._base import WHOLE, Detector, Part
from detectors._classifier_options import ClassifierOptions
from detectors._cospy_options import CoSpyOptions
from detectors._errors import OptionError, WeightsError
from detectors._options import describe_options
from detectors.cospy import CoSpy
from engine.config import ConfigError
from engine.runtime.device import Device
from engine.scoring.probability import sigmoid
from engine.weights import onnx as onnx_files
from engine.weights import onnx_export
from engine.weights.cards import Card, card_metadata, read_card, sha256
from engine.weights.files import read_weights, save_weights
from engine.weights.loaded import Loaded, card_of
from engine.weights.onnx import EXPORT, OnnxDetector, load_onnx, onnx_card, open_onnx, runs_on_cuda
from engine.weights.onnx_graph import network_digest, read_metadata

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from scripts import export_onnx  # noqa: E402

__all__ = ["cli"]  # a fixture

NAMES = ("classifier", "cospy", "default", "spai", "ssp")
# Of one network each: nothing of their export is particular, and each takes seconds.
MORE = (
    "cnndetect", "commfor", "dda", "fewshot", "ladeda", "npr", "rine", "ssp_baseline", "univfd",
)  # fmt: skip
# Others than the tiny ones; a classifier of few layers, of which each takes its time.
CHANGED: dict[str, Any] = {
    "classifier": ClassifierOptions(network="test_convnext", size=64),
    "cospy": CoSpyOptions(train_dataset="progan", mode="branch", size="tiny"),
}
CPU = Device(torch.device("cpu"))
SIZES = ((230, 260), (672, 450), (180, 120))
BAND = (0.2, 0.4)


@cache
def model_of(name: str) -> Detector:
    """The tiny detector that is exported here. Do not change it."""
    if name not in CHANGED:
        return tiny(name)
    model = detectors.load(name)(CHANGED[name])
    randomise(model)
    return model.eval()


def weights_of(name: str, path: Path, seed: int | None = None) -> Path:
    """Its weights with a card; with `seed` others of the same shapes."""
    model = model_of(name)
    if seed is not None:
        model = type(model)(model.options)
        randomise(model, seed)
    card = Card(name, describe_options(model.options), 0.3, BAND, {"trained": "on nothing"})
    save_weights(path, model.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The exported file of a detector, and its weights beside it: with a card, but for SSP's,
    whose options the command line says. Do not change them."""
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def make(name: str) -> Path:
        path, options = folder / f"{name}.onnx", list[str]()
        weights = weights_of(name, path.with_suffix(".safetensors"))
        if name == "ssp":
            weights, model = path.with_suffix(".pth"), model_of(name)
            torch.save(model.publish(model.state_dict()), weights)
            options = ["--detector", name, "--set", "ssp.layers=[1,1,1,1]", "ssp.size=64"]
            options.append("ssp.patches=2")
        assert export_onnx.main(["export", "--weights", str(weights), *options, str(path)]) == 0
        return path

    return make


@pytest.fixture
def spai(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of SPAI's two files, to spoil."""
    for name in ("spai.onnx", "spai.aggregator.onnx"):
        shutil.copy(made("spai").parent / name, tmp_path / name)
    return tmp_path / "spai.onnx"


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> Cli:
    return cli_runner.script(capsys, "export_onnx.py", export_onnx.main)


def load(path: Path, **changes: Any) -> Loaded:
    """An exported detector with the options of its card, or others."""
    card = onnx_card(path)
    options = detectors.load(card.detector).Options(**_tuples(card.options))
    changed = dataclasses.replace(options, **changes)
    return load_onnx(card.detector, changed, open_onnx(path, card.detector), CPU, False)


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def batch_of(model: Detector, count: int) -> Any:
    pictures = [make_picture(i, bool(i % 2), SIZES[i % len(SIZES)]) for i in range(count)]
    transform = model.transform(train=False)
    return model.collate([transform(p, np.random.default_rng(0)) for p in pictures])


# --- what is exported computes the same


def test_every_detector_of_one_network_or_more_is_exported_here() -> None:
    assert {*NAMES, *MORE, "ensemble", "trainingfree"} == set(detectors.available())


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)])
def test_probabilities_are_pytorchs(made: Callable[[str], Path], name: str, count: int) -> None:
    model, loaded = model_of(name), load(made(name))
    assert loaded.sha256 == sha256(made(name))
    assert name == "ssp" or (loaded.threshold, loaded.band) == (0.3, BAND)
    batch = batch_of(loaded.model, count)
    with torch.inference_mode():
        expected, found = model(batch), loaded.model(batch)
    assert found.shape == (count,)
    assert found.dtype == torch.float32
    assert len(set(expected.tolist())) == count
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(found.sigmoid(), expected.sigmoid(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(224, 224), (900, 300), (460, 500)])
def test_spai_takes_pictures_of_any_size(
    made: Callable[[str], Path], size: tuple[int, int]
) -> None:
    model, loaded = model_of("spai"), load(made("spai"))
    item = loaded.model.transform(train=False)(make_picture(0, True, size), None)
    with torch.inference_mode():
        expected, relevance = model.explain([item])
        found, exported = loaded.model.explain([item])
    torch.testing.assert_close(found.sigmoid(), expected.sigmoid(), rtol=0, atol=1e-5)
    torch.testing.assert_close(exported[0], relevance[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_spai_streams_its_patches(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    seen: list[int] = []
    run = onnx_files.Network.__call__

    def watched(network: onnx_files.Network, x: Tensor) -> tuple[Tensor, ...]:
        seen.extend([len(x)] if network.input == "patches" else [])
        return run(network, x)

    monkeypatch.setattr(onnx_files.Network, "__call__", watched)
    loaded = load(made("spai"), feature_batch=size)
    batch = batch_of(loaded.model, 2)
    with torch.inference_mode():
        found = loaded.model(batch)
        expected = model_of("spai")(batch)
    total = 5 + 6
    assert seen == [min(size, total - first) for first in range(0, total, size)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_spai_may_cut_pictures_otherwise_than_when_it_was_exported(
    made: Callable[[str], Path],
) -> None:
    loaded = load(made("spai"), cover_remainder=True)
    item = loaded.model.transform(train=False)(make_picture(0, True, (500, 460)), None)
    with torch.inference_mode():
        _, relevance = loaded.model.explain([item])
    assert len(relevance[0]) == 9


def test_an_onnx_detector_has_nothing_to_move_or_train(made: Callable[[str], Path]) -> None:
    model = load(made("ssp")).model.to("cpu")
    assert not list(model.parameters())
    assert not model.state_dict()
    assert (model.title, model.options) == ("SSP", model_of("ssp").options)
    with pytest.raises(OptionError, match="gives logits alone"):
        model.explain(batch_of(model, 1))
    with pytest.raises(OptionError, match="found an ONNX file"):
        model.parts()


# --- what a file says of itself


def test_files_say_what_they_are(made: Callable[[str], Path]) -> None:
    path = made("spai")
    other = path.with_name("spai.aggregator.onnx")
    weights = path.with_suffix(".safetensors")
    for file, part in ((path, "encoder"), (other, "aggregator")):
        card = onnx_card(file)
        assert (card.detector, card.threshold, card.band) == ("spai", 0.3, BAND)
        assert card.options == json.loads(json.dumps(describe_options(model_of("spai").options)))
        assert card.extra is not None
        assert card.extra["trained"] == "on nothing"
        expected = {"aggregator": sha256(other)} if part == "encoder" else {}
        assert card.extra[EXPORT] == {
            "part": part, "siblings": expected,
            "weights": weights.name, "sha256": sha256(weights), "external": {},
        }  # fmt: skip
    assert sorted(p.name for p in path.parent.iterdir() if "spai" in p.name) == [
        "spai.aggregator.onnx", "spai.onnx", "spai.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("cospy", "UINT8", [3, 224, 224]),
        ("default", "UINT8", [6, 3, 48, 48]),
        ("spai", "FLOAT", [3, 224, 224]),
        ("spai.aggregator", "FLOAT", [44]),
        ("ssp", "FLOAT", [2, 3, 32, 32]),
    ],
)
def test_files_are_valid_and_of_any_batch_size(
    made: Callable[[str], Path], name: str, kind: str, shape: list[int]
) -> None:
    path = made(name.split(".")[0]).with_name(f"{name}.onnx")
    proto = onnx.load(path)
    [given] = proto.graph.input
    tensor = given.type.tensor_type
    assert tensor.elem_type == getattr(onnx.TensorProto, kind)
    first, *rest = tensor.shape.dim
    assert first.dim_param
    assert [dim.dim_value for dim in rest] == shape
    assert {p.key: p.value for p in proto.metadata_props} == read_metadata(path)
    content = path.read_bytes()
    assert str(Path(__file__).parent.parent).encode() not in content
    assert b"site-packages" not in content


def test_an_export_of_the_same_weights_is_the_same_file(
    made: Callable[[str], Path], script: Cli, tmp_path: Path
) -> None:
    weights, again = made("cospy").with_suffix(".safetensors"), tmp_path / "again.onnx"
    done = script("export", "--weights", weights, again)
    assert done.status == 0
    assert done.out == f"{again}: {again.stat().st_size} bytes, sha256 {sha256(again)}\n"
    assert again.read_bytes() == made("cospy").read_bytes()


# --- files that do not belong together, or nowhere


def test_parts_of_two_exports_are_told_apart(spai: Path) -> None:
    other = spai.with_name("spai.aggregator.onnx")
    with pytest.raises(WeightsError, match=r"expected the encoder .*; found its aggregator"):
        load(other)
    proto = onnx.load(other)
    proto.producer_version = "another"
    onnx.save(proto, other)
    with pytest.raises(WeightsError, match=r"spai\.aggregator\.onnx: .* exported with spai\.onnx"):
        load(spai)
    other.unlink()
    with pytest.raises(WeightsError, match=r"spai\.aggregator\.onnx: .*found none"):
        load(spai)


def damaged(whole: bytes) -> Iterator[bytes]:
    for share in (0.0, 0.001, 0.3, 0.999):
        yield whole[: int(share * len(whole))]
    yield from (whole + b"\x3a\xff\xff\x7f", b"\0" * 99, b"\xff" * 99, bytes(range(256)))


def test_damaged_files_are_one_line(spai: Path) -> None:
    whole = spai.read_bytes()
    for content in damaged(whole):
        spai.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            open_onnx(spai, "spai")
        assert str(spai) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert card_of(spai) is None
    spai.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(WeightsError, match="pointer"):
        open_onnx(spai, "spai")


def test_a_network_of_other_shape_than_its_card_says(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    proto = onnx.load(made("ssp"))
    card = onnx_card(made("ssp"))
    changed = dataclasses.replace(card, options={**card.options, "patches": 1})
    resealed(proto, tmp_path / "x.onnx", changed)
    with pytest.raises(WeightsError, match=r"expected a network .*\[1, 3, 32, 32\].*found .*\[2,"):
        load(tmp_path / "x.onnx")


def resealed(proto: Any, path: Path, card: Card | None = None) -> Path:
    """A file of a changed network, or with another card, whose sum fits all the same."""
    path.write_bytes(proto.SerializeToString())
    card = card or read_card(path, read_metadata(path))
    onnx.helper.set_model_props(proto, card_metadata(card, network_digest(path)))
    path.write_bytes(proto.SerializeToString())
    return path


def foreign(path: Path, card: str | None = None) -> Path:
    """An ONNX file that is not this project's."""
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [info],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )  # fmt: skip
    proto = onnx.helper.make_model(graph)
    if card is not None:
        onnx.helper.set_model_props(proto, {"card": card})
    onnx.save(proto, path)
    return path


def changed(proto: Any, how: str) -> None:
    """Makes a network do what no export does."""
    helper, graph = onnx.helper, proto.graph
    last = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
    if how == "another shape":
        graph.node.append(helper.make_node("Shape", ["before"], ["size"]))
        graph.node.append(helper.make_node("Concat", ["size", "size"], ["twice"], axis=0))
        graph.node.append(helper.make_node("Expand", ["before", "twice"], [last]))
        graph.output[0].type.tensor_type.ClearField("shape")
    elif how == "much memory":
        many = onnx.numpy_helper.from_array(np.array([1 << 37], np.int64), "many")
        graph.initializer.append(many)
        graph.node.append(helper.make_node("ConstantOfShape", ["many"], ["zeros"]))
        graph.node.append(helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0))
        graph.node.append(helper.make_node("Add", ["before", "zero"], [last]))
    elif how == "endless":
        true = helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
        onward = helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])
        turn = helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, [])
        body = [helper.make_node("Identity", ["go"], ["on"])]
        inner = helper.make_graph(body, "body", [turn, true], [onward])
        graph.node.append(helper.make_node("Loop", ["", ""], [], body=inner))
        graph.node.append(helper.make_node("Identity", ["before"], [last]))
    elif how == "unknown":
        graph.node.append(helper.make_node("Nothing", ["before"], [last]))
    elif how == "foreign":
        graph.node.append(helper.make_node("Magic", ["before"], [last], domain="com.elsewhere"))
    else:
        weight = graph.initializer[0]
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../etc/passwd")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("another shape", "expected outputs of shapes"),
        ("much memory", "x.onnx: .*memory|alloc"),
        ("endless", "refused: it runs a graph within the graph"),
        ("unknown", r"x\.onnx: onnxruntime cannot load x\.onnx \(.+\): make"),
        ("foreign", "refused: it has an operator that is none of ONNX's own"),
        ("elsewhere", "refused: its weights are in another file"),
    ],
)
def test_what_no_export_does_is_refused(
    made: Callable[[str], Path], tmp_path: Path, how: str, message: str
) -> None:
    proto = onnx.load(made("ssp"))
    changed(proto, how)
    with pytest.raises(WeightsError, match=message) as caught:
        load(resealed(proto, tmp_path / "x.onnx"))
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed_wherever_it_is(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = made("default").read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "x.onnx"
    for place in [whole.index(b'"threshold": 0.3') + 15, *rng.integers(len(whole), size=15)]:
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            open_onnx(path, "default")


def test_foreign_files(made: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected an ONNX file of ssp; found one of default"):
        open_onnx(made("default"), "ssp")
    with pytest.raises(WeightsError, match="without this project's card"):
        open_onnx(foreign(tmp_path / "x.onnx"), "default")
    with pytest.raises(WeightsError, match="its card is broken"):
        open_onnx(foreign(tmp_path / "x.onnx", "{}"), "default")
    card = card_metadata(Card("default", {}), "")["card"]
    with pytest.raises(WeightsError, match="its card is broken"):
        open_onnx(foreign(tmp_path / "x.onnx", card), "default")


def test_weights_are_expected_where_an_onnx_file_cannot_serve(
    made: Callable[[str], Path], cli: Cli, tree: Path
) -> None:
    with pytest.raises(WeightsError, match="found an ONNX file"):
        read_weights(made("default"))
    train = ("--phase", "train", "--data", tree, "--output", tree.parent / "run")
    said = cli(*train, "--weights", made("default")).complaint
    assert "found an ONNX file" in said
    assert not (tree.parent / "run").exists()


# --- the command line


@pytest.mark.parametrize("name", ["default", "spai"])
def test_phase_test_scores_as_with_weights(
    made: Callable[[str], Path], cli: Cli, pictures: list[Path], name: str
) -> None:
    some = ("--json", "--input", *pictures[:3])
    found = cli(*some, "--detector", name, "--weights", made(name))
    expected = cli(*some, "--detector", name, "--weights", made(name).with_suffix(".safetensors"))
    assert (found.status, found.err) == (expected.status, expected.err) == (0, "")
    for ours, theirs in zip(expected.rows, found.rows, strict=True):
        assert theirs["score"] == pytest.approx(ours["score"], abs=1e-5)
        assert theirs["weights"] == f"{name}.onnx"
        for key in ("path", "label", "threshold", "detector", "width"):
            assert theirs[key] == ours[key]
        assert theirs["threshold"] == 0.3


def test_the_card_names_the_detector(
    made: Callable[[str], Path], cli: Cli, pictures: list[Path]
) -> None:
    for name in ("ssp", "cospy"):
        weights = made(name)
        done = cli("--json", "--weights", weights, "--input", pictures[0])
        assert [row["detector"] for row in done.rows] == [name]
        asked = ("--train_dataset", "progan", "--mode", "branch", "--weights", weights)
        assert cli(*asked, "--input", pictures[0]).status == (0 if name == "cospy" else 2)
    weights = made("ssp")
    said = cli("--detector", "default", "--weights", weights, "--input", EXAMPLE).complaint
    assert "of default; found" in said
    assert "of ssp" in said


def test_spai_is_explained_and_the_others_say_why_not(
    made: Callable[[str], Path], cli: Cli, pictures: list[Path], tmp_path: Path
) -> None:
    asked = ("--explain", "--input", pictures[0], "--output")
    files = []
    for number, suffix in enumerate((".onnx", ".safetensors")):
        output = tmp_path / str(number)
        weights = made("spai").with_suffix(suffix)
        assert cli(*asked, output, "--weights", weights).status == 0
        [file] = (output / "explain").iterdir()
        files.append(np.asarray(Image.open(file)).astype(int))
    assert np.abs(files[0] - files[1]).max() <= 2
    said = cli(*asked, tmp_path / "ssp", "--weights", made("ssp")).complaint
    assert "--explain" in said
    assert not (tmp_path / "ssp").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--precision bf16", "--precision bf16: expected fp32"),
        ("--compile", "--compile: expected PyTorch's weights"),
        ("--set ssp.patches=1", r"ssp\.patches: .* exported with 2; found 1: .*export_onnx"),
        ("--set ssp.size=32", r"ssp\.size: .* exported with 64; found 32"),
        ("--detector default", "expected an ONNX file of default; found one of ssp"),
    ],
)
def test_what_an_onnx_file_cannot_do_is_one_line(
    made: Callable[[str], Path], cli: Cli, arguments: str, said: str
) -> None:
    line = cli("--weights", made("ssp"), "--input", EXAMPLE, *arguments.split()).complaint
    assert re.search(said, line), line


def test_devices(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    path = made("ssp")
    file, options = open_onnx(path, "ssp"), model_of("ssp").options

    def on(name: str) -> Loaded:
        return load_onnx("ssp", options, file, Device(torch.device(name)), False)

    with pytest.raises(ConfigError, match="--device mps: expected cpu or cuda"):
        on("mps")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert not runs_on_cuda()
    with pytest.raises(ConfigError, match=r"--device cuda:0: .*onnxruntime-gpu.*--device cpu"):
        on("cuda:0")

    class Session:
        def __init__(self, *_: Any, providers: list[Any]) -> None:
            asked.extend(providers)

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]  # as when its libraries are missing

    asked: list[Any] = []
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnx_files, "_check_network", lambda *_: None)
    with pytest.raises(ConfigError, match="does not find its CUDA libraries"):
        on("cuda:1")
    assert asked[0] == ("CUDAExecutionProvider", {"device_id": 1, "use_tf32": 0})


def test_threads_are_pytorchs(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    model = load(made("cospy")).model
    assert isinstance(model, OnnxDetector)
    network = model._run[WHOLE]
    assert isinstance(network, onnx_files.Network)
    assert network.session.get_session_options().intra_op_num_threads == 3


# --- the script


def test_export_refuses_files_that_are_there(spai: Path, script: Cli) -> None:
    weights = weights_of("spai", spai.with_suffix(".safetensors"))
    before = {p.name: p.read_bytes() for p in spai.parent.glob("*.onnx")}
    line = script("export", "--weights", weights, spai).complaint
    assert "spai.onnx" in line
    assert "spai.aggregator.onnx" in line
    assert {p.name: p.read_bytes() for p in spai.parent.glob("*.onnx")} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("export --detector ensemble out.onnx", "export its members"),
        ("export --detector ssp --mode branch out.onnx", "--mode: expected --detector cospy"),
        ("export --weights nowhere.pth out.onnx", "expected a file or one of"),
        ("export --weights FILE out.onnx", "found an ONNX file"),
        ("export out.pt", "ends in .onnx; found out.pt"),
        ("export --input x out.onnx", "--input"),
        ("validate FILE", "--input: expected pictures"),
        ("validate nowhere.onnx --input x", "nowhere.onnx"),
        ("validate FILE --weights FILE --input x", "found an ONNX file"),
        ("validate FILE --weights OTHER --input x", "expected weights of ssp; found"),
    ],
)
def test_wrong_usage_of_the_script_is_one_line(
    made: Callable[[str], Path],
    script: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    other = made("default").with_suffix(".safetensors")
    files = {"FILE": str(made("ssp")), "OTHER": str(other)}
    line = script(*(files.get(word, word) for word in arguments.split())).complaint
    assert said in line
    assert not list(tmp_path.iterdir())


def test_validation_of_the_same_weights(
    made: Callable[[str], Path], script: Cli, pictures: list[Path]
) -> None:
    weights = made("spai").with_suffix(".safetensors")
    done = script("validate", made("spai"), "--weights", weights, "--input", *pictures[:3])
    assert (done.status, done.err) == (0, "")
    header, *rows, summary = done.out.splitlines()
    assert header.split() == ["PyTorch", "ONNX", "difference", "picture"]
    assert [row.split()[3] for row in rows] == [str(path) for path in pictures[:3]]
    for row in rows:
        ours, theirs, difference = map(float, row.split()[:3])
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert difference <= 1e-5
    assert summary.startswith("largest difference ")
    assert summary.endswith(" over 3 pictures: within 0.0001")


def test_validation_of_other_weights_fails(
    made: Callable[[str], Path], script: Cli, pictures: list[Path], tmp_path: Path
) -> None:
    other = weights_of("ssp", tmp_path / "other.safetensors", seed=1)
    asked = ("validate", made("ssp"), "--weights", other, "--input", *pictures[:3])
    done = script(*asked)
    assert done.status == 1
    assert done.out.splitlines()[-1].endswith("over 3 pictures: beyond 0.0001")
    differences = [float(line.split()[2]) for line in done.out.splitlines()[1:-1]]
    assert max(differences) > 1e-3
    assert script(*asked, "--tolerance", 1).status == 0


def test_validation_says_which_pictures_it_could_not_read(
    made: Callable[[str], Path], script: Cli, pictures: list[Path]
) -> None:
    weights = made("ssp").with_suffix(".safetensors")
    pictures[1].write_bytes(b"broken")
    done = script("validate", made("ssp"), "--weights", weights, "--input", *pictures[:2])
    assert done.status == 1
    assert f"error  {pictures[1]}: " in done.out
    assert "over 1 pictures: within" in done.out
    assert "1 pictures could not be read" in done.err


def test_options_of_the_export_reach_the_validation(
    made: Callable[[str], Path], script: Cli, pictures: list[Path]
) -> None:
    """A weight file without a card says nothing of them: the exported one does."""
    path = made("ssp")
    assert (onnx_card(path).options["size"], onnx_card(path).options["patches"]) == (64, 2)
    done = script("validate", path, "--weights", path.with_suffix(".pth"), "--input", pictures[0])
    assert done.status == 0, done


def test_a_network_that_fixes_the_batch_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([part.sum(dim=1) for part in x.split(1)])

    class Bad(Toy):
        def parts(self) -> dict[str, Part]:
            return {WHOLE: Part(Fixed(), torch.ones(2, 3), "batch", ("logits",))}

    loaded = Loaded(Bad(Bad.Options()).eval(), "toy", Path("w"), "", 0.5, None)
    with pytest.raises(OptionError, match="Toy with these options cannot be exported"):
        onnx_export.export(loaded, tmp_path / "x.onnx", {})
    assert not list(tmp_path.iterdir())


def test_what_pytorch_cannot_export_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operator\nand much more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    loaded = Loaded(Toy(Toy.Options()).eval(), "toy", Path("w"), "", 0.5, None)
    with pytest.raises(OptionError, match=r"cannot be exported: no such operator$"):
        onnx_export.export(loaded, tmp_path / "x.onnx", {})
    assert not list(tmp_path.iterdir())


# --- as published


COSPY = ("--train_dataset", "progan", "--mode", "branch", "--branch", "artifact")


def expected_probability(name: str, picture: str) -> float:
    found = json.loads(
        (GOLDEN / {"cospy": "cospy_progan_artifact.json"}.get(name, f"{name}.json")).read_text()
    )
    cell = found[picture]
    key = {"ssp": "probability_synthetic", "spai": "probability"}.get(name)
    return cell[key] if key else sigmoid(cell["logit"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "file", "flags"),
    [
        ("cospy", "cospy progan artifact_weights.pth", COSPY),
        ("ssp", "ssp Net_epoch_best.pth", ("--detector", "ssp")),
        ("spai", 'spai spai.pth["model"]', ("--detector", "spai")),
    ],
)
def test_published_networks(
    script: Cli, cli: Cli, tmp_path: Path, name: str, file: str, flags: tuple[str, ...]
) -> None:
    weights, path = tmp_path / "w.pth", tmp_path / f"{name}.onnx"
    torch.save(published(file), weights)
    done = script("export", *flags, "--weights", weights, path)
    assert done.status == 0, done
    done = script("validate", path, "--weights", weights, "--input", *INPUTS)
    assert done.status == 0, done
    rows = cli("--json", "--weights", path, "--input", *INPUTS).rows
    for row in rows:
        if name == "ssp":  # the golden run chose its patches at random
            continue
        expected = expected_probability(name, Path(row["path"]).name)
        assert row["score"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["progan", "sd-v1_4"])
@pytest.mark.parametrize(
    "mode", [("branch", "semantic"), ("branch", "artifact"), ("fusion",), ("end2end",)]
)
def test_every_mode_of_cospy(variant: str, mode: tuple[str, ...], tmp_path: Path) -> None:
    chosen = dict(zip(("mode", "branch"), mode, strict=False))
    model = CoSpy(CoSpyOptions(train_dataset=variant, size="tiny", **chosen))
    randomise(model)
    loaded = Loaded(model.eval(), "cospy", Path("w"), "", 0.5, None)
    [path] = onnx_export.export(loaded, tmp_path / "x.onnx", {})
    exported = load(path).model
    for count in (1, 3):
        batch = batch_of(exported, count)
        with torch.inference_mode():
            torch.testing.assert_close(exported(batch), model(batch), rtol=1e-3, atol=1e-3)

"""Encoders out of packages: a matrix is found by its layer; other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, script

from scripts import import_backbone

onnx = pytest.importorskip("onnx")


@pytest.fixture
def importer(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "import_backbone.py: ", import_backbone.main)


def test_a_layers_matrix_is_found_through_scaling_and_dequantised() -> None:
    """A plain product and a quantised one, listed in the other order than their layers."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    plain = rng.normal(size=(4, 3)).astype(np.float32)
    whole = rng.integers(-127, 128, (3, 2), dtype=np.int8)
    scale, zero = np.array([0.5, 0.25], np.float32), np.array([1, -2], np.int8)
    arrays = {
        "M_2_quantized": whole, "M_2_scale": scale, "M_2_zero_point": zero, "M_1": plain,
        "second.bias": np.zeros(2, np.float32), "first.bias": np.zeros(3, np.float32),
        "x_zero": np.array(0, np.uint8), "x_scale": np.array(1, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "M_1"], ["a"]),
        helper.make_node("Add", ["first.bias", "a"], ["b"]),
        helper.make_node("DynamicQuantizeLinear", ["b"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "M_2_quantized", "qz", "M_2_zero_point"], ["c"]),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "M_2_scale"], ["scales"]),
        helper.make_node("Mul", ["d", "scales"], ["e"]),
        helper.make_node("Add", ["e", "second.bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    found = import_backbone.matrices(helper.make_model(graph), arrays)
    assert found == {"first": "M_1", "second": "M_2_quantized"}
    expected = (whole.astype(np.float32) - zero) * scale
    assert np.array_equal(import_backbone.dequantised(arrays, found["second"]), expected)
    assert np.array_equal(import_backbone.dequantised(arrays, found["first"]), plain)


def test_another_file_is_refused(importer: Cli, tmp_path: Path) -> None:
    other, output = tmp_path / "other.onnx", tmp_path / "out.safetensors"
    other.write_bytes(b"no such network")
    for source, complaint in ((other, "sha256"), (tmp_path / "none.whl", "found none")):
        done = importer("clip-vit-b-16", "--from", source, "--output", output)
        assert complaint in done.complaint
    assert importer("clip-vit-b-16", "--output", other).status == 2
    assert not output.exists()

"""Export of a detector's networks as ONNX files; `onnx.py` says what stands in them.

scripts/export_onnx.py calls it. A file is written only when onnx's own checker and the reader here
take it, and never over another.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detectors._base import Detector, Part
from detectors._errors import OptionError, WeightsError
from detectors._options import describe_options

from ..config import ConfigError
from ..runtime.files import replace_file, replacing
from .cards import Card, card_metadata, sha256
from .graph import BATCH, GRAPH
from .loaded import Loaded
from .onnx import EXPORT, sibling
from .onnx_graph import check_structure, network_digest

OPSET = 18  # the first with antialiased resizing; onnxruntime has it since 1.14
LARGEST = (1 << 31) - 1  # bytes of a protobuf message


def _packages() -> Any:
    """onnx. Raises ConfigError when it, or what PyTorch exports with, is not installed."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"exporting needs {error.name}, which is not installed: pip install onnx onnxscript, "
            "or the extra `export`"
        ) from error
    return onnx


def _traced(title: str, part: Part, optimised: bool = True) -> Any:
    """The network as a ModelProto. `optimised`: with constants computed and norms folded into
    convolutions. Raises OptionError when PyTorch cannot export it."""
    chatter = io.StringIO()
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(chatter),
            contextlib.redirect_stderr(chatter),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                part.module,
                (part.example,),
                input_names=[part.input],
                output_names=list(part.outputs),
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=OPSET,
                dynamo=True,
                optimize=optimised,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise OptionError(f"{title} with these options cannot be exported: {reason}") from error
    assert program is not None
    return program.model_proto


def _check_free(title: str, part: Part, proto: Any) -> None:
    """Raises OptionError when the exporter has fixed the batch to that of the example."""
    [given] = proto.graph.input
    size, *rest = given.type.tensor_type.shape.dim
    if not size.dim_param or [dim.dim_value for dim in rest] != list(part.example.shape[1:]):
        raise OptionError(
            f"{title} with these options cannot be exported: not for a batch of any size"
        )


def _strip(graph: Any) -> None:
    """Clears the origin of each node in the sources: paths of this machine."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for described in (*graph.node, *values):
        described.doc_string = ""
        del described.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                _strip(inner)


def _write(path: Path, proto: Any, card: Card, onnx: Any) -> None:
    """Writes and checks a file. Raises WeightsError when it is too large or not valid."""
    _strip(proto.graph)
    for function in proto.functions:
        _strip(function)
    if proto.ByteSize() > LARGEST:
        raise WeightsError(f"{path}: expected a network of at most 2 GB; found a larger one")
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.helper.set_model_props(proto, card_metadata(card, network_digest(path)))
    path.write_bytes(proto.SerializeToString(deterministic=True))
    check_structure(path)  # what is written here can be read here
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise WeightsError(
            f"{path}: the exporter made a file that is not valid: {error}"
        ) from error


def _card(loaded: Loaded, extra: dict[str, Any], part: str, siblings: dict[str, str]) -> Card:
    exported = {
        "part": part,
        "siblings": siblings,
        "weights": loaded.path.name,
        "sha256": loaded.sha256,
        "external": {name: sha256(path) for name, path in loaded.external.items()},
    }
    options = describe_options(loaded.model.options)
    notes = {**extra, EXPORT: exported}
    return Card(loaded.name, options, loaded.threshold, loaded.band, notes)


def targets(model: Detector, path: Path) -> dict[str, Path]:
    """Paths of a detector's parts: the first is `path`, the others lie beside it."""
    first, *others = model.parts()
    return {first: path, **{part: sibling(path, part) for part in others}}


def export(loaded: Loaded, path: Path, extra: dict[str, Any]) -> list[Path]:
    """Writes a detector's networks, fp32, each for a batch of any size.

    Args:
        loaded: the detector, on the CPU, in evaluation mode.
        path: of its first part; see `targets` for the others. None is there yet.
        extra: free notes of the card of its weights, kept.

    Returns:
        What was written.

    Raises:
        OptionError: PyTorch cannot export the detector with these options.
        WeightsError: a file was there already, is over 2 GB, or is not valid.
        ConfigError: a package is missing.
    """
    onnx = _packages()
    parts, files = loaded.model.parts(), targets(loaded.model, path)
    if there := [str(file) for file in files.values() if file.exists()]:
        raise WeightsError(f"expected files that are not there yet; found {', '.join(there)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = {part: file.with_name(file.name + ".part") for part, file in files.items()}
    siblings: dict[str, str] = {}
    # The first comes last: it holds the sums of the others.
    order = list(parts)[::-1]
    try:
        for part in order:
            proto = _traced(loaded.model.title, parts[part])
            _check_free(loaded.model.title, parts[part], proto)
            known = siblings if part == order[-1] else {}
            _write(waiting[part], proto, _card(loaded, extra, part, known), onnx)
            siblings[part] = sha256(waiting[part])
        for part in order:
            replace_file(waiting[part], files[part])
    finally:
        for temporary in waiting.values():
            temporary.unlink(missing_ok=True)
    return list(files.values())


def _without_weights(graph: Any, keys: Set[str], onnx: Any) -> None:
    """Turns tensors of a state dict with these keys into inputs of their names."""
    for tensor in [tensor for tensor in graph.initializer if tensor.name in keys]:
        graph.initializer.remove(tensor)
        shape = list(tensor.dims)
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))


def export_graph(loaded: Loaded, path: Path) -> None:
    """Writes a detector's network without its weights, as `graph.py` computes it; over an earlier
    one, for it says nothing that the weights' options do not.

    Args:
        loaded: the detector, on the CPU, in evaluation mode, fp32.
        path: of the file.

    Raises:
        OptionError: PyTorch cannot export the detector with these options.
        ConfigError: a package is missing.
    """
    onnx, title = _packages(), loaded.model.title
    [part] = loaded.model.parts().values()
    # Unoptimised: what PyTorch computes of weights while exporting would stay in the file.
    proto = _traced(title, replace(part, input=BATCH), optimised=False)
    _check_free(title, part, proto)
    keys = loaded.model.state_dict().keys()
    _without_weights(proto.graph, keys, onnx)
    del proto.graph.value_info[:]  # shapes of all that lies between, which nobody needs
    unused = sorted(keys - {value.name for value in proto.graph.input})
    card = Card(
        loaded.name, describe_options(loaded.model.options), extra={GRAPH: {"unused": unused}}
    )
    with replacing(path) as temporary:
        _write(temporary, proto, card, onnx)

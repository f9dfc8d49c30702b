"""Metadata and structure of an ONNX file, read without the packages that can run it.

The fields of protobuf are walked over in the file; of the tensors, which are nearly all of it,
nothing is kept. `onnx.py` asks before onnxruntime has the file, which would compute constant parts
of a hostile graph while loading it; that is why its own reader of metadata does not serve here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from detectors._errors import WeightsError

from ..runtime.files import is_other_file

SCRIPT = "scripts/export_onnx.py"
SUFFIX = ".onnx"
# Numbers of fields in the messages of onnx.proto; wire types of protobuf.
GRAPH, METADATA, FUNCTIONS = 7, 14, 25  # of ModelProto
KEY, VALUE = 1, 2  # of StringStringEntryProto
NODE, INITIALIZER = 1, 5  # of GraphProto
ATTRIBUTE, DOMAIN = 5, 7  # of NodeProto
INNER_GRAPHS = {6, 11}  # of AttributeProto
EXTERNAL_DATA = 13  # of TensorProto
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
LARGEST_ENTRY = 1 << 20
CHUNK = 1 << 20


def is_onnx(path: Path | str | None) -> bool:
    """Whether a file's name says that it is an ONNX file."""
    return path is not None and Path(path).suffix.lower() == SUFFIX


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends too early")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("it has a number that is too long")


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """(number, length) of each field of a protobuf message that ends at `end`, the stream at its
    content, which need not be read. Raises ValueError when it is no such message."""
    while (start := stream.tell()) < end:
        number, kind = divmod(_varint(stream), 8)
        if kind == VARINT:
            start = stream.tell()
            _varint(stream)
            length = stream.tell() - start
        elif kind in (EIGHT_BYTES, FOUR_BYTES, LENGTH):
            length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(kind) or _varint(stream)
            start = stream.tell()
        else:
            raise ValueError("it is another kind of file")
        if start + length > end:
            raise ValueError("it ends too early")
        stream.seek(start)
        yield number, length
        stream.seek(start + length)


def _entry(stream: BinaryIO, length: int) -> tuple[str, str]:
    if length > LARGEST_ENTRY:
        raise ValueError("its metadata are too long")
    end = stream.tell() + length
    texts = {number: stream.read(size).decode() for number, size in _fields(stream, end)}
    return texts.get(KEY, ""), texts.get(VALUE, "")


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: expected an ONNX file; it is damaged: {error}: make it again by {SCRIPT}"
    )


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file.

    Raises:
        WeightsError: no ONNX file, or one that ends too early.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected an ONNX file; found none: make it by {SCRIPT}")
    if other := is_other_file(path):
        raise WeightsError(f"{path}: expected an ONNX file; found {other}")
    metadata, numbers = {}, set()
    try:
        with path.open("rb") as stream:
            for number, length in _fields(stream, path.stat().st_size):
                numbers.add(number)
                if number == METADATA:
                    key, value = _entry(stream, length)
                    metadata[key] = value
        if GRAPH not in numbers:
            raise ValueError("it holds no network")
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error
    return metadata


def network_digest(path: Path) -> str:
    """A hash of an ONNX file but for its metadata, which may hold the hash. Raises WeightsError
    when the file is damaged."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for number, length in _fields(stream, path.stat().st_size):
                if number == METADATA:
                    continue
                digest.update(f"{number} {length} ".encode())
                for taken in range(0, length, CHUNK):
                    digest.update(stream.read(min(CHUNK, length - taken)))
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error
    return digest.hexdigest()


def _check_node(stream: BinaryIO, end: int) -> None:
    for number, length in _fields(stream, end):
        if number == DOMAIN and length:
            raise WeightsError("it has an operator that is none of ONNX's own")
        # A loop is endless where its inner graph says so; without one, a network comes to an end.
        if (
            number == ATTRIBUTE
            and INNER_GRAPHS & dict(_fields(stream, stream.tell() + length)).keys()
        ):
            raise WeightsError("it runs a graph within the graph, such as a loop")


def _check_graph(stream: BinaryIO, end: int) -> None:
    for number, length in _fields(stream, end):
        below = stream.tell() + length
        if number == NODE:
            _check_node(stream, below)
        elif number == INITIALIZER and EXTERNAL_DATA in dict(_fields(stream, below)):
            raise WeightsError("its weights are in another file")


def check_structure(path: Path) -> None:
    """Raises WeightsError for a network with what no export of this project has: loops and other
    graphs within the graph, operators of its own, weights in other files; or for a damaged file."""
    try:
        with path.open("rb") as stream:
            for number, length in _fields(stream, path.stat().st_size):
                if number == FUNCTIONS:
                    raise WeightsError("it defines operators of its own")
                if number == GRAPH:
                    _check_graph(stream, stream.tell() + length)
    except WeightsError as error:
        raise WeightsError(
            f"{path}: refused: {error}; expected a network as {SCRIPT} exports it"
        ) from error
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error

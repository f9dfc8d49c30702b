"""Files that are programs: nothing in them runs, and none takes more memory or time than its size
explains; what published checkpoints hold is read all the same."""

from __future__ import annotations

import io
import os
import pickle
import re
import resource
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors._errors import WeightsError
from engine.runtime.confined import ConfinedError, Limits, confined
from engine.weights import original
from engine.weights.files import read_weights


def state_of(path: Path) -> dict[str, Tensor]:
    return read_weights(path)[0]


# --- what is read


def test_tensors_are_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    state = {
        "float": torch.randn(3, 2), "half": torch.ones(3).half(), "brain": torch.ones(2).bfloat16(),
        "long": torch.arange(4), "bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3), "view": shared[1:3, ::2], "same": shared, "turned": shared.t(),
        "kernel": torch.randn(2, 3, 3, 3), "parameter": nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    torch.save(state, tmp_path / "w.pth")
    with torch.device("meta"):
        found = state_of(tmp_path / "w.pth")
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key
    assert not found["parameter"].requires_grad


class CfgNode(dict[str, Any]):
    """Pickled as yacs.config.CfgNode is: a dict with a state."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.__dict__["frozen"] = False


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = ModuleType("yacs.config")
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setattr(CfgNode, "__module__", "yacs.config")
    monkeypatch.setitem(sys.modules, "yacs", ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode({"MODEL": CfgNode({"TYPE": "vit", "DROP": (0.1, None)}), "N": [1]})


def saved_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A checkpoint as SPAI publishes it; gives its state dict."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [5e-4]}, "max_accuracy": np.float64(98.7),
        "scaler": {"scale": 65536.0}, "epoch": 9, "config": config,
    }  # fmt: skip
    torch.save(content, path)
    return dict(model.state_dict())


def test_a_published_checkpoint_is_read_without_its_classes(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = saved_checkpoint(tmp_path / "spai.pth", config)
    monkeypatch.delitem(sys.modules, "yacs.config")
    found = state_of(tmp_path / "spai.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, "unwrapped state_dict"),
        (lambda s: {"model_state_dict": s, "optimizer": {}}, "unwrapped model_state_dict"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "unwrapped module."),
        (
            lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
            "unwrapped model, module._orig_mod.",
        ),
        (
            lambda s: {"state_dict": {"model": {f"_orig_mod.{k}": v for k, v in s.items()}}},
            "unwrapped state_dict, model, _orig_mod.",
        ),
    ],
)
def test_wrappers_are_taken_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrap: Callable[..., Any], said: str
) -> None:
    state = {"fc.weight": torch.ones(1, 2), "trunk.bias": torch.zeros(2)}
    torch.save(wrap(state), tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        assert list(state_of(tmp_path / "w.pth")) == list(state)
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / 'w.pth'}: {said}"]


def test_a_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    state = {"module.weight": torch.ones(1), "bias": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    assert set(state_of(tmp_path / "w.pth")) == set(state)


def test_several_state_dicts_become_one(tmp_path: Path) -> None:
    parts = {"sem_fc": {"module.weight": torch.ones(1)}, "fc": {"bias": torch.zeros(2)}}
    torch.save(parts, tmp_path / "w")
    assert set(state_of(tmp_path / "w")) == {"sem_fc.weight", "fc.bias"}


def test_only_keys_with_a_wanted_beginning_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"visual.a": torch.ones(1), "text.b": torch.ones(1)}}, tmp_path / "w")
    assert list(read_weights(tmp_path / "w", ("visual.",))[0]) == ["visual.a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a state dict of tensors; found list"),
        ({}, "expected a state dict of tensors; found dict"),
        ({"a": 1}, "found int at 'a'"),
        ({"model": [1]}, "found list at 'model'"),
        ({"model": {"a": 1}}, "found int at 'a'"),
        ({"model": {1: torch.ones(1)}}, "found Tensor at 1"),
        (
            {"a": torch.ones(2).to_sparse()},
            "expected a state dict of tensors; found .*sparse_coo at",
        ),
    ],
)
def test_a_checkpoint_without_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        state_of(tmp_path / "w.pth")


# --- what is refused


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def reduce(name: str, arguments: bytes) -> bytes:
    """A pickle that calls what it names."""
    module, _, function = name.rpartition(".")
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + arguments + b"R."


def calls(target: Path) -> Iterator[tuple[str, bytes]]:
    """Pickles that would make the file `target`, or run something else."""
    path, one = str(target), text(f"touch {target}") + b"\x85"
    opened = text(f"open({path!r}, 'w')") + b"\x85"
    for name in ("os.system", "posix.system", "subprocess.getoutput"):
        yield name, reduce(name, one)
    for name in ("builtins.eval", "__builtin__.exec"):
        yield name, reduce(name, opened)
    yield "builtins.open", reduce("builtins.open", text(path) + text("w") + b"\x86")
    yield "torch.load", reduce("torch.load", text(path) + b"\x85")
    yield "numpy.load", reduce("numpy.load", text(path) + b"\x85")
    yield "pathlib.Path", reduce("pathlib.Path", text(path) + b"\x85")
    yield "made_up.Thing", b"\x80\x02cmade_up\nThing\n)\x81."
    yield "refused", b"\x80\x04" + text("os") + text("system") + b"\x93" + one + b"R."
    yield "refused: ", b"(" + one[:-1] + b"ios\nsystem\n."
    yield "refused:  ", b"\x80\x02(cos\nsystem\n" + one[:-1] + b"o."
    yield "expected", b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x85R(K\x03" + text("|") + b"tb."


def write_archive(path: Path, program: bytes, entries: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        for name, content in (entries or {}).items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", [name for name, _ in calls(Path("x"))])
def test_nothing_is_called(tmp_path: Path, name: str) -> None:
    path = write_archive(tmp_path / "w.pth", dict(calls(tmp_path / "canary"))[name])
    with pytest.raises(WeightsError, match=name.split(".")[-1].strip()) as caught:
        state_of(path)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "builtins.open", "refused"])
def test_they_were_harmful_in_the_first_place(tmp_path: Path, name: str) -> None:
    pickle.loads(dict(calls(tmp_path / "canary"))[name])  # noqa: S301
    assert (tmp_path / "canary").exists()


class Reduced:
    """An object with a __reduce__ of choice."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def test_a_call_is_found_wherever_it_is(tmp_path: Path) -> None:
    evil = Reduced(Path.touch, (tmp_path / "canary",))
    content = {"model": {"a": torch.ones(1)}, "optimizer": {"state": {0: {"x": evil}}}}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="refused: it names"):
        state_of(tmp_path / "w.pth")
    assert not (tmp_path / "canary").exists()


# --- what would take all memory or time


def repeated(name: str, argument: bytes, count: int) -> bytes:
    """A pickle that calls `name` so many times with the same argument, and keeps the results."""
    module, _, function = name.rpartition(".")
    call = b"c" + f"{module}\n{function}\n".encode() + b"h\xff\x85R"
    return b"\x80\x02(" + argument + b"q\xff](" + call * count + b"et."


def nested(levels: int) -> bytes:
    """Tuples of tuples, each twice as large as the one before: fine as a value, not as a text."""
    steps = (b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(levels))
    return b")" + b"".join(steps)


def bombs() -> dict[str, bytes]:
    numbers = b"](" + b"".join(b"J" + struct.pack("<i", n) for n in range(100_000)) + b"e"
    return {
        "encode": repeated("_codecs.encode", text("x" * (1 << 20)), 4000),
        "bytearray": repeated("builtins.bytearray", b"\x8a\x05\x00\x00\x00\x00\x10", 1),
        "set": repeated("builtins.set", numbers, 3000),
        "repr": b"\x80\x02}" + nested(24) + b"K\x01s.",
        "value": b"\x80\x02}" + text("a") + nested(200) + b"s.",
    }


def peak() -> int:
    """Megabytes that this process has held at most since it last asked."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*([0-9]+)", status)[1]) >> 10  # type: ignore[index]


def test_bombs_end_in_one_line_each_and_take_little_memory(tmp_path: Path) -> None:
    paths = [write_archive(tmp_path / name, program) for name, program in bombs().items()]
    with zipfile.ZipFile(tmp_path / "deflated", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02](" + b"K\x01" * 30_000_000 + b"e.")
    peak()
    start, messages = peak(), []
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    for path in [*paths, tmp_path / "deflated"]:
        with pytest.raises(WeightsError) as caught:
            state_of(path)
        messages.append(str(caught.value))
        assert messages[-1].startswith(f"{path}: ") and "\n" not in messages[-1]
    assert sum("of memory" in message for message in messages) >= 3, messages
    assert peak() < start + 300
    # A child begins with what this process holds.
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    assert largest < max(children + 1, start + 600)


def test_what_takes_all_time_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of a nest of tuples, as a key's, takes for ever."""
    monkeypatch.setattr(original, "SECONDS", 1)
    path = write_archive(tmp_path / "w.pth", b"\x80\x02}" + nested(60) + b"K\x01s.")
    with pytest.raises(WeightsError, match="it takes over 1 s"):
        state_of(path)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (os._exit, (3,), "no answer"),
        (os.abort, (), "memory"),
        (bytearray, (1 << 30,), "it needs over 64 MB of memory"),
        (int, ("\x1b[31m\nx",), r"^[^\x1b\n]*$"),
    ],
)
def test_whatever_becomes_of_the_child_is_one_line(
    call: Callable[..., Any], arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ConfinedError, match=message):
        confined(call, *arguments, limits=Limits(64 << 20, 5))
    assert confined(max, 1, 2, limits=Limits(64 << 20, 5)) == 2


# --- damage


def test_a_changed_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 500.0))] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"][500] != 500, "torch notices it by now"
    with pytest.raises(WeightsError, match="damaged: Bad CRC-32"):
        state_of(path)


def tensor_program(
    key: str = "0", count: int = 4, offset: int = 0, size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
) -> bytes:  # fmt: skip
    """The pickle of a state dict of one tensor, its numbers as wanted."""
    marker = object()

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", count) if value is marker else None

    stream = io.BytesIO()
    arguments = (marker, offset, size, stride, False, OrderedDict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Writer(stream, 2).dump({"a": Reduced(torch._utils._rebuild_tensor_v2, arguments)})
    return stream.getvalue()


DATA = {"archive/data/0": np.arange(4, dtype=np.float32).tobytes()}


def test_the_tensor_of_these_tests_is_one(tmp_path: Path) -> None:
    found = state_of(write_archive(tmp_path / "w.pth", tensor_program(), DATA))
    assert found["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (10**6,)},
        {"size": (2,), "stride": (10**6,)},
        {"offset": -1},
        {"offset": 10**6},
        {"size": (10**12,), "stride": (0,)},
        {"stride": (-1,)},
        {"key": "1"},
        {"key": "../data.pkl"},
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(WeightsError):
        state_of(write_archive(tmp_path / "w.pth", tensor_program(**changes), DATA))


# --- other files


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 1)).save(str(path))


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("progan/fusion_weights.pth", b"x")


def other_order(path: Path) -> None:
    write_archive(path, tensor_program(), DATA | {"archive/byteorder": b"big"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scripted, "refused: it is TorchScript, a program: bring .* clip-vit-l-14"),
        (other_zip, "it is a zip, but none of torch.save: unpack it"),
        (other_order, "another machine's order of bytes"),
        (lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>"), "found a web page: .* browser"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com"), "pointer of git-lfs"),
        (lambda p: p.write_bytes(b"PK\x03\x04"), "the rest of it is missing: get it again"),
        (lambda p: p.write_bytes(b""), "an empty file"),
        (lambda p: p.mkdir(), "expected a weight file; found none"),
        (lambda p: None, "expected a weight file; found none"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "w.pth"
    make(path)
    with pytest.raises(WeightsError, match=message) as caught:
        state_of(path)
    assert str(caught.value).startswith(str(path))


def test_files_of_the_older_format_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "w", _use_new_zipfile_serialization=False)
    assert state_of(tmp_path / "w")["a"].tolist() == [1, 1]

"""Files that are programs: nothing in them runs, and what is harmless is read all the same."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detectors._base import WeightsError
from engine._inert import ClassName, StandIn
from engine.unpickle import published_state, read_inert

# --- what is read


def values() -> dict[str, Any]:
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    return {
        "float": torch.randn(3, 2), "half": torch.randn(3).half(),
        "brain": torch.ones(2).bfloat16(),
        "long": torch.arange(4), "bool": torch.tensor([True, False]), "complex": torch.ones(2) * 1j,
        "short": torch.zeros(2, dtype=torch.uint16), "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3), "view": shared[1:3, ::2], "same": shared, "turned": shared.t(),
        "parameter": nn.Parameter(torch.ones(2)), "state": nn.Linear(2, 2).state_dict(),
        "plain": [1, -2, 2**70, 0.5, "text", "\u00e9", None, True, (1, (2,)), {1: {"a": []}}],
        "bytes": b"\x00\xff", "no_bytes": b"", "set": {1, 2}, "frozen": frozenset("a"), "j": 1j,
        "ordered": OrderedDict(b=1, a=2), "default": defaultdict(dict, {1: {}}),
        "counter": Counter("aab"), "size": torch.Size([1, 2]), "dtype": torch.float16,
        "device": torch.device("cuda", 1), "f8": np.float64(98.5), "f4": np.float32(0.25),
        "i8": np.int64(-3), "b1": np.bool_(True), "U": np.str_("ab"),
    }  # fmt: skip


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_and_plain_values_are_as_they_were_saved(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "w.pth"
    torch.save(values(), path, pickle_protocol=protocol)
    found = read_inert(path)
    for name, value in values().items():
        assert same(found[name], value), name
    assert not found["parameter"].requires_grad
    assert found["same"].data_ptr() == found["turned"].data_ptr(), "the storage was doubled"


def test_agrees_with_torch(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(), path)
    expected = torch.load(path, weights_only=True)
    assert same(read_inert(path), expected) and same(published_state(path), dict(expected))


def test_tensors_are_on_the_cpu_whatever_is_the_default(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pth")
    with torch.device("meta"):
        found = read_inert(tmp_path / "w.pth")["a"]
    assert found.tolist() == [1, 1, 1]


# --- a checkpoint as SPAI publishes it

CONFIG = """
class CfgNode(dict):
    loaded = []

    def __init__(self, values=()):
        super().__init__(values)
        self.__dict__["frozen"] = False

    def __setitem__(self, key, value):
        CfgNode.loaded.append(key)
        super().__setitem__(key, value)

    def __setstate__(self, state):
        CfgNode.loaded.append("state")
        self.__dict__.update(state)

class Schedule:
    def __init__(self):
        self.steps = [1, 2]
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with a class that behaves like yacs.config.CfgNode when pickled."""
    module = ModuleType("fake_yacs")
    exec(CONFIG, module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, "fake_yacs", module)
    return module


def checkpoint(config: ModuleType) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    node = config.CfgNode({"MODEL": config.CfgNode({"TYPE": "vit", "DROP": (0.1, None)}), "N": [1]})
    return {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [5e-4], "schedule": config.Schedule()},
        "max_accuracy": np.float64(98.7), "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "epoch": 9, "config": node,
    }  # fmt: skip


def saved_checkpoint(path: Path, config: ModuleType) -> dict[str, Any]:
    content = checkpoint(config)
    torch.save(content, path)
    config.CfgNode.loaded.clear()
    return content


def test_a_checkpoint_is_read_without_its_classes(
    tmp_path: Path, config: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spai.pth"
    content = saved_checkpoint(path, config)
    monkeypatch.delitem(sys.modules, "fake_yacs")
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    found = read_inert(path)
    for name in ("model", "optimizer", "max_accuracy", "scaler", "epoch"):
        assert same(found[name], content[name]), name
    assert same(published_state(path), dict(content["model"]))


def test_objects_of_other_classes_are_stand_ins_that_hold_nothing(
    tmp_path: Path, config: ModuleType
) -> None:
    """Though their class could be imported."""
    path = tmp_path / "spai.pth"
    saved_checkpoint(path, config)
    found = read_inert(path)
    assert config.CfgNode.loaded == []
    for stand_in, name in (
        (found["config"], "CfgNode"),
        (found["lr_scheduler"]["schedule"], "Sch"),
    ):
        assert type(stand_in) is StandIn
        assert name in repr(stand_in)
        for attribute in ("MODEL", "frozen", "steps", "__dict__", "keys"):
            assert not hasattr(stand_in, attribute)
    torch.load(path, weights_only=False)
    assert config.CfgNode.loaded, "the class would not have run anything in the first place"


def test_only_the_models_values_are_read(
    tmp_path: Path, config: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spai.pth"
    content = saved_checkpoint(path, config)
    opened: list[str] = []
    whole = zipfile.ZipFile.open

    def watched(self: zipfile.ZipFile, name: Any, *rest: Any, **more: Any) -> Any:
        opened.append(getattr(name, "filename", name))
        return whole(self, name, *rest, **more)

    monkeypatch.setattr(zipfile.ZipFile, "open", watched)
    published_state(path)
    assert len([name for name in opened if "/data/" in name]) == len(content["model"])
    opened.clear()
    read_inert(path)
    assert len([name for name in opened if "/data/" in name]) > 2 * len(content["model"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a state dict; found list"),
        ({"a": 1}, "found int at 'a'"),
        ({"model": [1]}, "found list at 'model'"),
        ({"model": {}}, "expected a state dict; found dict"),
        ({"model": {"a": 1}}, "found int at 'a'"),
        ({"model": {1: torch.ones(1)}}, "found Tensor at 1"),
    ],
)
def test_a_checkpoint_without_model(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        published_state(tmp_path / "w.pth")


def test_several_state_dicts_become_one(tmp_path: Path) -> None:
    torch.save(
        {"sem_fc": {"weight": torch.ones(1)}, "fc": {"bias": torch.zeros(2)}}, tmp_path / "w"
    )
    assert list(published_state(tmp_path / "w")) == ["sem_fc.weight", "fc.bias"]


# --- what is refused

Made = tuple[bytes, str]  # a pickle, and what the message says


def calls(target: Path) -> Iterator[tuple[str, Made]]:
    """Pickles that would make the file `target`, or run something else."""
    path, touch = str(target), f"touch {target}"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def reduce(module: str, name: str, arguments: bytes) -> bytes:
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arguments + b"\x85R."

    def stacked(module: str, name: str, arguments: bytes) -> bytes:
        return b"\x80\x04" + text(module) + text(name) + b"\x93" + arguments + b"\x85R."

    one = text(touch)
    opened = text(f"open({path!r}, 'w')")
    yield "os.system", (reduce("os", "system", one), "os.system")
    yield "posix.system", (reduce("posix", "system", one), "posix.system")
    yield "subprocess", (reduce("subprocess", "getoutput", one), "subprocess.getoutput")
    yield "eval", (reduce("builtins", "eval", opened), "builtins.eval")
    yield "exec", (reduce("__builtin__", "exec", opened), "__builtin__.exec")
    yield "open", (
        b"\x80\x02cbuiltins\nopen\n" + text(path) + text("w") + b"\x86R.", "builtins.open",
    )  # fmt: skip
    yield "getattr", (b"\x80\x02cbuiltins\ngetattr\ncos\npath\n" + text("x") + b"\x86R.", "getattr")
    yield "import", (reduce("builtins", "__import__", text("this")), "__import__")
    yield "torch.load", (reduce("torch", "load", text(path)), "torch.load")
    yield "numpy.load", (reduce("numpy", "load", text(path)), "numpy.load")
    yield "partial", (
        b"\x80\x02cfunctools\npartial\ncos\nsystem\n" + one + b"\x86R)R.", "functools.partial",
    )  # fmt: skip
    yield "copyreg", (
        b"\x80\x02ccopyreg\n_reconstructor\ncpathlib\nPath\ncbuiltins\nobject\nN\x87R.", "copyreg",
    )  # fmt: skip
    yield "method", (reduce("pathlib", "Path.touch", text(path)), "pathlib.Path.touch")
    yield "STACK_GLOBAL", (stacked("os", "system", one), "os.system")
    yield "nested name", (stacked("os", "path.os.system", one), "os.path.os.system")
    yield "name below an allowed module", (
        stacked("torch", "_utils._rebuild_tensor_v2", one), "torch._utils._rebuild_tensor_v2",
    )  # fmt: skip
    yield "through torch", (stacked("torch.serialization", "os.system", one), "serialization.os")
    yield "INST", (b"(" + one + b"ios\nsystem\n.", r"os\.system \(INST\)")
    yield "OBJ", (b"\x80\x02(cos\nsystem\n" + one + b"o.", r"os\.system \(OBJ\)")
    yield "EXT1", (b"\x80\x02\x82\xf0" + one + b"\x85R.", r"240 \(EXT1\)")
    yield "EXT2", (b"\x80\x02\x83\xf0\x00" + one + b"\x85R.", r"240 \(EXT2\)")
    yield "EXT4", (b"\x80\x02\x84\xf0\x00\x00\x00" + one + b"\x85R.", r"240 \(EXT4\)")
    yield "PERSID", (b"Pos.system\n.", "PERSID")
    yield "memo", (
        b"\x80\x02cos\nsystem\nq\x000(" + one + b"tq\x010h\x00h\x01R.", "os.system",
    )  # fmt: skip
    yield "DUP", (b"\x80\x02cos\nsystem\n2" + one + b"\x85R.", "os.system")
    yield "stand-in", (
        b"\x80\x02cmade_up\nThing\n)\x81" + one + b"\x85R.", "call made_up.Thing",
    )  # fmt: skip
    yield "stand-in as a key's hash", (b"\x80\x02}cmade_up\nThing\n)\x81K\x01s.", "key")
    yield "dtype called", (b"\x80\x02ctorch\nfloat32\n" + one + b"\x85R.", "call dtype")
    yield "state of a list", (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "state of a list")
    yield "state of a class", (
        b"\x80\x02cos\nsystem\nN}X\x01\x00\x00\x00aK\x01s\x86b.", "state of a ClassName",
    )  # fmt: skip
    yield "numpy objects", (
        b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x85R.", "numpy value of type 'O8'",
    )  # fmt: skip
    yield "numpy array", (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n" + one + b"\x85R.", "_reconstruct",
    )  # fmt: skip
    yield "defaultdict's factory", (
        b"\x80\x02ccollections\ndefaultdict\ncos\nsystem\n\x85Rq\x00h\x00" + one + b"\x86R.",
        "defaultdict",
    )  # fmt: skip


NAMES = [name for name, _ in calls(Path("x"))]


def write_archive(path: Path, program: bytes, entries: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        for name, content in (entries or {}).items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An extension code that stands for os.system, as a program before us may have registered."""
    copyreg.add_extension("posix", "system", 240)
    pickle.loads(b"\x80\x02\x82\xf0.")  # noqa: S301  # which also fills its cache
    yield
    copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_called(tmp_path: Path, no_calls: None, name: str) -> None:
    target = tmp_path / "canary"
    program, message = dict(calls(target))[name]
    path = write_archive(tmp_path / "w.pth", program)
    before = set(sys.modules)
    with pytest.raises(WeightsError, match=message) as caught:
        read_inert(path)
    assert not target.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {"this", "made_up"} & (set(sys.modules) - before) == set()


HARMFUL = ["os.system", "posix.system", "subprocess", "eval", "open", "STACK_GLOBAL", "INST", "OBJ",
           "EXT1", "EXT2", "EXT4", "memo", "DUP", "partial", "nested name"]  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_they_were_harmful_in_the_first_place(tmp_path: Path, no_calls: None, name: str) -> None:
    target = tmp_path / "canary"
    program, _ = dict(calls(target))[name]
    pickle.loads(program)  # noqa: S301
    assert target.exists()


class Reduced:
    """An object with a __reduce__ of choice."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


@pytest.mark.parametrize("depth", ["key", "item", "optimizer"])
def test_a_call_is_found_wherever_it_is(tmp_path: Path, depth: str) -> None:
    evil = Reduced(Path.touch, (tmp_path / "canary",))
    inside: dict[str, Any] = {
        "key": {evil: 1}, "item": {"model": {"a": torch.ones(1)}, "b": [[(1, evil)]]},
        "optimizer": {"model": {"a": torch.ones(1)}, "optimizer": {"state": {0: {"x": evil}}}},
    }[depth]  # fmt: skip
    torch.save(inside, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="refused: it would call"):
        published_state(tmp_path / "w.pth")
    assert not (tmp_path / "canary").exists()


def test_nothing_that_a_file_names_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    program = b"\x80\x02ccanary_module\nThing\n)\x81}X\x01\x00\x00\x00aK\x01sbq\x00."
    found = read_inert(write_archive(tmp_path / "w.pth", program))
    assert type(found) is StandIn and found.class_name == "canary_module.Thing"
    program = b"\x80\x02ccanary_module\nThing\n."
    named = read_inert(write_archive(tmp_path / "v.pth", program))
    assert named == ClassName("canary_module", "Thing")
    assert "canary_module" not in sys.modules


def test_names_in_messages_cannot_control_a_terminal(tmp_path: Path) -> None:
    program = b"\x80\x04X\x06\x00\x00\x00\x1b[31m\x07X\x01\x00\x00\x00a\x93)R."
    with pytest.raises(WeightsError) as caught:
        read_inert(write_archive(tmp_path / "w.pth", program))
    assert str(caught.value).isprintable()


# --- damage


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_truncated_files(tmp_path: Path, config: ModuleType, share: float) -> None:
    path = tmp_path / "spai.pth"
    saved_checkpoint(path, config)
    os.truncate(path, int(share * path.stat().st_size))
    for read in (read_inert, published_state):
        with pytest.raises(WeightsError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_changed_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 500.0))] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"][500] != 500, "torch notices it by now"
    with pytest.raises(WeightsError, match="damaged: Bad CRC-32"):
        read_inert(path)


def test_altered_files_are_read_or_refused(tmp_path: Path, config: ModuleType) -> None:
    """Any other exception than WeightsError would fail this."""
    path = tmp_path / "w.pth"
    saved_checkpoint(path, config)
    with zipfile.ZipFile(path) as archive:
        names = {name: archive.read(name) for name in archive.namelist()}
    program_name = next(name for name in names if name.endswith("/data.pkl"))
    program = names.pop(program_name)
    names = {"archive" + name[name.index("/") :]: content for name, content in names.items()}
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(program[: rng.integers(len(program) // 2, len(program) + 1)])
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        names.pop("archive/version", None)
        write_archive(path, bytes(changed), names)
        try:
            read_inert(path)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 150


def tensor_program(
    key: str = "0", count: int = 4, offset: int = 0, size: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,), kind: str = "FloatStorage",
) -> bytes:  # fmt: skip
    """The pickle of one tensor, its numbers as wanted."""
    marker = object()

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if value is marker:
                return ("storage", getattr(torch, kind), key, "cpu", count)
            return None

    stream = io.BytesIO()
    arguments = (marker, offset, size, stride, False, OrderedDict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Writer(stream, 2).dump(Reduced(torch._utils._rebuild_tensor_v2, arguments))
    return stream.getvalue()


DATA = {"archive/data/0": np.arange(4, dtype=np.float32).tobytes()}


def test_the_tensor_of_these_tests_is_one(tmp_path: Path) -> None:
    found = read_inert(write_archive(tmp_path / "w.pth", tensor_program(), DATA))
    assert found.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (5,)}, "larger than its storage"),
        ({"size": (2,), "stride": (4,)}, "larger than its storage"),
        ({"offset": 1}, "larger than its storage"),
        ({"offset": -1}, "no whole number"),
        ({"size": (10**12,), "stride": (0,)}, "larger than its storage"),
        ({"size": (2, 2)}, "damaged"),
        ({"stride": (-1,)}, "no whole number"),
        ({"count": 5}, "shorter than it should be"),
        ({"count": 10**15}, "shorter than it should be"),
        ({"key": "1"}, "damaged"),
        ({"key": "../data.pkl"}, "damaged"),
        ({"kind": "QInt8Storage"}, "storage of type torch.QInt8Storage"),
    ],
)
def test_tensors_beyond_their_storage(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        read_inert(write_archive(tmp_path / "w.pth", tensor_program(**changes), DATA))


def test_entries_that_would_grow_or_overlap(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_program(count=10**6, size=(10**6,)))
        archive.writestr("archive/data/0", bytes(4 * 10**6))
    with pytest.raises(WeightsError, match="entries that overlap"):
        read_inert(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_program())
        archive.writestr("archive/data/0", os.urandom(16), zipfile.ZIP_STORED)
    with pytest.raises(WeightsError, match="compressed"):
        read_inert(path)


def test_a_billion_laughs(tmp_path: Path) -> None:
    """Tuples of tuples, each twice the one before: fine as a value, not to be hashed."""
    nested = b"\x80\x02)" + b"2\x86" * 60
    assert isinstance(read_inert(write_archive(tmp_path / "w.pth", nested + b".")), tuple)
    with pytest.raises(WeightsError, match="a key is a tuple"):
        read_inert(write_archive(tmp_path / "v.pth", b"\x80\x02}" + nested[2:] + b"K\x01s."))


def test_a_list_of_itself(tmp_path: Path) -> None:
    found = read_inert(write_archive(tmp_path / "w.pth", b"\x80\x02]q\x00h\x00a."))
    assert found[0] is found


# --- other files


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 1)).save(str(path))


def older(path: Path) -> None:
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("progan/fusion_weights.pth", b"x")


def other_order(path: Path) -> None:
    write_archive(path, tensor_program(), DATA | {"archive/byteorder": b"big"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scripted, "refused: it is TorchScript, a program: bring .* clip-vit-l-14"),
        (older, "found a pickle of an older form: load and save it with a current torch"),
        (other_zip, "it is a zip, but none of torch.save: unpack it"),
        (other_order, "byte order of another kind of machine"),
        (lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>"), "found a web page: .* browser"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com"), "pointer of git-lfs"),
        (lambda p: p.write_bytes(b"PK\x03\x04"), "the rest is missing: get it again"),
        (lambda p: p.write_bytes(b""), "an empty file"),
        (lambda p: p.mkdir(), "expected a weight file; found none"),
        (lambda p: None, "expected a weight file; found none"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "w.pth"
    make(path)
    for read in (read_inert, published_state):
        with pytest.raises(WeightsError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))

"""The machine that follows a pickle without running what it names.

A pickle is a program: it names functions and calls them. This machine knows a dozen harmless calls
of its own and imports nothing: a class that a file names stays a name, an object of it becomes a
`StandIn`, and a call of anything else ends the reading.
"""

from __future__ import annotations

import codecs
import pickletools
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

SCALARS = (str, int, float, complex, bytes, type(None), torch.dtype, torch.device, np.generic)

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64, "UntypedStorage": torch.uint8,
}  # fmt: skip
_NUMPY_TYPE = re.compile(r"[biufcSU][0-9]{1,4}")
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip


class RefusedError(Exception):
    """The file asks for something that is not done here; the text says for what."""


class DamagedError(Exception):
    """The file does not make sense; the text says where."""


@dataclass(frozen=True)
class ClassName:
    """A class or function that a file names. It was not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """In place of an object of a class that was not imported. It holds nothing."""

    __slots__ = ("class_name",)

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name

    def __repr__(self) -> str:
        return f"<stand-in for {self.class_name}>"


@dataclass(frozen=True)
class Storage:
    """A storage of the archive with the element type that the pickle gives it."""

    data: torch.UntypedStorage
    dtype: torch.dtype


class _NumpyType:
    """A numpy element type, such as f8, whose byte order comes later."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="


def wrong(what: str) -> DamagedError:
    return DamagedError(f"its pickle is damaged ({what})")


def whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and v >= 0 for v in values):
        raise wrong("a size is no whole number")
    return tuple(values)


def _what(value: Any) -> str:
    """For messages: the class of an object, as the file names it."""
    return value.class_name if isinstance(value, StandIn) else type(value).__name__


def _key(value: Any) -> Any:
    """`value` if it can be a key. Tuples of tuples cannot: hashing them may take for ever."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, (*SCALARS, ClassName)) for part in parts):
        raise wrong(f"a key is a {type(value).__name__}")
    return value


# --- the calls that a pickle may make: arguments -> value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise wrong("a tensor without storage")
    # One more argument in the newer form: the element type of an untyped storage.
    dtype = rest[2] if len(rest) > 2 and isinstance(rest[2], torch.dtype) else storage.dtype
    size, stride = whole_numbers(size), whole_numbers(stride)
    (offset,) = whole_numbers((offset,))
    count = storage.data.nbytes() // dtype.itemsize
    numel = 1
    for length in size:
        numel *= length
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(size) > 64 or numel > count or (numel and last >= count):
        raise wrong("a tensor is larger than its storage")
    empty = torch.empty(0, dtype=dtype, device="cpu")
    return empty.set_(storage.data, offset, size, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise wrong("a parameter without tensor")
    return data


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((_key(k), v) for k, v in pairs)


def _defaults(*_: Any) -> defaultdict[Any, Any]:
    return defaultdict(None)


def _counter(counts: Any = None) -> Counter[Any]:
    return Counter({_key(k): v for k, v in (counts or {}).items()})


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise wrong("bytes in another form than latin1")
    return codecs.latin_1_encode(text)[0]


def _bytes(value: Any = b"") -> bytes:
    if not isinstance(value, bytes):
        raise wrong("bytes of something else")
    return value


def _set(values: Any = ()) -> set[Any]:
    return {_key(value) for value in values}


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(float(real), float(imaginary))


def _device(kind: Any, index: Any = None) -> torch.device:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise wrong("a device of another form")
    return torch.device(kind) if index is None else torch.device(kind, index)


def _numpy_type(code: Any, *_: Any) -> _NumpyType:
    if not isinstance(code, str) or not _NUMPY_TYPE.fullmatch(code):
        raise RefusedError(f"it holds a numpy value of type {str(code)[:20]!r}")
    return _NumpyType(code)


def _numpy_scalar(kind: Any, data: Any) -> np.generic:
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        raise wrong("a numpy value of another form")
    dtype = np.dtype(kind.order + kind.code)
    if dtype.itemsize != len(data):
        raise wrong("a numpy value of another length")
    return np.frombuffer(data, dtype, 1)[0]


_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": _set, "frozenset": lambda *a: frozenset(_set(*a)), "complex": _complex,
    "bytes": _bytes, "bytearray": lambda *a: bytearray(_bytes(*a)),
}  # fmt: skip
_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): lambda size=(): torch.Size(whole_numbers(size)),
    ("torch", "device"): _device,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _defaults,
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _numpy_type,
    **{(f"numpy.{core}.multiarray", "scalar"): _numpy_scalar for core in ("core", "_core")},
    **{(m, name): f for m in ("builtins", "__builtin__") for name, f in _BUILTINS.items()},
}


class Machine:
    """Follows one pickle. `storage` answers its persistent ids."""

    def __init__(self, storage: Callable[[Any], Storage]) -> None:
        self.storage = storage
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "MARK": self.mark, "POP": self.pop, "POP_MARK": self.pop_mark,
            "DUP": lambda _: self.push(self.stack[-1]),
            "TUPLE": lambda _: self.push(tuple(self.since_mark())),
            "TUPLE1": lambda _: self.push(tuple(self.take(1))),
            "TUPLE2": lambda _: self.push(tuple(self.take(2))),
            "TUPLE3": lambda _: self.push(tuple(self.take(3))),
            "LIST": lambda _: self.push(self.since_mark()),
            "DICT": lambda _: self.store({}, self.since_mark(), push=True),
            "FROZENSET": lambda _: self.push(frozenset(_set(self.since_mark()))),
            "APPEND": lambda _: self.extend(self.take(1)),
            "APPENDS": lambda _: self.extend(self.since_mark()),
            "ADDITEMS": lambda _: self.extend(self.since_mark()),
            "SETITEM": lambda _: self.set_items(self.take(2)),
            "SETITEMS": lambda _: self.set_items(self.since_mark()),
            "PUT": self.put, "BINPUT": self.put, "LONG_BINPUT": self.put,
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            "GET": self.get, "BINGET": self.get, "LONG_BINGET": self.get,
            "GLOBAL": lambda name: self.name(*name.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self.name(*self.take(2)),
            "REDUCE": lambda _: self.call(*self.take(2)), "BUILD": lambda _: self.build(),
            "NEWOBJ": lambda _: self.stand_in(*self.take(2)),
            "NEWOBJ_EX": lambda _: self.stand_in(*self.take(3)),
            "BINPERSID": lambda _: self.push(self.storage(self.stack.pop())),
            "PROTO": lambda _: None, "FRAME": lambda _: None, "STOP": lambda _: None,
        }  # fmt: skip

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def run(self, program: bytes) -> Any:
        """The object that a pickle describes."""
        try:
            return self.follow(program)
        finally:
            # Nothing else would free what is in there before the next garbage collection.
            self.memo, self.marks, self.stack = {}, [], []

    def follow(self, program: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name in _LITERALS:
                self.push(argument)
            elif opcode.name in _CONSTANTS:
                self.push(_CONSTANTS[opcode.name]())
            elif opcode.name in self.steps:
                self.steps[opcode.name](argument)
            else:
                self.refuse(opcode.name, argument)
        (result,) = self.stack
        return result

    def refuse(self, opcode: str, argument: Any) -> None:
        """For the opcodes that call what they name, or that fetch things from elsewhere."""
        what = argument
        if opcode == "OBJ":
            what = next(iter(self.since_mark()), None)
        elif opcode == "INST":
            what = ".".join(argument.split(" ", 1))
        raise RefusedError(f"it would call {what} ({opcode})")

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise wrong("its stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def pop_mark(self, _: Any) -> None:
        self.since_mark()

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(_set(items))
        elif type(target) is not StandIn:
            raise wrong(f"it appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, defaultdict, Counter, StandIn):
            raise wrong(f"it puts items into a {type(target).__name__}")
        if type(target) is not StandIn:
            self.store(target, items)

    def store(self, target: dict[Any, Any], items: list[Any], push: bool = False) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value
        if push:
            self.push(target)

    def name(self, module: Any, name: Any) -> None:
        if not (type(module) is str and type(name) is str):
            raise wrong("a name is no text")
        dtype = _DTYPES.get(name) if module == "torch" else None
        self.push(ClassName(module, name) if dtype is None else dtype)

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, ClassName):
            raise RefusedError(f"it would call {_what(function)}")
        allowed = _CALLS.get((function.module, function.name))
        if allowed is None:
            raise RefusedError(f"it would call {function}")
        if not isinstance(arguments, tuple):
            raise wrong("a call without arguments")
        self.push(allowed(*arguments))

    def stand_in(self, kind: Any, *_: Any) -> None:
        if not isinstance(kind, ClassName):
            raise wrong("an object without class")
        self.push(StandIn(str(kind)))

    def build(self) -> None:
        target, state = self.take(2)
        if isinstance(target, _NumpyType):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
            if order not in ("<", ">", "=", "|"):
                raise wrong("a numpy type of another form")
            target.order = order
        elif type(target) not in (StandIn, OrderedDict):
            # An OrderedDict's state is the _metadata of a state dict, which nobody needs.
            raise RefusedError(f"it would change the state of a {type(target).__name__}")
        self.push(target)

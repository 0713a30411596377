"""The pickle in a state dict, followed by a machine that knows tensors and plain values alone.

Nothing is unpickled: no class is looked up and no function called, whatever the file names. The
result is a description of which tensor lies where in which storage. Torch-free.
"""

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats import safetensors

_STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
           "bool")  # fmt: skip
_KNOWN = {
    ("collections", "OrderedDict"), ("torch", "Size"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"), *(("torch", name) for name in (*_STORAGES, *_DTYPES)),
}  # fmt: skip
_MOST_OPCODES = 600_000
SAVE = "Save the weights alone: torch.save(model.state_dict(), 'model.pt')."


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """A block of numbers: its type as safetensors calls it, its member of the archive, its size."""

    kind: str
    record: str
    numbers: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file: a view into one of its storages, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return safetensors.DTYPES[self.storage.kind]


def described(raw: bytes) -> Any:
    """What a pickle describes: plain values, mappings, lists, tuples and `StoredTensor`.

    Raises:
        SecateurError: `model_unreadable`, with the name of what is neither.
    """
    return _Machine(raw).run()


class _Machine:
    """Follows the opcodes of a pickle; objects of any other kind than below do not exist here."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The described value.

        Raises:
            SecateurError: `model_unreadable`.
        """
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(self._raw)):
                if number > _MOST_OPCODES:
                    raise refuse("its pickle is too long")
                if opcode.name == "STOP":
                    return self._stack[-1]
                step = _OPCODES.get(opcode.name)
                if step is None:
                    raise refuse(f"its pickle uses {opcode.name}, which no state dict needs")
                step(self, argument)
        except SecateurError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise refuse(f"its pickle is not valid ({shown(str(error))})") from None
        raise refuse("its pickle has no end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def marked(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: Any) -> None:
        self.push(self._memo[index])

    def collect(self, size: int | None) -> None:
        if size is None:
            self.push(tuple(self.marked()))
        else:
            values = self._stack[-size:] if size else []
            if len(values) != size:
                raise IndexError("too few values")
            del self._stack[len(self._stack) - size :]
            self.push(tuple(values))

    def append(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("no list to append to")
        self._stack[-1].extend(values)

    def fill(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise TypeError("no mapping to fill")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise refuse("a key of a mapping is neither a text nor a number")
            target[key] = value

    def find(self, module: Any, name: Any) -> None:
        if (module, name) not in _KNOWN:
            raise SecateurError(
                "model_unreadable",
                f"The state dict holds more than tensors: {shown(f'{module}.{name}')}. "
                "Nothing of it was run.",
                where="data.pkl",
                hint=SAVE,
            )
        self.push(_Global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise refuse("its pickle calls what is no function")
        self.push(self._called(function.name, arguments))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        # The state of the mapping that nn.Module.state_dict gives: versions of the layers.
        if (
            type(self._stack[-1]) is not dict
            or type(state) is not dict
            or set(state) - {"_metadata"}
        ):
            raise refuse("its pickle sets the state of an object")

    def storage(self, _: Any) -> None:
        match self._stack.pop():
            case ("storage", _Global("torch", kind), str(key), str(), int(numbers)) if (
                kind in _STORAGES and re.fullmatch(r"[0-9]{1,9}", key) and numbers >= 0
            ):
                self.push(Storage(_STORAGES[kind], f"data/{key}", numbers))
            case _:
                raise refuse("its pickle refers to something that is no storage")

    def _called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name, arguments:
            case "OrderedDict", ():
                return {}
            case "Size", (tuple() as sizes,):
                return sizes
            case "_rebuild_tensor_v2", (
                Storage() as storage,
                int(offset),
                tuple() as shape,
                tuple() as strides,
                bool(),
                dict() as hooks,
                *more,
            ):
                if hooks or any(more):
                    raise refuse("a tensor has hooks or attributes of its own")
                return _tensor(storage, offset, shape, strides)
            case "_rebuild_parameter", (StoredTensor() as tensor, bool(), dict() as hooks):
                if hooks:
                    raise refuse("a parameter has hooks")
                return tensor
        raise refuse(f"its pickle calls {name} in a way that no state dict does")


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = argument.partition(" ")
    machine.find(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine._stack.pop(), machine._stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("a name that is no text")
    machine.find(module, name)


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _pair(machine: _Machine, _: Any) -> None:
    value, key = machine._stack.pop(), machine._stack.pop()
    machine.fill([key, value])


_push: Callable[[_Machine, Any], None] = _Machine.push
_OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
                     "SHORT_BINUNICODE"), _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": _constant(()),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.collect(None),
    "TUPLE1": lambda machine, _: machine.collect(1),
    "TUPLE2": lambda machine, _: machine.collect(2),
    "TUPLE3": lambda machine, _: machine.collect(3),
    "APPEND": lambda machine, _: machine.append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.marked()),
    "SETITEM": _pair,
    "SETITEMS": lambda machine, _: machine.fill(machine.marked()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}  # fmt: skip


def _tensor(
    storage: Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> StoredTensor:
    sizes = (*shape, *strides, offset)
    if not all(type(v) is int and 0 <= v < 2**48 for v in sizes) or len(shape) != len(strides):
        raise refuse("a tensor has no valid shape")
    if len(shape) > safetensors.MAX_DIMS:
        raise refuse(f"a tensor has {len(shape)} axes")
    last = offset
    if math.prod(shape):
        for size, stride in sorted(zip(shape, strides, strict=True), key=lambda p: p[1]):
            if size > 1 and stride <= last - offset:
                raise refuse("the numbers of a tensor lie over each other")
            last += (size - 1) * stride
        if last >= storage.numbers:
            raise refuse("a tensor reaches beyond its storage")
    return StoredTensor(storage, offset if math.prod(shape) else 0, shape, strides)


def refuse(reason: str, where: str | None = None) -> SecateurError:
    """The error for a file that is no state dict to read."""
    return SecateurError(
        "model_unreadable",
        f"The state dict can't be read: {reason}.",
        where=where and shown(where),
        hint=SAVE,
    )


def shown(text: str) -> str:
    """Text of a file as it may stand in a message."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."

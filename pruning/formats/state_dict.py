"""State dicts of torch.save: read, converted to safetensors, and written back. Torch-free.

The pickle inside is never unpickled, not even by torch.load(weights_only=True). A machine of our
own follows its opcodes, of which it knows those that a state dict needs, and builds a plain
description: which tensor lies where in which storage. Anything else is refused by name.
"""

import json
import math
import pickletools
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pruning.data.archive import open_zip
from pruning.errors import SecateurError
from pruning.formats import safetensors
from pruning.formats.limits import Limits

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
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_MEMBER = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
    r"|data/[0-9]{1,9}"
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_OPCODES = 600_000
_ALIGNMENT = 64
_BLOCK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
           ValueError)  # fmt: skip
_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'model.pt')."


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    record: str
    numbers: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file: a view into one of its storages, counted in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return safetensors.DTYPES[self.storage.kind]


@dataclass(frozen=True)
class StateDict:
    """A checked state dict.

    Attributes:
        path: The file.
        tensors: What it holds, in its own order.
        records: Each member of the archive: where its bytes start and how many there are.
    """

    path: Path
    tensors: dict[str, StoredTensor]
    records: dict[str, tuple[int, int]]

    def storage(self, name: str) -> np.ndarray:
        """The numbers of a tensor's storage, mapped from the file."""
        return self._view(self.tensors[name].storage)

    def array(self, name: str) -> np.ndarray:
        """One tensor, mapped from the file."""
        return _strided(self.storage(name), self.tensors[name])

    def member(self, name: str) -> bytes:
        """All of one member's bytes."""
        start, size = self.records[name]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def _view(self, storage: _Storage) -> np.ndarray:
        start, size = self.records[storage.record]
        dtype = safetensors.DTYPES[storage.kind]
        if not size:
            return np.zeros(0, dtype)
        part = np.asarray(np.memmap(self.path, np.uint8, "r", start, size))
        return (part.copy() if start % dtype.itemsize else part).view(dtype)


def is_state_dict(path: Path) -> bool:
    """Whether a file is a zip archive as torch.save writes it, by the names of its members."""
    try:
        with open_zip(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except _DAMAGE:
        return False


def read_state_dict(path: Path, limits: Limits) -> StateDict:
    """What a file of torch.save holds, checked before any number is read.

    Raises:
        SecateurError: `unsupported_format` for whole modules, TorchScript and files of old
            versions; `model_unreadable` for a damaged archive or anything that is not a state
            dict; `model_too_large`.
    """
    with path.open("rb") as file:
        head = file.read(len(_LEGACY))
    if not head.startswith(b"PK"):
        raise _no_archive(head)
    try:
        with open_zip(path) as archive:
            records = _records(archive, path, limits)
            _, size = records["data.pkl"]
            if size > limits.text_bytes:
                raise SecateurError(
                    "model_too_large",
                    f"data.pkl has {size} bytes; the limit is {limits.text_bytes}.",
                    where="data.pkl", hint=_SAVE,
                )  # fmt: skip
    except _DAMAGE as error:
        raise _refuse(f"the archive is damaged ({_shown(str(error))})") from None
    state = StateDict(path, {}, records)
    if "byteorder" in records and state.member("byteorder") != b"little":
        raise _refuse("its numbers are not little-endian")
    root = _Machine(state.member("data.pkl"), limits).run()
    tensors = _found(root)
    _check(tensors, records, limits)
    return StateDict(path, tensors, records)


def convert(state: StateDict, target: Path, limits: Limits) -> None:
    """Writes the tensors to a safetensors file, under their own names.

    Raises:
        SecateurError: `model_too_large` for a header over the limit.
    """
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in state.tensors.items():
        size = math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {
            "dtype": tensor.storage.kind, "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }  # fmt: skip
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with target.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in state.tensors:
            file.write(np.ascontiguousarray(state.array(name)).tobytes())
    safetensors.read_header(target, limits)


def rewrite(state: StateDict, target: Path, changed: Mapping[str, np.ndarray]) -> None:
    """Writes the file with the numbers of some tensors replaced; the same values, the same bytes.

    The pickle inside, the names of all members and their order stay as they are.

    Args:
        state: As read.
        target: Where to.
        changed: New values by name, in the tensors' own types and shapes.
    """
    storages: dict[str, np.ndarray] = {}
    for name in sorted(changed):
        tensor = state.tensors[name]
        record = tensor.storage.record
        if record not in storages:
            storages[record] = state.storage(name).copy()
        _strided(storages[record], tensor, writeable=True)[...] = changed[name]
    aside = target.with_name(f".{target.name}.part")
    with zipfile.ZipFile(aside, "w") as archive, open_zip(state.path) as source:
        for info in source.infolist():
            fresh = zipfile.ZipInfo(info.filename)
            fresh.file_size = info.file_size
            assert archive.fp is not None
            used = archive.fp.tell() + 30 + len(info.filename.encode()) + 4
            padding = -used % _ALIGNMENT
            fresh.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            values = storages.get(info.filename.partition("/")[2])
            with archive.open(fresh, "w") as sink:
                if values is not None:
                    sink.write(values.tobytes())
                else:
                    with source.open(info) as old:
                        shutil.copyfileobj(old, sink, _BLOCK)
    aside.replace(target)


def _strided(storage: np.ndarray, tensor: StoredTensor, writeable: bool = False) -> np.ndarray:
    steps = tuple(s * tensor.dtype.itemsize for s in tensor.strides)
    return as_strided(storage[tensor.offset :], tensor.shape, steps, writeable=writeable)


def _records(archive: zipfile.ZipFile, path: Path, limits: Limits) -> dict[str, tuple[int, int]]:
    """Where each member's bytes lie; its top folder's name, which is any, is cut off."""
    infos = archive.infolist()
    if len(infos) > limits.stored_tensors + 16:
        raise SecateurError("model_too_large", f"The archive has {len(infos)} members.")
    tops = {info.orig_filename.partition("/")[0] for info in infos}
    found: dict[str, tuple[int, int]] = {}
    end, total = 0, path.stat().st_size
    with path.open("rb") as file:
        for info in sorted(infos, key=lambda i: i.header_offset):
            top, _, name = info.orig_filename.partition("/")
            if name == "constants.pkl" or name.startswith("code/"):
                raise _unsupported("a TorchScript archive")
            if len(tops) != 1 or not top or not _MEMBER.fullmatch(name):
                raise _refuse(f"the member {_shown(info.orig_filename)!r} belongs to no state dict")
            if name in found:
                raise _refuse(f"two members are called {_shown(name)}")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise _refuse(f"{name} is packed or encrypted")
            if info.compress_size != info.file_size:
                raise _refuse(f"{name} has two sizes")
            file.seek(info.header_offset)
            local = file.read(30)
            length = int.from_bytes(local[26:28], "little")
            start = info.header_offset + 30 + length + int.from_bytes(local[28:30], "little")
            if file.read(length) != info.orig_filename.encode():
                raise _refuse(f"{name} is called otherwise at its own place")
            if info.header_offset < end:
                raise _refuse(f"{name} lies over another member")
            end = start + info.file_size
            if end > total:
                raise _refuse(f"the file ends inside {name}")
            found[name] = (start, info.file_size)
            with archive.open(info) as member:  # reading to the end compares the checksum
                while member.read(_BLOCK):
                    pass
    if "data.pkl" not in found:
        raise _refuse("it holds no data.pkl")
    return found


class _Machine:
    """Follows the opcodes of a pickle; objects of any other kind than below do not exist here."""

    def __init__(self, raw: bytes, limits: Limits) -> None:
        self._raw, self._limits = raw, limits
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
                    raise _refuse("its pickle is too long")
                if opcode.name == "STOP":
                    return self._stack[-1]
                step = _OPCODES.get(opcode.name)
                if step is None:
                    raise _refuse(f"its pickle uses {opcode.name}, which no state dict needs")
                step(self, argument)
        except SecateurError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise _refuse(f"its pickle is not valid ({_shown(str(error))})") from None
        raise _refuse("its pickle has no end")

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
                raise _refuse("a key of a mapping is neither a text nor a number")
            target[key] = value

    def find(self, module: Any, name: Any) -> None:
        if (module, name) not in _KNOWN:
            raise SecateurError(
                "model_unreadable",
                f"The state dict holds more than tensors: {_shown(f'{module}.{name}')}. "
                "Nothing of it was run.",
                where="data.pkl",
                hint=_SAVE,
            )
        self.push(_Global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or type(arguments) is not tuple:
            raise _refuse("its pickle calls what is no function")
        self.push(self._called(function.name, arguments))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        # The state of the mapping that nn.Module.state_dict gives: versions of the layers.
        if (
            type(self._stack[-1]) is not dict
            or type(state) is not dict
            or set(state) - {"_metadata"}
        ):
            raise _refuse("its pickle sets the state of an object")

    def storage(self, _: Any) -> None:
        match self._stack.pop():
            case ("storage", _Global("torch", kind), str(key), str(), int(numbers)) if (
                kind in _STORAGES and re.fullmatch(r"[0-9]{1,9}", key) and numbers >= 0
            ):
                self.push(_Storage(_STORAGES[kind], f"data/{key}", numbers))
            case _:
                raise _refuse("its pickle refers to something that is no storage")

    def _called(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name, arguments:
            case "OrderedDict", ():
                return {}
            case "Size", (tuple() as sizes,):
                return sizes
            case "_rebuild_tensor_v2", (
                _Storage() as storage,
                int(offset),
                tuple() as shape,
                tuple() as strides,
                bool(),
                dict() as hooks,
                *more,
            ):
                if hooks or any(more):
                    raise _refuse("a tensor has hooks or attributes of its own")
                return _tensor(storage, offset, shape, strides)
            case "_rebuild_parameter", (StoredTensor() as tensor, bool(), dict() as hooks):
                if hooks:
                    raise _refuse("a parameter has hooks")
                return tensor
        raise _refuse(f"its pickle calls {name} in a way that no state dict does")


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
    storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> StoredTensor:
    sizes = (*shape, *strides, offset)
    if not all(type(v) is int and 0 <= v < 2**48 for v in sizes) or len(shape) != len(strides):
        raise _refuse("a tensor has no valid shape")
    if len(shape) > safetensors.MAX_DIMS:
        raise _refuse(f"a tensor has {len(shape)} axes")
    last = offset
    if math.prod(shape):
        for size, stride in sorted(zip(shape, strides, strict=True), key=lambda p: p[1]):
            if size > 1 and stride <= last - offset:
                raise _refuse("the numbers of a tensor lie over each other")
            last += (size - 1) * stride
        if last >= storage.numbers:
            raise _refuse("a tensor reaches beyond its storage")
    return StoredTensor(storage, offset if math.prod(shape) else 0, shape, strides)


def _found(root: Any) -> dict[str, StoredTensor]:
    """The mapping of names to tensors, at the top or one level below."""
    candidates = [root]
    if isinstance(root, dict):
        candidates += [root[key] for key in _WRAPPERS if key in root]
    for value in candidates:
        if isinstance(value, dict) and value:
            tensors = all(isinstance(v, StoredTensor) for v in value.values())
            if tensors and all(isinstance(k, str) for k in value):
                return dict(value)
    keys = [_shown(str(key)) for key in list(root)[:8]] if isinstance(root, dict) else []
    raise _refuse(
        "it is no mapping from names to tensors" + (f"; it holds {', '.join(keys)}" if keys else "")
    )


def _check(
    tensors: dict[str, StoredTensor], records: dict[str, tuple[int, int]], limits: Limits
) -> None:
    if len(tensors) > limits.stored_tensors:
        raise SecateurError(
            "model_too_large",
            f"The file has {len(tensors)} tensors; the limit is {limits.stored_tensors}.",
        )
    numbers = 0
    for name, tensor in tensors.items():
        storage = tensor.storage
        held = records.get(storage.record)
        if held is None or held[1] != storage.numbers * tensor.dtype.itemsize:
            raise _refuse(f"the bytes of {_shown(name)!r} are not those it declares", name)
        numbers += math.prod(tensor.shape)
        if numbers > limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The tensors hold more than {limits.parameters} numbers.",
                where=_shown(name),
            )


def _no_archive(head: bytes) -> SecateurError:
    if head.startswith(_LEGACY[:4]):
        return _unsupported(
            "a file of torch.save from before version 1.6",
            "Load it on your own machine and save it again: "
            "torch.save(torch.load(old, weights_only=True), 'model.pt').",
        )
    if head.startswith(b"\x80"):
        return _unsupported("a pickle")
    return _refuse("it is no archive of torch.save")


def _unsupported(what: str, hint: str = _SAVE) -> SecateurError:
    return SecateurError(
        "unsupported_format", f"The file is {what}, which is not read here.", hint=hint
    )


def _refuse(reason: str, where: str | None = None) -> SecateurError:
    return SecateurError(
        "model_unreadable",
        f"The state dict can't be read: {reason}.",
        where=where and _shown(where),
        hint=_SAVE,
    )


def _shown(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 80 else clean[:77] + "..."

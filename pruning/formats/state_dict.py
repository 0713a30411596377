"""State dicts of torch.save: read, converted to safetensors, and written back. Torch-free.

The pickle inside is never unpickled, not even by torch.load(weights_only=True). A machine of our
own follows its opcodes, of which it knows those that a state dict needs, and builds a plain
description: which tensor lies where in which storage. Anything else is refused by name.
"""

import json
import math
import re
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pruning.data.archive import open_zip
from pruning.errors import SecateurError
from pruning.formats import safetensors
from pruning.formats.limits import Limits
from pruning.formats.state_pickle import SAVE, Storage, StoredTensor, described, refuse, shown

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_MEMBER = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id"
    r"|data/[0-9]{1,9}"
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ALIGNMENT = 64
_BLOCK = 1 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
           ValueError)  # fmt: skip


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

    def _view(self, storage: Storage) -> np.ndarray:
        start, size = self.records[storage.record]
        dtype = safetensors.DTYPES[storage.kind]
        if not size:
            return np.zeros(0, dtype)
        part = np.asarray(np.memmap(self.path, np.uint8, "r", start, size))
        return (part.copy() if start % dtype.itemsize else part).view(dtype)


def is_state_dict(path: Path) -> bool:
    """Whether a file is a zip archive as torch.save writes it, by the names of its members."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False  # a .tar whose last member is one ends like a zip archive
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
                    where="data.pkl", hint=SAVE,
                )  # fmt: skip
    except _DAMAGE as error:
        raise refuse(f"the archive is damaged ({shown(str(error))})") from None
    state = StateDict(path, {}, records)
    if "byteorder" in records and state.member("byteorder") != b"little":
        raise refuse("its numbers are not little-endian")
    root = described(state.member("data.pkl"))
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
                raise refuse(f"the member {shown(info.orig_filename)!r} belongs to no state dict")
            if name in found:
                raise refuse(f"two members are called {shown(name)}")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                raise refuse(f"{name} is packed or encrypted")
            if info.compress_size != info.file_size:
                raise refuse(f"{name} has two sizes")
            file.seek(info.header_offset)
            local = file.read(30)
            length = int.from_bytes(local[26:28], "little")
            start = info.header_offset + 30 + length + int.from_bytes(local[28:30], "little")
            if file.read(length) != info.orig_filename.encode():
                raise refuse(f"{name} is called otherwise at its own place")
            if info.header_offset < end:
                raise refuse(f"{name} lies over another member")
            end = start + info.file_size
            if end > total:
                raise refuse(f"the file ends inside {name}")
            found[name] = (start, info.file_size)
            with archive.open(info) as member:  # reading to the end compares the checksum
                while member.read(_BLOCK):
                    pass
    if "data.pkl" not in found:
        raise refuse("it holds no data.pkl")
    return found


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
    keys = [shown(str(key)) for key in list(root)[:8]] if isinstance(root, dict) else []
    raise refuse(
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
            raise refuse(f"the bytes of {shown(name)!r} are not those it declares", name)
        numbers += math.prod(tensor.shape)
        if numbers > limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The tensors hold more than {limits.parameters} numbers.",
                where=shown(name),
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
    return refuse("it is no archive of torch.save")


def _unsupported(what: str, hint: str = SAVE) -> SecateurError:
    return SecateurError(
        "unsupported_format", f"The file is {what}, which is not read here.", hint=hint
    )

"""Hostile state dicts: no opcode of theirs does anything, and none costs time or memory."""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

Refused = Callable[..., dict[str, Any]]

ARCHITECTURE = {
    "format": "secateur-architecture",
    "version": 1,
    "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "node": "y"}],
    "layers": {"l": {"kind": "Linear", "args": {"in_features": 4, "out_features": 4}}},
    "graph": [{"name": "y", "op": "layer", "target": "l", "args": {"input": {"node": "x"}}}],
}
ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    raw = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", count: int = 16, kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    shape: tuple[int, ...] = (4, 4),
    strides: tuple[int, ...] = (4, 1),
    offset: int = 0,
    held: bytes | None = None,
    hooks: bytes = ORDERED,
) -> bytes:
    where = storage() if held is None else held
    parts = [where, number(offset), sizes(*shape), sizes(*strides), b"\x89", hooks]
    return REBUILD + b"(" + b"".join(parts) + b"tR"


def state(weight: bytes, bias: bytes | None = None) -> bytes:
    bias = tensor((4,), (1,)) if bias is None else bias
    items = text("l.weight") + weight + text("l.bias") + bias
    return b"\x80\x02" + ORDERED + b"(" + items + b"u."


def upload(
    folder: Path, raw: bytes, records: dict[str, bytes] | None = None, deflated: bool = False
) -> Path:
    members = {"data.pkl": raw, "byteorder": b"little", "data/0": bytes(64), "version": b"3\n"}
    path = placed(folder)
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in (members | (records or {})).items():
            archive.writestr(f"model/{name}", data)
    return folder


def placed(folder: Path) -> Path:
    folder.mkdir()
    (folder / "architecture.json").write_text(json.dumps(ARCHITECTURE))
    return folder / "model.pt"


class Reduced:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class Own:
    def __getnewargs_ex__(self) -> Any:
        return (), {"x": 1}


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles that make the marker when they are loaded, or would let one that does."""
    command = f"touch {marker}"
    system = b"cposix\nsystem\n"
    call = text(command) + b"\x85R"
    nested = pickle.dumps(Reduced(os.system, (command,)), 2)
    return {
        "reduce": nested,
        "reduce beside tensors": state(system + call),
        "stack global": pickle.dumps(Reduced(exec, (f"open({str(marker)!r}, 'w')",)), 4),
        "inst": b"(S" + repr(command).encode() + b"\nios\nsystem\n.",
        "obj": b"(" + system + text(command) + b"o.",
        "setstate": b"\x80\x02" + ORDERED + b"}" + text("__setstate__") + system + b"sb.",
        "build of a class": b"\x80\x02ctorch\nFloatStorage\n}" + text("f") + system + b"sb.",
        "extension": b"\x80\x02\x82\x01.",
        "newobj": b"\x80\x02cos\n_wrap_close\n)\x81.",
        "newobj ex": pickle.dumps(Own(), 4),
        "persistent id": state(tensor(held=storage(kind=system))),
        "persistent id as text": b"\x80\x02P0\n.",
        "persistent module": b"(" + text("module") + system + text("x") * 3 + b"tQ.",
        "storage key": state(tensor(held=storage("../../0"))),
        "rebuild with a callable": b"ctorch._utils\n_rebuild_parameter\n(" + system + b"\x89"
        + ORDERED + b"tR.",
        "rebuild from type": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + system
        + b"ctorch\nTensor\n(" + text(command) + b"t}tR.",
        "rebuild as a function": state(REBUILD + b"(" + system + b"tR"),
        "hooks": state(tensor(hooks=ORDERED + text("h") + system + b"s")),
        "torchscript": b"ctorch.jit._pickle\nrestore_type_tag\n(" + text(command) + b"tR.",
        "getattr": b"c__builtin__\ngetattr\n(" + system + text("__call__") + b"tR.",
        "module attribute": b"ctorch\nserialization.os.system\n" + call + b".",
        "call of a text": text("posix.system") + call + b".",
        "call of a result": b"\x80\x02" + ORDERED + call + b".",
        "numpy": b"cnumpy.core.multiarray\n_reconstruct\n" + call + b".",
    }  # fmt: skip


@pytest.mark.parametrize("name", attacks(Path("/")))
def test_no_pickle_runs(name: str, tmp_path: Path, refused: Refused) -> None:
    marker = tmp_path / "ran"
    said = refused("model", upload(tmp_path / "m", attacks(marker)[name]), marker)
    assert said["code"] in ("model_unreadable", "model_invalid")


@pytest.mark.parametrize("name", ["reduce", "stack global", "inst"])
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(attacks(marker)[name])
    assert marker.exists()


def test_a_pickle_in_a_tensors_bytes_stays_bytes(tmp_path: Path, refused: Refused) -> None:
    marker = tmp_path / "ran"
    nested = attacks(marker)["reduce"].ljust(64, b".")
    weights = np.frombuffer(nested[: len(nested) // 4 * 4], np.float32)
    path = upload(
        tmp_path / "m",
        state(tensor(held=storage(count=weights.size))),
        {"data/0": weights.tobytes(), "data.pkl2": nested},
    )
    refused("model", path, marker)


MALFORMED: dict[str, bytes] = {
    "no end": state(tensor())[:-1],
    "empty": b"",
    "no stack": b"\x80\x02.",
    "tuple without values": b"\x87.",
    "items without a mark": b"\x80\x02}u.",
    "items into a list": b"\x80\x02](" + text("a") + number(1) + b"u.",
    "memo that is not there": b"h\x05.",
    "text beyond the end": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "number of many digits": b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"\x01.",
    "key that is a tensor": b"\x80\x02}" + tensor() + number(1) + b"s.",
    "only numbers": b"\x80\x02}" + text("epoch") + number(3) + b"s.",
    "shape of terabytes": state(tensor((2**40, 4), (4, 1))),
    "one number seen as many": state(tensor((2**30, 2**30), (0, 0))),
    "numbers over each other": state(tensor((4, 4), (1, 1))),
    "negative size": state(tensor((-4, 4), (4, 1))),
    "negative offset": state(tensor(offset=-1)),
    "offset beyond": state(tensor(offset=1)),
    "more sizes than steps": state(tensor((4, 4), (4,))),
    "many axes": state(tensor((1,) * 40, (1,) * 40)),
    "storage that is shorter": state(tensor(held=storage(count=15))),
    "storage that is longer": state(tensor(held=storage(count=2**40))),
    "storage that is missing": state(tensor(held=storage("7"))),
    "storage of complex numbers": state(
        tensor(held=storage(kind=b"ctorch\nComplexFloatStorage\n"))),
    "mapping inside itself": b"\x80\x02}q\x00" + text("a") + b"h\x00s.",
    "deep": b"\x80\x02" + b")" + b"\x85" * 300_000 + b".",
    "lists that double": b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 60 + b".",
    "an opcode of no state dict": b"\x80\x02N0.",
    "many marks": b"\x80\x02" + b"(" * 700_000 + b".",
    "many numbers": b"\x80\x02(" + b"K\x01" * 1_000_000 + b"t.",
    "long": b"\x80\x02" + b"N" * (5 << 20) + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_pickles_are_refused(name: str, tmp_path: Path, refused: Refused) -> None:
    refused("model", upload(tmp_path / "m", MALFORMED[name]))


def duplicate(folder: Path) -> None:
    path = placed(folder)
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("model/data.pkl", state(tensor()))
        archive.writestr("model/data/0", bytes(64))


def bomb(folder: Path) -> None:
    upload(folder, state(tensor()), {"data/0": bytes(64 << 20)}, deflated=True)


def traversal(folder: Path) -> None:
    upload(folder, state(tensor()), {"../../../etc/passwd": b"x"})


def stranger(folder: Path) -> None:
    upload(folder, state(tensor()), {"code/__torch__.py": b"import os"})


def checksum(folder: Path) -> None:
    upload(folder, state(tensor()), {"data/0": bytes(range(64))})
    path = folder / "model.pt"
    path.write_bytes(path.read_bytes().replace(bytes(range(64)), bytes(range(1, 65))))


def big_endian(folder: Path) -> None:
    upload(folder, state(tensor()), {"byteorder": b"big"})


def overlap(folder: Path) -> None:
    """Two members whose directory entries lead to one place."""
    upload(folder, state(tensor()))
    path = folder / "model.pt"
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02") + 4)
    raw[entry + 42 : entry + 46] = bytes(4)
    path.write_bytes(raw)


def other_name(folder: Path) -> None:
    """A member whose own header calls it something else than the directory does."""
    upload(folder, state(tensor()))
    path = folder / "model.pt"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"model/data/0", b"model/data/9", 1))


def truncated(folder: Path) -> None:
    upload(folder, state(tensor()))
    path = folder / "model.pt"
    path.write_bytes(path.read_bytes()[:-40])


def nothing(folder: Path) -> None:
    placed(folder).write_bytes(b"")


def no_pickle(folder: Path) -> None:
    with zipfile.ZipFile(placed(folder), "w") as archive:
        archive.writestr("model/version", b"3")


def whole_module(folder: Path) -> None:
    torch.save(nn.Linear(4, 4), placed(folder))


def torchscript(folder: Path) -> None:
    torch.jit.script(nn.Linear(4, 4)).save(placed(folder))


def legacy(folder: Path) -> None:
    torch.save(nn.Linear(4, 4).state_dict(), placed(folder), _use_new_zipfile_serialization=False)


def plain_pickle(folder: Path) -> None:
    placed(folder).write_bytes(pickle.dumps({"l.weight": [1.0]}))


def infinite(folder: Path) -> None:
    upload(folder, state(tensor()), {"data/0": np.full(16, np.inf, np.float32).tobytes()})


ARCHIVES = [
    duplicate, bomb, traversal, stranger, checksum, big_endian, overlap, other_name, truncated,
    nothing, no_pickle, whole_module, torchscript, legacy, plain_pickle, infinite,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ARCHIVES)
def test_hostile_archives_are_refused(
    make: Callable[[Path], None], tmp_path: Path, refused: Refused
) -> None:
    make(tmp_path / "m")
    refused("model", tmp_path / "m")


def test_the_same_archive_without_malice_is_read(
    tmp_path: Path, intake: Callable[[str, Path], dict[str, Any]]
) -> None:
    said = intake("model", upload(tmp_path / "m", state(tensor())))
    assert said["crash"] is None
    assert said["code"] is None, said

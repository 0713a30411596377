"""The sparse file: bit for bit, canonical, no larger than said, closed to what it can't be."""

import hashlib
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from pruning.errors import SecateurError
from pruning.formats import containers, sparse
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.formats.sparse import choice, nm, types
from pruning.formats.sparse.nm import Pattern
from tests.security import samples

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool", "c8", "bf16"]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def contents(path: Path) -> dict[str, Any]:
    """What the metadata say of each tensor."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"].keys() == {"secateur"}
    return {t["name"]: t for t in json.loads(header["__metadata__"]["secateur"])["tensors"]}


def refusal(read: Callable[[Path], Any], path: Path) -> str | None:
    """The code of the error, if there is one."""
    try:
        read(path)
    except SecateurError as error:
        return error.code
    return None


def thin(shape: tuple[int, ...], kept: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < kept, rng.standard_normal(shape), 0).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [samples.onnx, samples.pt2, samples.huggingface, samples.architecture, samples.state_dict],
    ids=lambda make: make.__name__,
)
def test_a_pruned_model_of_every_format_comes_back_with_the_same_digests(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    imported = read_model(make(tmp_path / "upload"), Limits())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in imported.module.parameters():
            if parameter.ndim > 1:
                parameter[torch.rand(parameter.shape, generator=generator) < 0.9] = 0
    (tmp_path / "model").mkdir()
    files = imported.write(tmp_path / "model", "net")
    again = read_model(tmp_path / "model" if len(files) > 1 else files[0], Limits())
    sparse.pack(files, again.tensors(), tmp_path / "s")

    restored = sparse.unpack(tmp_path / "s", tmp_path / "restored")
    assert len(restored) == len(files)
    assert digests(tmp_path / "restored") == digests(tmp_path / "model")
    held = {n: a for n, a in again.tensors().items() if containers.can_hold(a.dtype)}
    found = sparse.read(tmp_path / "s")
    assert list(found) == sorted(held)
    assert all(same_bits(found[name], np.asarray(held[name])) for name in held)
    large = [t for n, t in contents(tmp_path / "s").items() if found[n].size >= 64]
    assert large
    assert all("at" in t or t["codec"] == "same" for t in large)


def test_the_file_is_smaller_than_the_model_where_most_weights_are_zero(tmp_path: Path) -> None:
    tensors = {f"layer{i}": thin((64, 64), 0.1, i) for i in range(4)}
    save_file(tensors, tmp_path / "m.safetensors")
    sparse.pack([tmp_path / "m.safetensors"], tensors, tmp_path / "s")
    assert (tmp_path / "s").stat().st_size < 0.2 * (tmp_path / "m.safetensors").stat().st_size
    assert load_file(tmp_path / "s").keys() == {
        "rest.0",
        *(f"{role}.{i}" for role in ("mask", "values") for i in range(4)),
    }


def test_each_tensor_takes_the_codec_that_stores_it_in_the_fewest_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((16, 32, 3, 3), dtype=np.float32)
    pairs.reshape(16, 8, 4, 9)[:, :, :2] = 0  # two of each four input channels
    tensors = {
        "full": rng.standard_normal((64, 64), dtype=np.float32),
        "half": thin((64, 64), 0.5),
        "few": thin((64, 2048), 0.005),
        "none": np.zeros((1024, 1024), np.float32),
        "pairs": pairs,
        "one of sixteen": np.eye(16, dtype=np.float32).repeat(16, 0) * 3,
    }
    sparse.pack([], tensors, tmp_path / "s")
    found = contents(tmp_path / "s")
    assert {name: t["codec"] for name, t in found.items()} == {
        "full": "dense",
        "half": "bitmask",
        "few": "csr",
        "none": "csr",
        "pairs": "nm",
        "one of sixteen": "nm",
    }
    assert [found["pairs"][k] for k in ("n", "m", "axis")] == [2, 4, 1]
    assert [found["one of sixteen"][k] for k in ("n", "m")] == [1, 16]
    members = load_file(tmp_path / "s")
    i = sorted(tensors).index("pairs")
    assert members[f"values.{i}"].size == pairs.size // 2
    assert members[f"picks.{i}"].size == pairs.size // 2 * 2 // 8
    assert members[f"columns.{sorted(tensors).index('few')}"].dtype == np.uint16
    read = sparse.read(tmp_path / "s")
    assert all(same_bits(read[name], tensors[name]) for name in tensors)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every type from raw bit patterns (so NaN payloads and -0.0 occur), part zeroed."""
    kind = draw(st.sampled_from(DTYPES))
    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bf16" else np.dtype(kind)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=24))
    size = math.prod(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    raw = (raw % 2 if kind == "bool" else raw).view(dtype)
    raw[rng.random(size) < draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))] = 0
    m = draw(st.sampled_from([0, 2, 4, 6, 16]))
    if m and size and size % m == 0:
        raw.reshape(-1, m)[:, draw(st.integers(1, m - 1)) :] = 0
    return raw.reshape(shape)


@settings(max_examples=70, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=6)
        | st.sampled_from(["a", "mask.0", "values.1", "rest.0", "__metadata__"]),
        arrays(),
        max_size=5,
    ),
    junk=st.lists(st.binary(max_size=40), min_size=6, max_size=6),
)
def test_files_and_tensors_come_back_bit_for_bit_however_they_lie(
    tensors: dict[str, np.ndarray], junk: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    parts = [a.tobytes() for a in tensors.values()]
    whole = b"".join(x for pair in zip(junk, [*parts, *[b""] * 6], strict=False) for x in pair)
    (folder / "in").mkdir()
    (folder / "in" / "one").write_bytes(whole)
    (folder / "in" / "empty").write_bytes(b"")
    files = [folder / "in" / "one", folder / "in" / "empty"]
    sparse.pack(files, tensors, folder / "s")
    restored = sparse.unpack(folder / "s", folder / "out")
    assert [path.name for path in restored] == ["empty", "one"]
    assert digests(folder / "out") == digests(folder / "in")
    found = sparse.read(folder / "s")
    assert list(found) == sorted(tensors)
    assert all(same_bits(found[name], tensors[name]) for name in tensors)
    sparse.pack(files[::-1], dict(reversed(tensors.items())), folder / "again")
    assert (folder / "again").read_bytes() == (folder / "s").read_bytes()


@settings(max_examples=60, deadline=None)
@given(array=arrays(), placed=st.booleans())
def test_a_tensor_never_takes_more_than_the_bytes_it_was_priced_at(
    array: np.ndarray, placed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("price")
    name = "n" * choice.NAME_BYTES
    (folder / "m").write_bytes(b"head" + array.tobytes() if placed else b"head")
    sparse.pack([folder / "m"], {name: array}, folder / "with")
    (folder / "m").write_bytes(b"head")
    sparse.pack([folder / "m"], {}, folder / "without")
    taken = (folder / "with").stat().st_size - (folder / "without").stat().st_size
    kept = int((array.reshape(-1).view(f"u{array.dtype.itemsize}") != 0).sum())
    for more in (kept, min(kept + 3, array.size)):
        bound = sparse.stored_bytes(more, array.shape[::-1], array.dtype.itemsize)
        assert taken <= bound + 8  # the header is padded to eight bytes
        assert bound <= array.nbytes + 1000


def test_two_of_four_are_priced_below_a_bound_that_knows_no_pattern(tmp_path: Path) -> None:
    shape = (64, 64, 3, 3)
    array = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    for i in range(3):
        array[:, i::4] = 0
    sparse.pack([], {"x": array}, tmp_path / "s")
    kept = array.size // 4
    bound = sparse.stored_bytes(kept, shape, 4, (1, 4))
    assert (tmp_path / "s").stat().st_size < bound + choice.FILE_BYTES
    assert bound < sparse.stored_bytes(kept, shape, 4)
    assert sparse.stored_bytes(kept, (63, 65), 4, (1, 4)) == sparse.stored_bytes(kept, (63, 65), 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kept", [1 / 1000, 1 / 8, 1 / 4])
def test_negative_zero_and_nan_payloads_survive_every_codec(
    tmp_path: Path, dtype: type, kept: float
) -> None:
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    x = np.zeros((40, 400), dtype)
    x.reshape(-1)[:: int(1 / kept)] = -0.0
    x.view(unsigned)[0, [0, 4]] = np.array([np.nan, -np.nan], dtype).view(unsigned) | 0x2A
    sparse.pack([], {"x": x}, tmp_path / "s")
    assert contents(tmp_path / "s")["x"]["codec"] != "dense"
    assert same_bits(sparse.read(tmp_path / "s")["x"], x)


def test_tied_tensors_are_stored_once_and_equal_ones_each_in_their_place(tmp_path: Path) -> None:
    x = thin((64, 64), 0.2)
    (tmp_path / "m").write_bytes(b"12345" + x.tobytes() + b"67" + x.tobytes())
    tensors = {"a": x, "b": x.copy(), "tied": x.copy(), "none": np.ones(64, np.float32)}
    sparse.pack([tmp_path / "m"], tensors, tmp_path / "s")
    found = contents(tmp_path / "s")
    assert [found[n].get("at") for n in ("a", "b", "tied", "none")] == [5, 5 + x.nbytes + 2] + [
        None
    ] * 2
    assert found["tied"]["codec"] == "same"
    read = sparse.read(tmp_path / "s")
    assert all(same_bits(read[name], tensors[name]) for name in tensors)
    assert (tmp_path / "s").stat().st_size < x.nbytes
    assert (
        sparse.unpack(tmp_path / "s", tmp_path / "o")[0].read_bytes()
        == (tmp_path / "m").read_bytes()
    )


def test_a_layer_that_is_all_zero_is_found_and_its_neighbours_keep_their_places(
    tmp_path: Path,
) -> None:
    tensors = {
        "a": thin((50, 50), 1.0),
        "dead": np.zeros((50, 50), np.float32),
        "z": thin((9, 9), 1),
    }
    save_file(tensors, tmp_path / "m")
    sparse.pack([tmp_path / "m"], tensors, tmp_path / "s")
    found = contents(tmp_path / "s")
    assert found["dead"]["codec"] == "csr"
    assert all("at" in t for t in found.values())
    assert (tmp_path / "s").stat().st_size < 13_000
    assert (
        sparse.unpack(tmp_path / "s", tmp_path / "o")[0].read_bytes()
        == (tmp_path / "m").read_bytes()
    )


def test_files_in_folders_keep_their_folders_and_links_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.json").write_text("{}")
    (tmp_path / "in" / "sub" / "a.json").write_text("[]")
    sparse.pack(
        [tmp_path / "in" / "sub" / "a.json", tmp_path / "in" / "a.json"], {}, tmp_path / "s"
    )
    sparse.unpack(tmp_path / "s", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "in")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecateurError, match="outside"):
        sparse.unpack(tmp_path / "s", tmp_path / "linked")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_files_of_the_earlier_format_are_still_read(tmp_path: Path) -> None:
    x = thin((40, 50), 0.1)
    members = {
        "x#mask": np.packbits(x.reshape(-1) != 0, bitorder="little"),
        "x#values": x[x != 0],
        "y#mask#dense": np.arange(3),
    }
    metadata = {"format": "bitmask", "version": 1, "shapes": {"x": [40, 50]}}
    containers.write(tmp_path / "f", members, metadata)
    found = sparse.read(tmp_path / "f")
    assert same_bits(found["x"], x)
    assert same_bits(found["y#mask"], np.arange(3))
    with pytest.raises(SecateurError, match="no files"):
        sparse.unpack(tmp_path / "f", tmp_path / "o")
    containers.write(tmp_path / "f", members, metadata | {"shapes": {"x": [40, 2**30]}})
    with pytest.raises(SecateurError, match="does not fit"):
        sparse.read(tmp_path / "f")


def test_the_types_are_those_of_the_other_containers() -> None:
    assert types.ITEMSIZE.keys() == set(types.NAMES.values())
    for kind, name in types.NAMES.items():
        dtype = types.numpy_type(name)
        assert (dtype.name, dtype.itemsize) == (kind, types.ITEMSIZE[name])
        assert containers.can_hold(dtype)
    assert not containers.can_hold(np.dtype("complex128"))
    assert "complex128" not in types.NAMES


def test_tensors_of_types_that_safetensors_lacks_stay_in_the_files(tmp_path: Path) -> None:
    x = np.arange(50, dtype=np.complex128)
    (tmp_path / "m").write_bytes(x.tobytes())
    sparse.pack([tmp_path / "m"], {"x": x}, tmp_path / "s")
    assert sparse.read(tmp_path / "s") == {}
    assert sparse.unpack(tmp_path / "s", tmp_path / "o")[0].read_bytes() == x.tobytes()


# Each takes a valid file's metadata and members and makes of them what `pack` never writes.
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def _tensor(index: int, **fields: Any) -> Change:
    return lambda meta, _: meta["tensors"][index].update(fields)


def _file(**fields: Any) -> Change:
    return lambda meta, _: meta["files"][0].update(fields)


def _member(name: str, value: Any) -> Change:
    def change(_: dict[str, Any], members: dict[str, np.ndarray]) -> None:
        members[name] = value(members[name]) if callable(value) else value

    return change


def _without(name: str) -> Change:
    return lambda _, members: members.__delitem__(name) if name in members else None


def _set(index: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = value
        return array

    return change


def _both(*changes: Change) -> Change:
    def change(meta: dict[str, Any], members: dict[str, np.ndarray]) -> None:
        for one in changes:
            one(meta, members)

    return change


ZEROS = np.zeros(0, np.float32)
# 0 bits: bitmask (mask.0), 1 few: csr, 2 loose: dense, 3 pairs: nm, 4 plain: dense in its place
HOSTILE: dict[str, Change] = {
    "another format": lambda meta, _: meta.update(format="masks"),
    "another version": lambda meta, _: meta.update(version=2),
    "no files": lambda meta, _: meta.pop("files"),
    "files are a number": lambda meta, _: meta.update(files=3),
    "tensors are text": lambda meta, _: meta.update(tensors="abc"),
    "a tensor without a name": lambda meta, _: meta["tensors"][0].pop("name"),
    "two of a name": _tensor(0, name="few"),
    "a type that is none": _tensor(0, dtype="F128"),
    "a type that is a list": _tensor(0, dtype=["F32"]),
    "a shape of a petabyte": _tensor(0, shape=[2**30, 2**20]),
    "a plain shape of a petabyte": _tensor(4, shape=[2**30, 2**20]),
    "a loose shape of a petabyte": _tensor(2, shape=[2**30, 2**20]),
    "a negative shape": _tensor(0, shape=[-40, -50]),
    "a shape of truth": _tensor(0, shape=[True, 2000]),
    "forty dimensions": _tensor(4, shape=[1] * 40),
    "a codec that is none": _tensor(0, codec="zip"),
    "csr for a bitmask": _tensor(0, codec="csr"),
    "rows of a petabyte for nothing": _both(
        _tensor(1, shape=[1, 2**30], file=None),
        _member("rows.1", np.zeros(2, np.uint8)),
        _member("columns.1", np.zeros(0, np.uint32)),
        _member("values.1", ZEROS),
    ),
    "rows that fall": _member("rows.1", _set(3, 255)),
    "rows that begin late": _member("rows.1", _set(0, 1)),
    "rows that end early": _member("rows.1", _set(-1, 0)),
    "a column outside": _member("columns.1", _set(0, 65535)),
    "a column twice": _member("columns.1", lambda a: np.full_like(a, a[0])),
    "a mask that is short": _member("mask.0", lambda a: a[:-1]),
    "more bits than values": _member("mask.0", lambda a: a | 1),
    "bits past the end": _member("mask.0", lambda a: _set(-1, int(a[-1]) | 0x80)(a)),
    "too many values": _member("values.0", lambda a: np.append(a, a[:1])),
    "values of another type": _member("values.0", lambda a: a.view(np.int32)),
    "no values": _without("values.0"),
    "no mask": _without("mask.0"),
    "picks in falling order": _member("picks.3", lambda a: np.zeros_like(a)),
    "picks that are short": _member("picks.3", lambda a: a[:-1]),
    "n over m": _tensor(3, n=4),
    "an axis outside": _tensor(3, axis=2),
    "m that does not divide": _tensor(3, m=7),
    "an n of zero": _tensor(3, n=0),
    "m of a thousand": _tensor(3, m=1000),
    "an offset below zero": _tensor(0, at=-1),
    "an offset past the file": _tensor(0, at=10**9),
    "an offset that is text": _tensor(0, at="3"),
    "one over the other": lambda meta, _: meta["tensors"][4].update(at=meta["tensors"][0]["at"]),
    "a file that is not there": _tensor(0, file=1),
    "a file below zero": _tensor(4, file=-1),
    "the same as itself": _tensor(4, **{"codec": "same", "as": 4}),
    "the same as none": _tensor(4, **{"codec": "same", "as": 99}),
    "no rest": _without("rest.0"),
    "less rest": _member("rest.0", lambda a: a[:-1]),
    "a rest of floats": _member("rest.0", lambda a: a[: len(a) // 4 * 4].view(np.float32)),
    "a member too many": _member("mask.9", np.zeros(3, np.uint8)),
    "a file of a petabyte": _file(bytes=2**50),
    "a digest that is none": _file(sha256="../../x"),
    **{
        f"the name {name!r}": _file(name=name)
        for name in ("", ".", "..", "../x", "a/../../x", "/x", "a//b", "c:x", "a\\b", "x\0", "a/")
    },
    "a name that is none": _file(name=None),
    "two files of a name": lambda meta, members: (
        meta["files"].append(meta["files"][0] | {"name": "M"}),
        members.update({"rest.1": members["rest.0"]}),
    ),
}  # fmt: skip


def valid(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], Path]:
    """A file with a tensor of each codec, as metadata and members."""
    pairs = np.random.default_rng(1).standard_normal((20, 16), dtype=np.float32)
    pairs[:, ::4] = pairs[:, 1::4] = 0
    tensors = {
        "bits": thin((27, 77), 0.3),
        "few": thin((30, 300), 0.01),
        "loose": np.arange(5.0),
        "pairs": pairs,
        "plain": thin((7, 9), 1),
    }
    model = folder / "m"
    model.write_bytes(b"head" + b"|".join(t.tobytes() for n, t in tensors.items() if n != "loose"))
    sparse.pack([model], tensors, folder / "s")
    data = (folder / "s").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["secateur"]), load_file(folder / "s"), folder / "s"


def test_what_is_made_of_a_valid_file_without_a_change_is_the_file(tmp_path: Path) -> None:
    metadata, members, path = valid(tmp_path)
    codecs = [t["codec"] for t in metadata["tensors"]]
    assert codecs == ["bitmask", "csr", "dense", "nm", "dense"]
    containers.write(tmp_path / "f", members, metadata)
    assert (tmp_path / "f").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_it_can_not_have_written_is_refused_by_both_readers(
    tmp_path: Path, change: Change
) -> None:
    metadata, members, path = valid(tmp_path)
    change(metadata, members)
    containers.write(path, members, metadata)
    for read in (sparse.read, lambda p: sparse.unpack(p, tmp_path / "o")):
        with pytest.raises(SecateurError) as refused:
            read(path)
        assert refused.value.code == "unsupported_format"
    assert {p.name for p in tmp_path.iterdir()} <= {"m", "s", "o"}
    assert not list((tmp_path / "o").rglob("*"))


def test_changed_bytes_restore_no_file(tmp_path: Path) -> None:
    metadata, members, path = valid(tmp_path)
    members["values.0"][3] += 1
    containers.write(path, members, metadata)
    with pytest.raises(SecateurError, match="other bytes"):
        sparse.unpack(path, tmp_path / "o")
    assert not list((tmp_path / "o").iterdir())


def test_bytes_that_are_no_such_file_are_refused(tmp_path: Path) -> None:
    _, _, path = valid(tmp_path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    deep = b"[" * 200_000
    many = b'{"__metadata__":' + b"[{}," * 4_000_000
    cases = [b"", whole[:5], whole[:-1], whole + b"\0", b"\xff" * 64, whole[: 8 + length // 2]]
    cases += [len(x).to_bytes(8, "little") + x + b"  " for x in (deep, many, b"{}", b"[1]")]
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(SecateurError) as refused:
            sparse.read(path)
        assert refused.value.code == "unsupported_format"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_header_with_any_byte_changed_reads_or_is_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    _, _, path = valid(folder)
    whole = bytearray(path.read_bytes())
    length = int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, 8 + length - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    for read in (sparse.read, lambda p: sparse.unpack(p, folder / "o")):
        assert refusal(read, path) in (None, "unsupported_format")


def test_a_pattern_is_seen_along_the_axis_that_keeps_to_it() -> None:
    x = np.zeros((8, 6), np.bool_)
    x[::4] = x[1::4] = True
    assert nm.holds(x, Pattern(2, 4, 0))
    assert not nm.holds(x, Pattern(1, 4, 0))
    assert not nm.holds(x, Pattern(2, 3, 1))


def test_a_compressed_archive_stays_as_it_is(tmp_path: Path) -> None:
    x = thin((64, 64), 0.2)
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", x.tobytes())
    sparse.pack([tmp_path / "m.zip"], {"x": x}, tmp_path / "s")
    assert "at" not in contents(tmp_path / "s")["x"]
    assert digests(sparse.unpack(tmp_path / "s", tmp_path / "o")[0].parent) == {
        "m.zip": hashlib.sha256((tmp_path / "m.zip").read_bytes()).hexdigest()
    }
    assert same_bits(sparse.read(tmp_path / "s")["x"], x)

"""The bitmask file: bit for bit, canonical, and closed to what it can't have written."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from pruning.errors import SecateurError
from pruning.formats import bitmask, containers

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool", "bf16"]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every type from raw bit patterns (so NaN payloads and -0.0 occur), part zeroed."""
    kind = draw(st.sampled_from(DTYPES))
    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bf16" else np.dtype(kind)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12))
    size = math.prod(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    raw = (raw % 2 if kind == "bool" else raw).view(dtype)
    raw[rng.random(size) < draw(st.sampled_from([0.0, 0.5, 0.97, 1.0]))] = 0
    return raw.reshape(shape)


names = st.text(
    st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=6
) | st.sampled_from(["a", "a#mask", "a#values", "a#dense", "a#mask#dense", "__metadata__"])


@settings(max_examples=150, deadline=None)
@given(tensors=st.dictionaries(names, arrays(), max_size=5))
def test_round_trip_restores_every_bit(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("bitmask") / "x.safetensors"
    bitmask.encode(tensors, path)
    restored = bitmask.decode(path)
    assert list(restored) == sorted(tensors)
    assert all(same_bits(restored[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_negative_zero_and_nan_payloads_survive_coding(tmp_path, dtype):
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    x = np.zeros(2000, dtype)
    x[3] = -0.0
    x.view(unsigned)[[5, 6]] = np.array([np.nan, -np.nan], dtype).view(unsigned) | 0x2A
    bitmask.encode({"x": x}, tmp_path / "f")
    assert "x#mask" in load_file(tmp_path / "f")
    assert same_bits(bitmask.decode(tmp_path / "f")["x"], x)


def test_a_sparse_tensor_is_coded_and_a_full_one_stays_dense(tmp_path):
    rng = np.random.default_rng(0)
    full = rng.standard_normal((64, 64), dtype=np.float32)
    sparse = np.where(rng.random((64, 64)) < 0.9, np.float32(0), full)
    bitmask.encode({"full": full, "sparse": sparse}, tmp_path / "f")
    members = load_file(tmp_path / "f")
    assert members.keys() == {"full", "sparse#mask", "sparse#values"}
    assert members["sparse#values"].size == np.count_nonzero(sparse)
    assert members["sparse#mask"].nbytes == 64 * 64 // 8


def test_bytes_depend_neither_on_order_nor_on_memory_layout(tmp_path):
    rng = np.random.default_rng(0)
    a = np.where(rng.random((40, 30)) < 0.8, 0, rng.standard_normal((40, 30)))
    b = np.arange(7)
    bitmask.encode({"a": a, "b": b}, tmp_path / "1")
    bitmask.encode({"b": b, "a": np.asfortranarray(a).astype(">f8")}, tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_members_are_aligned_and_there_is_one_metadata_key(tmp_path):
    tensors = {"z": np.ones(3, np.float64), "a": np.ones(3, np.int8), "m": np.ones(1, np.float16)}
    bitmask.encode(tensors, tmp_path / "f")
    data = (tmp_path / "f").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__").keys() == {"secateur"}
    for name, entry in header.items():
        assert entry["data_offsets"][0] % tensors[name].dtype.itemsize == 0


def broken_files(tmp_path):
    mask = np.packbits(np.arange(2000) == 7, bitorder="little")
    one = np.ones(1, np.float32)
    good = {"format": "bitmask", "version": 1, "shapes": {"x": [2000]}}
    beyond = mask.copy()
    beyond[-1] |= 0x80
    cases = {
        "other format": ({"x": one}, {**good, "format": "masks"}),
        "other version": ({"x": one}, {**good, "version": 2}),
        "no shapes": ({"x": one}, {"format": "bitmask", "version": 1}),
        "no values": ({"x#mask": mask}, good),
        "orphan": ({"x#mask": mask, "x#values": one, "y#mask": mask}, good),
        "too many values": ({"x#mask": mask, "x#values": np.ones(2, np.float32)}, good),
        "huge shape": ({"x#mask": mask, "x#values": one}, {**good, "shapes": {"x": [2**30] * 4}}),
        "negative": ({"x#mask": mask, "x#values": one}, {**good, "shapes": {"x": [-2000]}}),
        "empty": ({"x#mask": mask[:0], "x#values": one[:0]}, {**good, "shapes": {"x": [0, 3]}}),
        "bits past the end": (
            {"x#mask": beyond, "x#values": np.ones(2, np.float32)},
            {**good, "shapes": {"x": [1999]}},
        ),
    }
    for name, (tensors, metadata) in cases.items():
        containers.write(tmp_path / name, tensors, metadata)
        yield tmp_path / name
    bitmask.encode({"x": np.arange(50.0)}, tmp_path / "cut")
    whole = (tmp_path / "cut").read_bytes()
    for i, data in enumerate([b"", whole[:5], whole[:-1], whole + b"\0", b"\xff" * 64]):
        (tmp_path / f"bytes{i}").write_bytes(data)
        yield tmp_path / f"bytes{i}"


def test_files_that_it_did_not_write_are_refused(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(SecateurError) as refused:
            bitmask.decode(path)
        assert refused.value.code == "unsupported_format", path.name


def test_types_that_safetensors_lacks_are_refused_by_name(tmp_path):
    assert not containers.can_hold(np.dtype("complex128"))
    with pytest.raises(ValueError, match="complex128"):
        bitmask.encode({"x": np.ones(2, np.complex128)}, tmp_path / "f")

"""safetensors: read within budgets, and written back with nothing but numbers changed."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.safetensors import Arrays, read_header, rewrite


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list, start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refusal(path: Path, limits: Limits | None = None) -> SecateurError:
    with pytest.raises(SecateurError) as caught:
        read_header(path, limits or Limits())
    return caught.value


def test_arrays_are_what_the_library_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "b": rng.integers(0, 9, 5),
        "c": np.zeros((0, 3), np.float16),
        "d": np.array(True),
        "odd": rng.integers(0, 255, 7).astype(np.uint8),
    }
    save_file(arrays, tmp_path / "x", metadata={"format": "np"})
    header = read_header(tmp_path / "x", Limits())
    found = Arrays(tmp_path / "x", header)
    assert header.metadata == {"format": "np"}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_bfloat16_is_read(tmp_path: Path) -> None:
    value = torch.randn(4, 4).bfloat16()
    save_torch({"w": value}, tmp_path / "x")
    found = Arrays(tmp_path / "x", read_header(tmp_path / "x", Limits()))["w"]
    assert found.dtype == ml_dtypes.bfloat16
    assert np.array_equal(found.astype(np.float32), value.float().numpy())


def test_rewriting_changes_the_numbers_and_nothing_else(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}
    save_file(arrays, tmp_path / "x", metadata={"who": "me"})
    new = np.zeros((2, 3), np.float32)
    rewrite(tmp_path / "x", tmp_path / "y", {"a": new}, Limits())
    assert np.array_equal(load_file(tmp_path / "y")["a"], new)
    assert np.array_equal(load_file(tmp_path / "y")["b"], arrays["b"])
    rewrite(tmp_path / "y", tmp_path / "z", {"a": arrays["a"]}, Limits())
    assert (tmp_path / "z").read_bytes() == (tmp_path / "x").read_bytes()
    with pytest.raises(ValueError, match="a:"):
        rewrite(tmp_path / "x", tmp_path / "w", {"a": new.astype(np.float16)}, Limits())


@pytest.mark.parametrize(
    ("header", "data", "code", "said"),
    [
        ([], b"", "model_unreadable", "no JSON object"),
        (b"{ ", b"", "model_unreadable", "not valid JSON"),
        (b'{"a":' * 5000, b"", "model_unreadable", "not valid JSON"),
        ({"a": 1}, b"", "model_unreadable", "is not one"),
        ({"a": {**entry([1], 0, 4), "x": 1}}, b"1234", "model_unreadable", "is not one"),
        ({"a": entry([1], 0, 4, "F7")}, b"1234", "model_unreadable", "type F7"),
        ({"a": entry([-1], 0, 4)}, b"1234", "model_unreadable", "no valid shape"),
        ({"a": entry([True], 0, 4)}, b"1234", "model_unreadable", "no valid shape"),
        ({"a": entry([1.0], 0, 4)}, b"1234", "model_unreadable", "no valid shape"),
        ({"a": entry([1] * 40, 0, 4)}, b"1234", "model_unreadable", "no valid shape"),
        ({"a": entry([1], 4, 0)}, b"1234", "model_unreadable", "no valid offsets"),
        ({"a": entry([2], 0, 4)}, b"1234", "model_unreadable", "do not fit its shape"),
        ({"a": entry([1], 4, 8)}, b"12345678", "model_unreadable", "overlap or leave a gap"),
        (
            {"a": entry([1], 0, 4), "b": entry([1], 2, 6)},
            b"123456",
            "model_unreadable",
            "overlap or leave a gap",
        ),
        ({"a": entry([1], 0, 4)}, b"12345", "model_unreadable", "follow the last"),
        ({"a": entry([2], 0, 8)}, b"1234", "model_truncated", "the file has"),
        ({"": entry([1], 0, 4)}, b"1234", "model_unreadable", "name"),
        ({"__metadata__": {"a": 1}}, b"", "model_unreadable", "metadata"),
        (
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"1234",
            "model_unreadable",
            "given twice",
        ),
        (
            {"a": entry([2**40, 2**20], 0, 2**62)},
            b"",
            "model_unreadable",
            "no valid offsets",
        ),
    ],
)
def test_a_header_that_lies_is_refused(
    tmp_path: Path, header: object, data: bytes, code: str, said: str
) -> None:
    error = refusal(raw(tmp_path / "x", header, data))
    assert error.code == code
    assert said in error.message


def test_budgets_hold_before_anything_is_allocated(tmp_path: Path) -> None:
    assert refusal(raw(tmp_path / "x", b"{}", length=2**60)).code == "model_too_large"
    assert refusal(raw(tmp_path / "x", b"{}", length=500)).code == "model_truncated"
    many = {f"t{i}": entry([0], 0, 0) for i in range(11)}
    assert refusal(raw(tmp_path / "x", many), Limits(stored_tensors=10)).code == "model_too_large"
    big = {"a": entry([1000], 0, 4000)}
    assert refusal(raw(tmp_path / "x", big), Limits(parameters=999)).code == "model_too_large"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_and_never_crashes(tmp_path_factory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("n") / "x"
    path.write_bytes(noise)
    try:
        read_header(path, Limits())
    except SecateurError:
        return
    length = int.from_bytes(noise[:8], "little")
    assert json.loads(noise[8 : 8 + length]) is not None

import contextlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pruning.data.npz import read_npz
from pruning.errors import SecateurError
from pruning.formats.intake import check_dataset, check_model
from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import cnn, mlp

torch.set_num_threads(1)


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.ones((4, 3), np.float32), target=np.arange(4))
    return file.getvalue()


def torch_checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(2)}, file)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"content")
    return file.getvalue()


OTHERS = {
    "empty": (b"", "an empty file"),
    "text": (b"hello, world\n" * 20, "a text file"),
    "json": (json.dumps({"a": 1}).encode(), "JSON"),
    "html": (b"<!doctype html><p>404</p>", "HTML"),
    "pickle": (pickle.dumps({"a": [1, 2]}), "pickle"),
    "checkpoint": (torch_checkpoint(), "PyTorch checkpoint"),
    "safetensors": ((8).to_bytes(8, "little") + b'{"a":{}}', "safetensors"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "npy": (b"\x93NUMPY\x01\0" + bytes(100), ".npy"),
    "zip of onnx": (zipped("model.onnx"), "an ONNX"),
    "zip": (zipped("a.txt"), "a zip archive"),
    "noise": (bytes(np.random.default_rng(0).integers(128, 256, 500, np.uint8)), "unknown kind"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("check", [check_model, check_dataset])
def test_other_files_are_named_and_the_accepted_format_too(tmp_path, kind, check):
    data, name = OTHERS[kind]
    path = tmp_path / "upload"
    path.write_bytes(data)
    if check is check_dataset and kind == "json":
        assert check(path).format == "jsonl"
        return
    with pytest.raises(SecateurError) as caught:
        check(path)
    if check is check_dataset and kind == "safetensors":
        assert caught.value.code == "data_unreadable"
        return
    assert caught.value.code == "unsupported_format"
    assert name in caught.value.message
    assert (".onnx" if check is check_model else ".npz") in caught.value.message
    assert caught.value.hint


def test_each_format_is_recognised_by_content_whatever_its_name(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(cnn().SerializeToString())
    assert check_model(path).format == "onnx"
    with pytest.raises(SecateurError, match="looks like an ONNX file"):
        check_dataset(path)
    path.write_bytes(npz_bytes())
    assert check_dataset(path).format == "npz"
    with pytest.raises(SecateurError, match="archive of plain arrays"):
        check_model(path)


def test_a_truncated_model_file_says_so(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(cnn().SerializeToString()[:-200])
    with pytest.raises(SecateurError) as caught:
        check_model(path)
    assert caught.value.code == "model_truncated"


MODEL = mlp().SerializeToString()
ARCHIVE = npz_bytes()


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """The data cut, or with some bytes changed, removed or put in."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(result) - 1)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "drop"]))
        if kind == "set" and result:
            result[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del result[at:]
        elif kind == "insert":
            result[at:at] = draw(st.binary(max_size=6))
        else:
            del result[at : at + draw(st.integers(1, 6))]
    return bytes(result)


SHORT = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SHORT
@given(damaged(MODEL))
def test_a_damaged_model_is_read_or_refused(data):
    with contextlib.suppress(SecateurError):
        read_onnx(data)


@SHORT
@given(damaged(ARCHIVE))
def test_a_damaged_archive_is_read_or_refused(tmp_path, data):
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with contextlib.suppress(SecateurError):
        read_npz(path)

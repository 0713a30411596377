import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from pruning.data.kinds import check_dataset, load_dataset
from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from tests.pruning.data.models import model

X = np.random.default_rng(0).standard_normal((600, 700)).astype(np.float32)
T = np.arange(600) % 7
INPUT = {"x": ("float32", ["n", 700])}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def refused(call, code, text=""):
    with pytest.raises(SecateurError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)


def test_arrays_come_back_as_saved(path):
    save_file({"x": X, "target": T}, path)
    found = check_dataset(path)
    assert (found.format, found.samples, found.bytes) == ("safetensors", 600, X.nbytes + T.nbytes)
    assert [(a.name, a.dtype, a.shape) for a in found.arrays] == [("x", "float32", [600, 700])]
    assert found.target.classes == 7
    data = load_dataset(path, model(INPUT))
    np.testing.assert_array_equal(data.inputs["x"].numpy(), X)
    assert data.target.tolist() == T.tolist()


def test_bfloat16_is_computed_in_float32(path):
    half = torch.from_numpy(X).bfloat16()
    save_torch({"x": half}, path)
    assert check_dataset(path).arrays[0].dtype == "bfloat16"
    assert torch.equal(load_dataset(path, model(INPUT)).inputs["x"], half.float())
    half[3, 5] = float("nan")
    save_torch({"x": half}, path)
    refused(lambda: check_dataset(path), "data_non_finite", "'x'")


def test_what_is_no_dataset(path):
    save_file({"x": X, "target": T[:5]}, path)
    refused(lambda: check_dataset(path), "data_shape", "target 5")
    save_file({"target": T}, path)
    refused(lambda: check_dataset(path), "data_empty", "no array")
    save_file({}, path)
    refused(lambda: check_dataset(path), "data_empty")
    save_file({"x": X[:0]}, path)
    refused(lambda: check_dataset(path), "data_empty")
    save_file({"x": np.ones((), np.float32)}, path)
    refused(lambda: check_dataset(path), "data_shape", "0 dimensions")
    save_file({"x": X, "target": T - 3}, path)
    refused(lambda: check_dataset(path), "target_invalid", "-3")
    save_file({"y": X}, path)
    refused(lambda: load_dataset(path, model(INPUT)), "data_names", "'y'")


def test_limits(path):
    save_file({"x": X, "y": X, "target": T}, path)
    refused(lambda: check_dataset(path, Limits(arrays=2)), "data_too_large")
    refused(lambda: check_dataset(path, Limits(unpacked_bytes=X.nbytes)), "data_too_large")
    refused(lambda: check_dataset(path, Limits(data_bytes=99)), "data_too_large")
    # The limit on a model's numbers is not one on data.
    assert check_dataset(path, Limits(parameters=1))

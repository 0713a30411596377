"""Samples as callers have them: converted as files are, and said, or refused."""

import numpy as np
import pytest
import torch
from torch import nn

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, codes, pair

torch.set_num_threads(1)


def reference(x, y):
    return prune(Net(), (x, y), MAGNITUDE).report.loss


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", ">f8"])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_floats_of_any_type_are_converted_to_the_module_s_and_it_is_said(kind, as_tensor):
    x, y = pair()
    array = x.numpy().astype(kind)
    given = torch.as_tensor(array) if as_tensor and kind != ">f8" else array
    outcome = prune(Net(), (given, y.numpy()), MAGNITUDE)
    assert outcome.report.loss == reference(torch.as_tensor(array.astype("float32")), y)
    converted = np.dtype(kind) != np.float32
    assert codes(outcome) == (["data_converted"] if converted else [])
    if converted:
        (told,) = outcome.report.warnings
        assert f"input from {np.dtype(kind).name} to float32" in told.message


def test_float32_data_for_a_float64_module_are_widened():
    x, y = pair()
    outcome = prune(Net().double(), (x, y), MAGNITUDE)
    assert outcome.report.loss == prune(Net().double(), (x.double(), y), MAGNITUDE).report.loss
    assert codes(outcome) == ["data_converted"]


def test_real_valued_labels_become_the_module_s_type():
    x, _ = pair()
    targets = np.random.default_rng(0).standard_normal((60, 3))
    spec = {**MAGNITUDE, "objective": {"loss": "mse"}}
    outcome = prune(Net(), (x, targets), spec)
    single = prune(Net(), (x, torch.as_tensor(targets).float()), spec)
    assert outcome.report.loss == single.report.loss
    assert "target from float64 to float32" in outcome.report.warnings[0].message


def test_arrays_of_numpy_are_taken_whatever_their_memory():
    x, y = pair()
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    for array in (frozen, np.asfortranarray(x.numpy()), x.numpy()[::-1][::-1]):
        assert prune(Net(), (array, y), MAGNITUDE).report.loss == reference(x, y)


def test_all_roles_may_hold_numpy_arrays_and_stay_one_object():
    x, y = pair()
    part = ArrayData({"x": x.numpy().astype("float64")}, y.numpy())
    outcome = prune(Net(), Data(part, part, part), MAGNITUDE)
    assert outcome.report.data.training.source == "calibration"
    pairs = Data((x, y), (x, y), (x, y))
    assert prune(Net(), pairs, MAGNITUDE).report.loss == outcome.report.loss


def test_inputs_in_a_graph_or_made_in_inference_mode_are_taken_as_numbers():
    x, y = pair()
    with torch.inference_mode():
        inferred = x * 1.0
    spec = {**MAGNITUDE, "criterion": {"kind": "obd"}}
    wanted = prune(Net(), (x, y), spec).report.loss
    for given in (inferred, x.clone().requires_grad_(), x.clone().requires_grad_() * 1.0):
        assert prune(Net(), (given, y), spec).report.loss == wanted


class Frame:
    def to_numpy(self):
        raise AssertionError


X, Y = pair()
LOADER = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=10)
NAN = X.clone()
NAN[3, 2] = float("nan")
REFUSED = {
    "frame": ((Frame(), Y), "data_dtype", "to_numpy"),
    "list of tensors": (([X, X], Y), "data_dtype", "tensor, ...}"),
    "numbers": ((X, Y.tolist()), "data_dtype", "as_tensor"),
    "loader": (LOADER, "data_unreadable", "torch.cat"),
    "path": ("data.npz", "data_unreadable", "secateur prune"),
    "names": ((X, np.array(["a", "b"] * 30)), "data_dtype", "number the classes"),
    "objects": ((np.array([None] * 60), Y), "data_dtype", "numbers"),
    "masked": ((np.ma.masked_invalid(X.numpy()), Y), "data_dtype", "Fill"),
    "sparse": ((X.to_sparse(), Y), "data_dtype", "dense"),
    "meta": ((X.to("meta"), Y), "data_dtype", "dense"),
    "complex labels": ((X, Y * 1j), "data_dtype", "real"),
    "nan": ((NAN, Y), "data_non_finite", "repair"),
    "infinite as float32": ((X.double() * 1e300, Y), "data_non_finite", "repair"),
    "labels short": ((X, Y[:50]), "data_shape", "same number"),
    "labels for none": ((X[:0], Y[:0]), "data_empty", "sample"),
    "one sample": ((X[:1], Y[:1]), "data_empty", "two samples"),
    "columns of labels": ((X, Y[:, None]), "target_invalid", "integer"),
    "real classes": ((X, Y.double()), "target_invalid", "integer"),
    "inputs alone": (X, "labels_missing", "match_dense"),
    "mapping alone": ({"x": X}, "labels_missing", "match_dense"),
    "no data": (None, "data_unreadable", "inputs, labels"),
    "scalar": ((torch.tensor(1.0), Y), "data_empty", "sample"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_with_a_hint(name):
    data, code, hint = REFUSED[name]
    with pytest.raises(SecateurError) as caught:
        prune(Net(), data, MAGNITUDE)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_roles_with_other_inputs_are_refused():
    a, b = ArrayData({"x": X}, Y), ArrayData({"z": X}, Y)
    with pytest.raises(SecateurError, match="data_names"):
        prune(Net(), Data(a, a, b), MAGNITUDE)
    with pytest.raises(SecateurError, match="labels_missing"):
        prune(Net(), Data(a, a, ArrayData({"x": X})), MAGNITUDE)


def test_tokens_of_any_integer_type_are_left_as_they_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3))
    tokens = torch.randint(9, (40, 2))
    for given in (tokens, tokens.int(), tokens.numpy().astype("int32")):
        assert prune(net, (given, Y[:40]), MAGNITUDE).report.sparsity.removed == 12
    with pytest.raises(SecateurError, match="module_failed"):
        prune(net, (tokens.double(), Y[:40]), MAGNITUDE)


def test_inputs_take_the_type_of_the_parameters_whatever_buffers_have():
    net = Net()
    net.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
    assert prune(net, (X.double(), Y), MAGNITUDE).report.loss == reference(X, Y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArrayData(X, Y),
        lambda: ArrayData({"x": X.tolist()}, Y),
        lambda: ArrayData({"x": X}, Y.tolist()),
        lambda: ArrayData({"x": None}, Y),
    ],
)
def test_array_data_of_other_things_are_refused_where_they_are_made(make):
    with pytest.raises(SecateurError) as caught:
        make()
    assert caught.value.code in ("data_dtype", "data_empty")
    assert caught.value.hint

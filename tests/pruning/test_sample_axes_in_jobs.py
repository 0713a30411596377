"""Jobs on models whose inputs have the samples elsewhere than first, or share one value."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor, nn

import pruning
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.request import FileRef, RunRequest
from pruning.run import run
from tests.pruning.formats.onnx_cases import Net, ints

torch.set_num_threads(1)
SPEC = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.0},
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}
RANDOM = np.random.default_rng(0)


def real(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


X, Y = real(40, 5, 6), RANDOM.integers(0, 3, 40)


def lstm(shape: list, states: bool = False) -> ModelProto:
    net = Net()
    names = ["x", net.weight("w", 1, 32, 6), net.weight("r", 1, 32, 8), net.weight("b", 1, 64)]
    names += ["", "h0", "c0"] if states else []
    net.nodes.append(helper.make_node("LSTM", names, ["", "h", ""], hidden_size=8))
    net.op("Squeeze", ["h", net.const("axis", ints(0))], "hs")
    net.op("MatMul", ["hs", net.weight("fc", 8, 3)], "y")
    state = [1, shape[1], 8]
    return net.model({"x": shape} | ({"h0": state, "c0": state} if states else {}), ["y"])


def scaled(shape: list) -> ModelProto:
    net = Net()
    net.op("MatMul", ["x", net.weight("w", 6, 3)], "m")
    net.op("Mul", ["m", "scale"], "y")
    return net.model({"x": ["n", 6], "scale": (TensorProto.FLOAT, shape)}, ["y"])


def job(folder: Path, model: ModelProto, arrays: dict, spec: dict | None = None) -> dict[str, Any]:
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "d.npz", **arrays)
    request = RunRequest(
        model=FileRef(path="m.onnx", name="m.onnx"),
        data={"calibration": FileRef(path="d.npz", name="d.npz")},
        spec=SPEC | (spec or {}),
    )
    run(request, folder, clean=False)
    return json.loads((folder / "out/report.json").read_text())


def refused(code: str, folder: Path, *given: Any) -> SecateurError:
    with pytest.raises(SecateurError) as caught:
        job(folder, *given)
    assert caught.value.code == code, caught.value
    return caught.value


def right(model: ModelProto, feed: dict[str, np.ndarray], labels: np.ndarray) -> float:
    session = ort.InferenceSession(model.SerializeToString())
    scores = session.run(None, {k: np.ascontiguousarray(v) for k, v in feed.items()})[0]
    return nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)).item()


def calibration() -> np.ndarray:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    return order[8:].sort().values.numpy()


@pytest.mark.parametrize("shape", [[5, "batch", 6], ["a0", "a1", 6]])
def test_steps_before_samples_give_the_loss_that_the_runtime_gives(shape, tmp_path):
    some = calibration()
    report = job(tmp_path, lstm(shape), {"x": X, "target": Y})
    wanted = right(lstm(shape), {"x": X[some].swapaxes(0, 1)}, Y[some])
    assert report["loss"]["dense"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_a_fixed_number_of_samples_behind_the_steps_is_kept_to(size, tmp_path):
    some = calibration()
    report = job(tmp_path, lstm([5, size, 6]), {"x": X, "target": Y})
    wanted = right(lstm([5, "batch", 6]), {"x": X[some].swapaxes(0, 1)}, Y[some])
    assert report["loss"]["dense"] == pytest.approx(wanted, abs=1e-5)
    assert report["latency"]["batch"] == size


def test_states_come_with_the_samples_first_and_are_moved(tmp_path):
    some, h, c = calibration(), real(40, 1, 8), real(40, 1, 8)
    model = lstm([5, "batch", 6], states=True)
    report = job(tmp_path, model, {"x": X, "h0": h, "c0": c, "target": Y})
    feed = {"x": X[some], "h0": h[some], "c0": c[some]}
    wanted = right(model, {k: v.swapaxes(0, 1) for k, v in feed.items()}, Y[some])
    assert report["loss"]["dense"] == pytest.approx(wanted, abs=1e-5)


def test_what_data_lack_or_have_in_another_order_is_told_with_the_shape(tmp_path):
    model = lstm([5, "batch", 6], states=True)
    error = refused("data_names", tmp_path, model, {"x": X, "target": Y})
    assert "'h0' [N, 1, 8] float32" in str(error.hint)
    error = refused("data_shape", tmp_path, lstm([5, "batch", 6]), {"x": real(5, 40, 6)})
    assert "numpy.moveaxis(array, 1, 0)" in str(error.hint)


def test_a_wrong_name_is_refused_and_a_declaration_puts_it_right(tmp_path):
    model, some = lstm(["batch", 4, 6]), calibration()
    refused("sample_axis_unknown", tmp_path, model, {"x": X, "target": Y})
    report = job(tmp_path, model, {"x": X, "target": Y}, {"inputs": {"x": {"samples": 1}}})
    wanted = right(lstm([5, "batch", 6]), {"x": X[some].swapaxes(0, 1)}, Y[some])
    assert report["loss"]["dense"] == pytest.approx(wanted, abs=1e-5)
    assert report["spec"]["inputs"] == {"x": {"samples": 1}}


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ([], np.float32(2)),
        ([], np.full(40, 2, np.float32)),
        ([1], np.float32(2)),
        ([3], np.tile(np.float32([2, 2, 2]), (40, 1))),
    ],
)
@pytest.mark.parametrize("criterion", ["magnitude", "obs"])
def test_a_value_that_samples_share_is_given_once_or_for_each(shape, value, criterion, tmp_path):
    some, x = calibration(), real(40, 6)
    spec = {"criterion": {"kind": criterion}, "target": {"sparsity": 0.2}}
    report = job(tmp_path, scaled(shape), {"x": x, "scale": value, "target": Y}, spec)
    feed = {"x": x[some], "scale": np.full(shape, 2, np.float32)}
    assert report["loss"]["dense"] == pytest.approx(right(scaled(shape), feed, Y[some]), abs=1e-5)


def test_values_that_differ_where_the_model_takes_one_are_refused(tmp_path):
    arrays = {"x": real(40, 6), "scale": real(40), "target": Y}
    error = refused("data_shape", tmp_path, scaled([]), arrays)
    assert error.where == "data.calibration.scale"


def centred() -> ModelProto:
    net = Net()
    net.op("ReduceMean", ["x"], "m", axes=[0])
    net.op("Sub", ["x", "m"], "d")
    net.op("MatMul", ["d", net.weight("w", 6, 3)], "y")
    return net.model({"x": ["batch", 6]}, ["y"])


def test_a_network_that_compares_samples_is_refused_or_warned_of(tmp_path):
    arrays = {"x": real(40, 6), "target": Y}
    refused("sample_axis_unknown", tmp_path, centred(), arrays)
    report = job(tmp_path, centred(), arrays, {"inputs": {"x": {"samples": 0}}})
    assert "samples_mixed" in [warning["code"] for warning in report["warnings"]]


@pytest.mark.parametrize("loudest", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_file_of_one_sample_may_leave_its_axis_out_of_the_result(outputs, loudest, tmp_path):
    net, name = Net(), "x"
    if loudest:  # so that it can't run batched in memory
        net.op("ReduceMax", ["x"], "most", keepdims=0)
        name = net.op("Sub", ["x", "most"], "d")
    net.op("MatMul", [name, net.weight("w", 6, outputs)], "m")
    net.op("Squeeze", ["m"], "y")
    model, x = net.model({"x": [1, 6]}, ["y"]), real(40, 6)
    session = ort.InferenceSession(model.SerializeToString())
    some = calibration()
    got = np.stack([session.run(None, {"x": x[n : n + 1]})[0] for n in some])
    wanted = real(40, *got.shape[1:])
    spec = {"objective": {"loss": "mse"}}
    report = job(tmp_path, model, {"x": x, "target": wanted}, spec)
    error = ((got - wanted[some]) ** 2).reshape(len(some), -1).mean(1).mean()
    assert report["loss"]["dense"] == pytest.approx(error, rel=1e-4)
    assert {c["name"]: c["status"] for c in report["checks"]}["onnxruntime_outputs"] == "pass"


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.fc = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class SamplesFirst(Last):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class Centred(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


def in_memory(module: nn.Module, x: Tensor, **spec: Any) -> pruning.Outcome:
    labels = torch.randn(len(x), 5, 3, generator=torch.Generator().manual_seed(1))
    return pruning.prune(
        module, ArrayData({"x": x}, labels), SPEC | {"objective": {"loss": "mse"}} | spec
    )


def test_a_module_that_reads_samples_as_steps_is_refused_until_the_axis_is_declared():
    x = torch.from_numpy(X)
    with pytest.raises(SecateurError) as caught:
        in_memory(Last(), x)
    assert caught.value.code == "samples_mixed"
    assert "inputs: {x: {samples: 1}}" in str(caught.value.hint)
    outcome = in_memory(Last(), x, inputs={"x": {"samples": 1}})
    assert "samples_mixed" not in [w.code for w in outcome.report.warnings]
    assert outcome.report.loss.dense == in_memory(SamplesFirst(), x).report.loss.dense
    # It takes what it took before.
    assert outcome.module(x.transpose(0, 1)).shape == (5, 40, 3)


def test_normalisation_in_evaluation_mode_mixes_nothing():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    data = (torch.from_numpy(real(40, 6)), torch.from_numpy(Y))
    assert pruning.prune(net, data, SPEC).report.loss.dense > 0


def test_a_module_that_compares_samples_is_refused_and_warned_of_once_declared():
    net, data = Centred(6, 3), (torch.from_numpy(real(40, 6)), torch.from_numpy(Y))
    with pytest.raises(SecateurError, match="depends on the other samples"):
        pruning.prune(net, data, SPEC)
    spec = SPEC | {"inputs": {"input": {"samples": 0}}}
    report = pruning.prune(net, data, spec).report
    assert "samples_mixed" in [warning.code for warning in report.warnings]


@pytest.mark.parametrize("name", ["X", "inputs"])
def test_a_declaration_for_no_input_of_a_module_is_refused(name):
    net = nn.Sequential(nn.Linear(6, 3))
    data = (torch.from_numpy(real(40, 6)), torch.from_numpy(Y))
    with pytest.raises(SecateurError) as caught:
        pruning.prune(net, data, SPEC | {"inputs": {name: {"samples": 0}}})
    assert (caught.value.code, caught.value.where) == ("spec_invalid", f"spec.inputs.{name}")

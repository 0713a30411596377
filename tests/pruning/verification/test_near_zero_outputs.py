"""Networks whose outputs are all next to nothing: rounding there is no fault, a wrong weight is.

A text detector ends in a sigmoid map that is 1e-6 where there is no text. onnxruntime's Sigmoid is
off by 1.6e-7 whatever its result, so that a tenth of such a map is rounding.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from pruning.errors import SecateurError
from pruning.request import FileRef, RunRequest
from pruning.run import hand_over, run_kind
from pruning.spec import default_spec
from pruning.verification.sigmoids import by_exponentials
from tests.pruning.formats.onnx_cases import Net
from tests.pruning.verification.conftest import QUIET, Half

torch.set_num_threads(1)


def detector(offset: float = -15.0, last: str = "Sigmoid") -> onnx.ModelProto:
    """Hard-swish as PaddlePaddle writes it, squeeze and excite, nearest upsampling, a map."""
    net = Net(7)

    def conv(x: str, name: str, out: int, inside: int, **more: object) -> str:
        weight = net.weight(f"{name}.w", out, inside, 3, 3)
        return net.op("Conv", [x, weight, net.weight(f"{name}.b", out)], name, pads=[1] * 4, **more)

    def swish(x: str) -> str:
        net.op("Add", [x, "three"], f"{x}/3")
        net.op("Clip", [f"{x}/3", "zero", "six"], f"{x}/6")
        net.op("Mul", [x, f"{x}/6"], f"{x}/m")
        return net.op("Div", [f"{x}/m", "six"], f"{x}/s")

    for name, value in (("three", 3), ("zero", 0), ("six", 6)):
        net.const(name, np.float32(value))
    a = swish(conv("x", "c1", 8, 3, strides=[2, 2]))
    b = swish(conv(a, "c2", 8, 8, strides=[2, 2]))
    net.op("GlobalAveragePool", [b], "pooled")
    net.op("Conv", ["pooled", net.weight("se.w", 8, 8, 1, 1)], "se")
    net.op("HardSigmoid", ["se"], "gate", alpha=0.2, beta=0.5)
    net.op("Mul", [b, "gate"], "excited")
    net.op("Resize", ["excited", "", net.const("up", np.array([1, 1, 2, 2], np.float32))], "large",
           mode="nearest", nearest_mode="floor",
           coordinate_transformation_mode="asymmetric")  # fmt: skip
    net.op("Add", ["large", a], "joined")
    net.op("ConvTranspose", ["joined", net.weight("t.w", 8, 4, 2, 2)], "wide", strides=[2, 2])
    net.op("Relu", ["wide"], "r")
    net.op("Conv", ["r", net.weight("map.w", 1, 4, 1, 1, scale=0.05),
                    net.const("map.b", np.array([offset], np.float32))], "logits")  # fmt: skip
    if last == "Silu":
        net.op("Sigmoid", ["logits"], "gated")
        net.op("Mul", ["logits", "gated"], "y")
    else:
        net.op(last, ["logits"], "y")
    return net.model({"x": ["n", 3, 16, 16]}, ["y"], 13)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 16, 16)).astype(np.float32)


def written(model: onnx.ModelProto, folder: Path) -> Half:
    """A job whose first half is done."""
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", x=images(24))
    request = RunRequest(
        model=FileRef(path=str(folder / "m.onnx"), name="m.onnx", sha256="0" * 64),
        data={"calibration": FileRef(path=str(folder / "d.npz"), name="d.npz")},
        spec=default_spec(labelled=False)
        | {"target": {"sparsity": 0.6}, "trust": QUIET, "outputs": ["native"]},
    )
    result = run_kind(request, folder)
    return Half(folder / "aside", hand_over(request, result, folder, folder / "aside"))


def checks(half: Half) -> dict[str, dict]:
    half.verify()
    return {check["name"]: check for check in half.report()["checks"]}


@pytest.mark.parametrize("last", ["Sigmoid", "Silu"])
@pytest.mark.parametrize("offset", [-15.0, -30.0])
def test_a_detector_whose_map_is_next_to_nothing_passes_its_own_check(tmp_path, offset, last):
    found = checks(written(detector(offset, last), tmp_path))
    outputs = found["onnxruntime_outputs"]
    assert (outputs["status"], outputs["threshold"]) == ("pass", 1e-4)
    assert outputs["value"] < 1e-5
    assert "onnxruntime's own Sigmoid is off by 1.6e-7" in outputs["message"]
    assert found["onnxruntime_cosine"]["value"] < 1e-5


@pytest.mark.parametrize("last", ["Sigmoid", "Relu", "Tanh"])
def test_outputs_that_are_larger_are_compared_as_the_runtime_gives_them(tmp_path, last):
    found = checks(written(detector(0.0, last), tmp_path))
    assert found["onnxruntime_outputs"]["status"] == "pass"
    assert "own Sigmoid" not in found["onnxruntime_outputs"]["message"]


def largest_weight_a_thousandth_off(arrays: dict[str, np.ndarray]) -> None:
    weights = arrays["map.w"]
    weights.flat[np.abs(weights).argmax()] *= 1.001


def bias_moved(arrays: dict[str, np.ndarray]) -> None:
    arrays["map.b"] += 1e-3


def first_weight_flipped(arrays: dict[str, np.ndarray]) -> None:
    weights = arrays["c1.w"]
    weights.flat[np.abs(weights).argmax()] *= -1


@pytest.mark.parametrize("offset", [-15.0, -30.0])
@pytest.mark.parametrize(
    "change", [largest_weight_a_thousandth_off, bias_moved, first_weight_flipped]
)
def test_a_wrong_weight_shows_however_small_the_outputs_are(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None], offset: float
):
    half = written(detector(offset), tmp_path)
    model = onnx.load(half.path("m.onnx"))
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    change(arrays)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    onnx.save(model, half.path("m.onnx"))
    half.sign()
    with pytest.raises(SecateurError) as caught:
        half.verify()
    assert (caught.value.code, caught.value.where) == ("verification_failed", "onnxruntime_outputs")


def test_sigmoids_by_exponentials_keep_seven_digits_at_any_size():
    net = Net()
    net.op("Sigmoid", ["x"], "y")
    model = net.model({"x": ["n"]}, ["y"])
    x = np.linspace(-80, 40, 20_001, dtype=np.float32)
    truth = 1 / (1 + np.exp(-x.astype(np.float64)))

    def gap(proto: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        return float((np.abs(session.run(None, {"x": x})[0] - truth) / truth).max())

    assert gap(by_exponentials(model)) < 1e-6
    assert gap(model) > 0.1  # or nothing of this is needed any more

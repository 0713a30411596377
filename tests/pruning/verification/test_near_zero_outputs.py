"""Networks whose outputs are all next to nothing: a runtime's rounding there is no fault.

A text detector ends in a sigmoid map that is 1e-6 where there is no text. onnxruntime computes a
sigmoid to some units in the last place of 1, so that a hundredth of such a map is rounding.
"""

import json

import numpy as np
import onnx
import pytest
import torch

from pruning.data.batches import ArrayData
from pruning.formats.onnx import read_onnx
from pruning.request import FileRef, RunRequest
from pruning.run import run
from pruning.spec import default_spec
from pruning.verification.inference import UNIT_ROUNDING, Engine
from tests.pruning.formats.onnx_cases import Net

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
    net.op(last, ["logits"], "y")
    return net.model({"x": ["n", 3, 16, 16]}, ["y"], 13)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 16, 16)).astype(np.float32)


def checks(model: onnx.ModelProto, folder) -> dict[str, dict]:
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "d.npz", x=images(24))
    spec = default_spec(labelled=False) | {"target": {"sparsity": 0.6}}
    run(
        RunRequest(
            model=FileRef(path="m.onnx", name="m.onnx", sha256="0" * 64),
            data={"calibration": FileRef(path="d.npz", name="d.npz")},
            spec=spec,
        ),
        folder,
        clean=False,
    )
    report = json.loads((folder / "out" / "report.json").read_text())
    return {check["name"]: check for check in report["checks"]}


@pytest.mark.parametrize("offset", [-15.0, -30.0, 0.0])
def test_a_detector_whose_map_is_next_to_nothing_passes_its_own_check(tmp_path, offset):
    found = checks(detector(offset), tmp_path)
    assert found["onnxruntime_outputs"]["status"] == "pass"
    if offset == 0.0:
        assert found["onnxruntime_outputs"]["threshold"] == 1e-4
    if offset == -15.0:
        assert found["onnxruntime_outputs"]["value"] > 1e-4


def test_only_functions_computed_in_units_of_one_are_allowed_rounding_of_one():
    def rounding(last: str) -> float:
        imported = read_onnx(detector(last=last).SerializeToString())
        return Engine(imported, 1).rounding(ArrayData({"x": torch.from_numpy(images(4))}))

    assert rounding("Sigmoid") == UNIT_ROUNDING
    assert rounding("Relu") == 0.0

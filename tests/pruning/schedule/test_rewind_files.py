"""A run on files whose schedule starts from an earlier checkpoint, itself a file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pruning.errors import SecateurError
from pruning.request import FileRef, RunRequest
from pruning.run import run_kind

SPEC = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.5},
    "schedule": {"kind": "at_initialisation"},
    "recovery": {
        "kind": "fine_tune",
        "epochs": 1,
        "optimizer": {"kind": "sgd", "lr": 1e-30, "momentum": 0.0},
    },
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}


def write(path: Path, seed: int, width: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = (("fc1.weight", (width, 6)), ("fc2.weight", (3, width)))
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight"], ["a"], transB=1),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "fc2.weight"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return arrays


def request(folder: Path, **changes) -> RunRequest:
    rng = np.random.default_rng(1)
    np.savez(
        folder / "d.npz", x=rng.normal(size=(60, 6)).astype(np.float32), target=np.arange(60) % 3
    )
    return RunRequest(
        model=FileRef(path="now.onnx", name="now.onnx"),
        rewind_to=FileRef(path="first.onnx", name="first.onnx"),
        data={"calibration": FileRef(path="d.npz", name="d.npz")},
        spec=SPEC | changes,
    )


def test_the_file_written_holds_the_earlier_weights_under_their_own_mask(tmp_path):
    write(tmp_path / "now.onnx", seed=0)
    first = write(tmp_path / "first.onnx", seed=5)
    run_kind(request(tmp_path), tmp_path)
    written = onnx.load(tmp_path / "out" / "now.onnx")
    found = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    flat = np.concatenate([np.abs(first[name]).ravel() for name in ("fc1.weight", "fc2.weight")])
    threshold = np.sort(flat)[len(flat) // 2]
    for name, array in first.items():
        np.testing.assert_array_equal(found[name], np.where(np.abs(array) < threshold, 0, array))


def test_a_file_of_another_network_is_refused_before_anything_runs(tmp_path):
    write(tmp_path / "now.onnx", seed=0)
    write(tmp_path / "first.onnx", seed=5, width=9)
    with pytest.raises(SecateurError) as caught:
        run_kind(request(tmp_path), tmp_path)
    assert caught.value.code == "rewind_invalid"
    assert caught.value.where.startswith("rewind_to.")
    assert not (tmp_path / "checkpoints").exists()

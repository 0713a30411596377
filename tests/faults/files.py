"""A small network and its data; each number gives other bytes."""

import io

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MODEL, DATA = "small.onnx", "small.npz"

# Four rounds of training, a checkpoint after each: about two seconds, in which there is time to be
# killed between rounds and inside them.
REAL = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.6},
    "schedule": {"kind": "rounds", "rounds": 4},
    "recovery": {"kind": "fine_tune", "epochs": 6, "batch_size": 1},
    "trust": {"checks": False, "ladder": False, "bootstrap": 0},
}


def quick(seed: int) -> dict[str, object]:
    """A legal spec that tells the suite's quick child what to do."""
    return {
        "criterion": {"kind": "magnitude"},
        "trust": {"checks": False, "ladder": False, "bootstrap": 0},
        "seed": seed,
    }


def network(seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("fc1.weight", (8, 6)), ("fc2.weight", (3, 8)))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight"], ["a"], transB=1),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "fc2.weight"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def samples(seed: int = 1, count: int = 60) -> bytes:
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    np.savez(file, x=rng.normal(size=(count, 6)).astype(np.float32), target=np.arange(count) % 3)
    return file.getvalue()

"""Small ONNX files and arrays, good and bad, made by hand."""

import io

import numpy as np
from onnx import TensorProto, helper, numpy_helper

INPUTS, HIDDEN, CLASSES = 8, 16, 3


def network(
    seed: int = 0,
    *,
    activation: str = "Relu",
    poison: float | None = None,
    external: bool = False,
    opset: int = 17,
) -> bytes:
    """A perceptron 8-16-3 with input `x` and layers fc1, fc2."""
    random = np.random.default_rng(seed)
    shapes = {
        "fc1.weight": (HIDDEN, INPUTS),
        "fc1.bias": (HIDDEN,),
        "fc2.weight": (CLASSES, HIDDEN),
        "fc2.bias": (CLASSES,),
    }
    tensors = []
    for name, shape in shapes.items():
        values = (random.standard_normal(shape) * 0.5).astype(np.float32)
        if poison is not None and name == "fc1.weight":
            values[0, 0] = poison
        tensors.append(numpy_helper.from_array(values, name))
    if external:
        tensor = tensors[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
            helper.make_node(activation, ["h"], ["a"], "act"),
            helper.make_node("Gemm", ["a", "fc2.weight", "fc2.bias"], ["y"], "fc2", transB=1),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model.SerializeToString()


def samples(seed: int = 0, count: int = 240) -> dict[str, np.ndarray]:
    """Three Gaussian clouds with their labels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLASSES, INPUTS)) * 2
    target = random.integers(0, CLASSES, count)
    x = centres[target] + random.standard_normal((count, INPUTS))
    return {"x": x.astype(np.float32), "target": target.astype(np.int64)}


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz archive."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()

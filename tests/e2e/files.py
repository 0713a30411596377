"""Small ONNX files and arrays, good and bad, made by hand."""

import io

import numpy as np
from onnx import TensorProto, helper, numpy_helper

INPUTS, HIDDEN, CLASSES = 8, 16, 3


def weights(seed: int) -> dict[str, np.ndarray]:
    """Random weights and biases of layers fc1 and fc2."""
    random = np.random.default_rng(seed)
    shapes = {
        "fc1.weight": (HIDDEN, INPUTS),
        "fc1.bias": (HIDDEN,),
        "fc2.weight": (CLASSES, HIDDEN),
        "fc2.bias": (CLASSES,),
    }
    return {n: (random.standard_normal(s) * 0.5).astype(np.float32) for n, s in shapes.items()}


def network(
    seed: int = 0,
    *,
    activation: str = "Relu",
    poison: float | None = None,
    external: bool = False,
    opset: int = 17,
) -> bytes:
    """A perceptron 8-16-3 with input `x` and layers fc1, fc2."""
    values = weights(seed)
    if poison is not None:
        values["fc1.weight"][0, 0] = poison
    tensors = [numpy_helper.from_array(array, name) for name, array in values.items()]
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


def samples(count: int = 240) -> dict[str, np.ndarray]:
    """Random inputs with the labels that the network of seed 0 gives them: all of them right."""
    x = np.random.default_rng(0).standard_normal((count, INPUTS)).astype(np.float32) * 2
    own = weights(0)
    hidden = np.maximum(x @ own["fc1.weight"].T + own["fc1.bias"], 0)
    logits = hidden @ own["fc2.weight"].T + own["fc2.bias"]
    return {"x": x, "target": logits.argmax(1)}


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz archive."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()

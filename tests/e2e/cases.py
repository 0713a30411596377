"""What users get wrong: uploads that intake rejects, and data that don't fit the model."""

import numpy as np

from tests.e2e.files import network, npz, samples

BAD_MODELS = {
    "not ONNX": (b"this is a text, not a network" * 10, "unsupported_format"),
    "truncated": (network()[:-300], "model_truncated"),
    "unsupported operator": (network(activation="Unique"), "operator_unsupported"),
    "external data": (network(external=True), "external_data"),
    "NaN weight": (network(poison=float("nan")), "weights_non_finite"),
}

BAD_DATA = {
    "NaN": (npz({"x": np.full((4, 8), np.nan, np.float32)}), "data_non_finite"),
    "pickled objects": (npz({"x": np.array([{}, []], dtype=object)}), "data_pickled"),
}

MISFITS = {
    "wrong name": ({"y": samples()["x"], "target": samples()["target"]}, "data_names"),
    "wrong shape": ({"x": samples()["x"][:, :7], "target": samples()["target"]}, "data_shape"),
}

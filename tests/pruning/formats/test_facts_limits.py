"""Facts are read at every request that names an upload, so intake bounds them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pruning.errors import SecateurError
from pruning.formats import facts_limits
from pruning.formats.intake import check_dataset, check_model


def network(path, layer: str = "w", source: str = "x"):
    """One matrix product, saved."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), layer)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [source, layer], ["y"], name=layer)],
        "g",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("part", ["layer", "source"])
def test_a_name_of_any_length_is_no_name(tmp_path, part):
    long = "n" * 100_000
    with pytest.raises(SecateurError) as caught:
        check_model(network(tmp_path / "a.onnx", **{part: long}))
    assert caught.value.code == "model_invalid"
    assert len(str(caught.value)) < 500
    assert check_model(network(tmp_path / "b.onnx", **{part: "n" * 400})).layers


def test_all_facts_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(facts_limits, "MOST_BYTES", 500)
    with pytest.raises(SecateurError) as caught:
        check_model(network(tmp_path / "a.onnx"))
    assert caught.value.code == "model_too_large"


def test_more_layers_than_requests_can_carry_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(facts_limits, "MOST_LAYERS", 0)
    with pytest.raises(SecateurError) as caught:
        check_model(network(tmp_path / "a.onnx"))
    assert caught.value.code == "model_too_large"


def test_names_of_arrays_are_bounded_too(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{"n" * 2_000: np.ones((20, 4), np.float32)})
    with pytest.raises(SecateurError) as caught:
        check_dataset(path)
    assert caught.value.code.startswith("data_")

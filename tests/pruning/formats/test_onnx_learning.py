"""Networks as converters of scikit-learn write them: scaled inputs, labels, dictionaries."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.onnx import inference_copy, read_onnx
from pruning.formats.registry import read_model
from pruning.request import FileRef, RunRequest
from pruning.run import run
from tests.pruning.formats.onnx_cases import Net

torch.set_num_threads(1)
ML = "ai.onnx.ml"
QUIET = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.5},
}


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, domain=ML, **attributes)


def classifier(
    *,
    labels: str = "int",
    zipped: bool | str = False,
    binary: bool = False,
    before: str = "",
    listed: bool = False,
) -> onnx.ModelProto:
    """MLPClassifier as skl2onnx 1.20 writes it, with what may stand before and after it."""
    net = Net(11)
    classes = 2 if binary else 3
    x = "X"
    if before:
        options = {
            "Scaler": {"offset": [0.1, 0.2, 0.3, 0.4], "scale": [1.0, 2.0, 0.5, 1.5]},
            "Scaler1": {"offset": [0.1], "scale": [2.0]},
            "Normalizer": {"norm": "L2"},
            "NormalizerMax": {"norm": "MAX"},
            "Imputer": {"imputed_value_floats": [0.5], "replaced_value_float": 0.0},
            "Binarizer": {"threshold": 0.1},
        }[before]
        kind = before.removesuffix("1").removesuffix("Max")
        net.nodes.append(node(kind, ["X"], ["scaled"], **options))
        x = "scaled"
    net.op("Cast", [x], "cast", to=TensorProto.FLOAT)
    net.op("MatMul", ["cast", net.weight("coefficient", 4, 16)], "m")
    net.op("Add", ["m", net.weight("intercepts", 1, 16)], "a")
    net.op("Relu", ["a"], "r")
    net.op("MatMul", ["r", net.weight("coefficient1", 16, 1 if binary else 3)], "m1")
    net.op("Add", ["m1", net.weight("intercepts1", 1, 1 if binary else 3)], "a1")
    if binary:
        net.op("Sigmoid", ["a1"], "positive")
        net.op("Sub", [net.const("unity", np.float32(1)), "positive"], "negative")
        net.op("Concat", ["negative", "positive"], "probabilities", axis=1)
    else:
        net.op("Softmax", ["a1"], "soft", axis=1)
        net.op("Identity", ["soft"], "probabilities")
    net.op("ArgMax", ["probabilities"], "winner", axis=1)
    names = ["cat", "dog", "eel"][:classes]
    given = np.array(names, object) if labels == "str" else np.arange(classes)
    net.initializers.append(numpy_helper.from_array(given, "classes"))
    net.nodes.append(node("ArrayFeatureExtractor", ["classes", "winner"], ["picked"]))
    net.op("Reshape", ["picked", net.const("flat", np.array([-1]))],
           "label" if labels == "str" else "reshaped")  # fmt: skip
    if labels != "str":
        net.op("Cast", ["reshaped"], "label", to=TensorProto.INT64)
    kind = TensorProto.STRING if labels == "str" else TensorProto.INT64
    outputs = [helper.make_tensor_value_info("label", kind, ["n"])]
    if listed:
        net.op("Identity", ["classes"], "class_labels")
        outputs.append(helper.make_tensor_value_info("class_labels", kind, [classes]))
    if zipped == "columns":
        ends = [net.const(f"end{i}", np.array([i])) for i in range(classes + 1)]
        for i, end in enumerate(ends[1:]):
            net.op("Slice", ["probabilities", ends[i], end, ends[1]], f"i{i}_")
            net.op("Reshape", [f"i{i}_", "flat"], f"i{i}")
            outputs.append(helper.make_tensor_value_info(f"i{i}", TensorProto.FLOAT, ["n"]))
    elif zipped:
        keys = ({"classlabels_strings": names} if labels == "str"
                else {"classlabels_int64s": list(range(classes))})  # fmt: skip
        net.nodes.append(node("ZipMap", ["probabilities"], ["dictionaries"], **keys))
        value = helper.make_map_type_proto(
            kind, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        )
        outputs.append(
            helper.make_value_info("dictionaries", helper.make_sequence_type_proto(value))
        )
    else:
        outputs.append(
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes])
        )
    graph = helper.make_graph(
        net.nodes, "g", [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        outputs, net.initializers,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)],
        ir_version=8,
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model


def inputs(count: int = 60) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


VARIANTS = [
    {"labels": labels, "zipped": zipped, "binary": binary}
    for labels in ("int", "str")
    for zipped in (False, True, "columns")
    for binary in (False, True)
] + [{"listed": True}, {"listed": True, "labels": "str"}, {"before": "Imputer", "zipped": True}] + [
    {"before": b} for b in ("Scaler", "Scaler1", "Normalizer", "NormalizerMax", "Imputer",
                             "Binarizer")]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_a_classifier_is_read_up_to_its_probabilities(variant):
    model = classifier(**variant)
    imported = read_onnx(model.SerializeToString())
    x = inputs()
    names = imported.module.output_names
    session = onnxruntime.InferenceSession(inference_copy(model, names).SerializeToString())
    theirs = session.run(list(names), {"X": x})
    with torch.no_grad():
        ours = imported.module(torch.from_numpy(x))
    ours = ours if isinstance(ours, tuple) else (ours,)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    facts = imported.facts
    assert facts.output is not None
    assert facts.output.name == "probabilities"
    assert facts.output.shape[1:] == [2 if variant.get("binary") else 3]
    assert facts.batch is None
    assert facts.layers[0].shape == [16, 4]
    # The label is an output of the network where it is a number.
    assert ("label" in names) == (variant.get("labels") != "str")


@pytest.mark.parametrize("variant", [
    {}, {"labels": "str"}, {"zipped": True}, {"labels": "str", "zipped": True, "binary": True},
    {"before": "Scaler"}, {"zipped": "columns"}, {"listed": True},
])  # fmt: skip
def test_a_job_gives_the_graph_back_as_it_came(variant, tmp_path: Path):
    model = classifier(**variant)
    onnx.save(model, tmp_path / "m.onnx")
    target = np.random.default_rng(1).integers(0, 2, 60)
    np.savez(tmp_path / "d.npz", X=inputs(), target=target)
    request = RunRequest(
        model=FileRef(path="m.onnx", name="m.onnx", sha256="0" * 64),
        data={"calibration": FileRef(path="d.npz", name="d.npz")},
        spec=QUIET,
    )
    run(request, tmp_path, clean=False)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    statuses = {check["name"]: check["status"] for check in report["checks"]}
    assert statuses["onnxruntime_outputs"] == "pass"
    written = onnx.load(tmp_path / "out" / "m.onnx")
    assert [n.op_type for n in written.graph.node] == [n.op_type for n in model.graph.node]
    assert list(written.graph.output) == list(model.graph.output)
    arrays = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    zeros = sum(int((arrays[n] == 0).sum()) for n in ("coefficient", "coefficient1"))
    assert zeros == report["sparsity"]["removed"] == report["sparsity"]["total"] // 2
    session = onnxruntime.InferenceSession(written.SerializeToString())
    assert len(session.run(None, {"X": inputs()})) == len(model.graph.output)


def other(kind: str, **attributes: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node(kind, ["X"], ["label", "scores"] if "Classifier" in kind else ["scores"],
              **attributes)],
        "g", [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 2)],
        ir_version=8,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("LinearClassifier", {"coefficients": [0.0] * 8}, "keeps its weights in attributes"),
        ("LinearRegressor", {"coefficients": [0.0] * 4}, "keeps its weights in attributes"),
        ("TreeEnsembleClassifier", {}, "is an ensemble of trees, no network"),
        ("TreeEnsembleRegressor", {}, "is an ensemble of trees, no network"),
        ("SVMRegressor", {}, "is a support vector machine, no network"),
        ("OneHotEncoder", {"cats_strings": ["a"]}, "texts or dictionaries"),
        ("LabelEncoder", {"keys_strings": ["a"], "values_int64s": [1]}, "texts or dictionaries"),
    ],
)
def test_models_that_are_no_networks_are_refused_by_what_they_are(kind, attributes, said):
    with pytest.raises(SecateurError) as caught:
        read_onnx(other(kind, **attributes).SerializeToString())
    assert caught.value.code == "operator_unsupported"
    assert said in caught.value.message
    assert "MLPClassifier" in caught.value.hint or "network alone" in caught.value.hint
    assert caught.value.details["operators"] == [kind]


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("OneHotEncoder", {"cats_int64s": [3, 1, 7, 2], "zeros": 1}),
        ("LabelEncoder", {"keys_floats": [1.0, 2.0, 2.5], "values_floats": [0.5, -3.0, 9.0],
                          "default_float": 7.0}),
        ("LabelEncoder", {"keys_floats": [1.0, 2.0], "values_int64s": [4, 5],
                          "default_int64": -2}),
        ("LabelEncoder", {"keys_int64s": [1, 2], "values_int64s": [4, 5]}),
        ("LabelEncoder", {"keys_int64s": [1, 2], "values_floats": [0.25, 0.5]}),
    ],
)  # fmt: skip
def test_tables_of_numbers_before_a_network_give_what_onnxruntime_gives(kind, attributes):
    integers = "keys_int64s" in attributes
    net = Net(5)
    wide = kind == "OneHotEncoder"
    net.nodes.append(node(kind, ["X"], ["encoded"], **attributes))
    net.op("Cast", ["encoded"], "real", to=TensorProto.FLOAT)
    net.op("Reshape", ["real", net.const("rows", np.array([-1, 8 if wide else 2]))], "features")
    net.op("MatMul", ["features", net.weight("w", 8 if wide else 2, 3)], "y")
    graph = helper.make_graph(
        net.nodes, "g",
        [helper.make_tensor_value_info(
            "X", TensorProto.INT64 if integers else TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])], net.initializers,
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(ML, 2)],
        ir_version=8,
    )  # fmt: skip
    x = np.array([[1, 2], [2.5, 7], [3, 0], [-1, 1]], np.int64 if integers else np.float32)
    theirs = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"X": x})[0]
    imported = read_onnx(model.SerializeToString())
    assert imported.facts.batch is None
    with torch.no_grad():
        np.testing.assert_allclose(imported.module(torch.from_numpy(x)), theirs, rtol=1e-6)


def test_slices_that_are_no_columns_stay_outputs():
    """A head that is cut into boxes and scores is not one matrix of classes."""
    net = Net(5)
    net.op("MatMul", ["x", net.weight("w", 4, 6)], "h")
    at = [net.const(f"at{i}", np.array([i])) for i in (0, 2, 6, 1)]
    net.op("Slice", ["h", at[0], at[1], at[3]], "boxes")
    net.op("Slice", ["h", at[1], at[2], at[3]], "scores")
    model = net.model({"x": ["n", 4]}, ["boxes", "scores"])
    assert read_onnx(model.SerializeToString()).module.output_names == ("boxes", "scores")


def test_a_graph_that_puts_out_texts_alone_is_refused(tmp_path: Path):
    model = classifier(labels="str")
    del model.graph.output[1]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SecateurError) as caught:
        read_model(tmp_path / "m.onnx", Limits())
    assert caught.value.code == "model_invalid"

"""Each way in which a written file can be wrong is caught, with the place."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pruning.errors import SecateurError
from pruning.formats import sparse
from pruning.formats.architecture.exporting import export
from pruning.formats.masks import read_masks, write_masks
from pruning.formats.onnx import read_onnx
from tests.pruning.verification.conftest import Half, Prunes

MODEL, MASKS, SPARSE = "digits.onnx", "digits.masks.safetensors", "digits.sparse.safetensors"
HALF = {"target": {"sparsity": 0.6}}
NM = {"pattern": {"kind": "nm", "n": 2, "m": 4}}
BLOCKS = {"pattern": {"kind": "block", "shape": [1, 4]}}

Change = Callable[[onnx.ModelProto, dict[str, np.ndarray]], None]


def tamper(half: Half, change: Change) -> None:
    """Changes initialisers (as arrays) or anything else of the model, as its writer might have.

    The sparse file follows, so that it is not the first to tell.
    """
    path = half.path(MODEL)
    model = onnx.load(path)
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    change(model, arrays)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    onnx.save(model, path)
    sparse.pack([path], dict(read_onnx(path).tensors()), half.path(SPARSE))
    half.sign()


def place(half: Half) -> str | None:
    """Where verification fails."""
    with pytest.raises(SecateurError) as failed:
        half.verify()
    assert failed.value.code == "verification_failed"
    assert not (half.folder / "out").exists()
    return failed.value.where


def one_weight_back(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    arrays["fc1.weight"].flat[np.flatnonzero(arrays["fc1.weight"] == 0)[0]] = 1e-30


def head_wrong_way_round(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    head = arrays["head.weight"]
    arrays["head.weight"] = head.T.copy().reshape(head.shape)


def a_weight_flipped(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    kept = np.flatnonzero(arrays["fc1.weight"])
    arrays["fc1.weight"].flat[kept[np.abs(arrays["fc1.weight"].flat[kept]).argmax()]] *= -1


def bias_moved(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    arrays["fc1.bias"] += 0.01


def output_renamed(model: onnx.ModelProto, _: dict[str, np.ndarray]) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"


def untouched(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    pass


@pytest.mark.parametrize("spec", [HALF, NM, BLOCKS], ids=["unstructured", "nm", "block"])
def test_what_was_written_passes(prunes: Prunes, spec: dict):
    half = prunes(spec)
    tamper(half, untouched)
    half.verify()
    checks = {c["name"]: c["status"] for c in half.report()["checks"]}
    assert set(checks.values()) == {"pass"}
    assert ("pattern" in checks) == ("pattern" in spec)
    assert len(checks) == 8 + ("pattern" in spec)


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (one_weight_back, "exact_zeros"),
        (head_wrong_way_round, "exact_zeros"),
        (output_renamed, "graph_kept"),
        (a_weight_flipped, "onnxruntime_outputs"),
        (bias_moved, "onnxruntime_outputs"),
    ],
)
def test_a_wrong_model_file_is_caught(prunes: Prunes, change: Change, caught_by: str):
    half = prunes(HALF)
    tamper(half, change)
    assert place(half) == caught_by


@pytest.mark.parametrize("spec", [NM, BLOCKS], ids=["nm", "block"])
def test_a_broken_pattern_is_caught_where_the_number_of_zeros_is_right(prunes: Prunes, spec: dict):
    """The mask and the model agree with each other, and the last groups with nobody."""
    half = prunes(spec)
    masks = half.reference.masks
    moved = masks["fc1.weight"].copy()
    row = int(np.flatnonzero(moved.any(1) & ~moved.all(1))[0])
    gone, kept = np.flatnonzero(~moved[row])[0], np.flatnonzero(moved[row])[-1]
    moved[row, [gone, kept]] = moved[row, [kept, gone]]
    half.reference = replace(half.reference, masks=masks | {"fc1.weight": moved})
    write_masks(half.reference.masks, half.path(MASKS))

    def swap(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
        weights = arrays["fc1.weight"][row]
        weights[gone], weights[kept] = weights[kept], 0.0

    tamper(half, swap)
    assert place(half) == "pattern"


def test_other_bytes_than_those_written_are_caught_before_they_are_parsed(prunes: Prunes):
    for name in (MODEL, MASKS, SPARSE):
        half = prunes(HALF)
        content = bytearray(half.path(name).read_bytes())
        content[len(content) // 2] ^= 1
        half.path(name).write_bytes(content)
        assert place(half) == "digests"
    half = prunes(HALF)
    half.request.outputs[MODEL].sha256 = "1" * 64
    assert place(half) == "digests"


@pytest.mark.parametrize(
    ("name", "caught_by"),
    [(MODEL, "model_file"), (MASKS, "masks_file"), (SPARSE, "sparse_file")],
)
def test_a_file_that_ends_early_is_caught(prunes: Prunes, name: str, caught_by: str):
    half = prunes(HALF)
    half.path(name).write_bytes(half.path(name).read_bytes()[:-40])
    half.sign()
    assert place(half) == caught_by


def test_a_masks_file_of_other_masks_is_caught(prunes: Prunes):
    half = prunes(HALF)
    masks = read_masks(half.path(MASKS))
    masks["fc1.weight"][0, 0] ^= True
    write_masks(masks, half.path(MASKS))
    half.sign()
    assert place(half) == "masks_file"


def test_a_sparse_file_of_another_model_is_caught(prunes: Prunes, tmp_path: Path):
    half = prunes(HALF)
    model = onnx.load(half.path(MODEL))
    model.doc_string = "another"
    other = tmp_path / MODEL
    onnx.save(model, other)
    sparse.pack([other], dict(read_onnx(other).tensors()), half.path(SPARSE))
    half.sign()
    assert place(half) == "sparse_file"


@pytest.mark.parametrize("stage", ["pruned", "recovered"])
def test_a_metric_that_is_not_the_reported_one_is_caught(prunes: Prunes, stage: str):
    half = prunes(HALF)
    draft = half.draft
    wrong = {"accuracy": draft.metrics.pruned["accuracy"].model_copy()}
    assert wrong["accuracy"].value is not None
    wrong["accuracy"].value -= 0.05
    setattr(draft.metrics, stage, wrong)
    half.draft = draft
    assert place(half) == "onnxruntime_accuracy"


def test_a_report_that_counts_more_zeros_is_caught(prunes: Prunes):
    half = prunes(HALF)
    draft = half.draft
    draft.layers[0].zeros += 1
    half.draft = draft
    assert place(half) == "zeros_by_layer"


def test_a_kept_weight_that_became_zero_is_a_warning(prunes: Prunes):
    """As happens to weights below the range of the file's type."""
    half = prunes(HALF)
    draft = half.draft
    draft.layers[0].zeros -= 1
    half.draft = draft
    half.verify()
    found = next(c for c in half.report()["checks"] if c["name"] == "zeros_by_layer")
    assert (found["status"], found["value"]) == ("warn", 1)
    assert "too small" in found["message"]


@pytest.mark.parametrize("wrong", ["truncated", "dense"])
def test_a_file_of_the_curve_that_is_wrong_is_caught(
    prunes: Prunes, digits_files: Path, wrong: str
):
    half = prunes(HALF | {"curve": {"points": [0.3, 0.8]}})
    named = [p.artifact for p in half.draft.curve]
    assert named[1] == MODEL
    path = half.path(named[2] or "")
    dense = (digits_files / "digits.onnx").read_bytes()
    path.write_bytes(dense if wrong == "dense" else path.read_bytes()[:-40])
    half.sign()
    assert place(half) == "curve_files"


@pytest.mark.parametrize("size", [1, 7])
def test_a_declared_batch_is_kept_to_in_onnxruntime(
    prunes: Prunes, digits_files: Path, tmp_path: Path, size: int
):
    """torch runs the graph at any size; onnxruntime refuses all but the declared one."""
    model = onnx.load(digits_files / "digits.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    del model.graph.value_info[:]
    uploaded = tmp_path / "fixed.onnx"
    onnx.save(model, uploaded)
    half = prunes(HALF, uploaded)
    half.verify()
    assert half.report()["latency"]["batch"] == size
    tampered = prunes(HALF, uploaded)
    tamper(tampered, bias_moved)
    assert place(tampered) == "onnxruntime_outputs"


def test_a_model_of_several_files_is_verified_and_its_points_are_tars(
    prunes: Prunes, tmp_path: Path
):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    export(module, (torch.randn(2, 64),), tmp_path / "model", ["pixels"])
    half = prunes(HALF | {"curve": {"points": [0.3]}}, tmp_path / "model")
    assert {p.artifact for p in half.draft.curve} == {"digits.at-0.2995.tar", None}
    half.verify()
    checks = {c["name"]: c["status"] for c in half.report()["checks"]}
    assert {"curve_files", "sparse_file", "torch_outputs"} <= checks.keys()
    assert set(checks.values()) == {"pass"}
    (half.path("digits.at-0.2995.tar")).write_bytes(b"no tar")
    half.sign()
    shutil.rmtree(half.folder / "out")
    assert place(half) == "curve_files"

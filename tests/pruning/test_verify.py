"""Verification reads the files again, and catches each way in which they can be wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pruning.data.batches import ArrayData
from pruning.data.npz import load
from pruning.errors import SecateurError
from pruning.formats import bitmask
from pruning.formats.masks import write_masks
from pruning.formats.onnx import read_onnx, write_onnx
from pruning.loop import prune
from pruning.verify import Expected, Written, verify

Job = tuple[Written, Expected, ArrayData]


@pytest.fixture
def job(digits_files: Path, tmp_path: Path) -> Job:
    return pruned(digits_files / "digits.onnx", digits_files, tmp_path)


def pruned(uploaded: Path, digits_files: Path, tmp_path: Path) -> Job:
    imported = read_onnx(uploaded)
    data = load(digits_files / "evaluation.npz", imported.facts)
    outcome = prune(
        imported.module,
        data,
        {"criterion": {"kind": "magnitude"}, "target": {"sparsity": 0.6}},
        facts=imported.facts,
        copy=False,
    )
    path = tmp_path / "m.onnx"
    write_onnx(imported, path)
    written = Written(read_onnx(path), [path], tmp_path / "masks", tmp_path / "bitmask")
    write_masks(outcome.masks, tmp_path / "masks")
    bitmask.encode(dict(written.again.tensors()), tmp_path / "bitmask")
    held_out = data.split(0.2, outcome.report.seed)[1]
    return written, Expected(imported, outcome.module, outcome.masks, outcome.report), held_out


def check(job: Job) -> dict[str, str]:
    written, expected, data = job
    written = replace(written, again=read_onnx(written.model[0]))
    found = verify(written, expected, data, threads=1)
    return {c.name: c.status for c in found}


def tamper(path: Path, change: Callable[[onnx.ModelProto, dict[str, np.ndarray]], None]) -> None:
    """Changes initialisers (as arrays) or anything else of a written model."""
    model = onnx.load(path)
    arrays = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    change(model, arrays)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    onnx.save(model, path)


def test_what_was_written_passes(job):
    assert set(check(job).values()) == {"pass"}
    assert len(check(job)) == 7


@pytest.mark.parametrize("size", [1, 7])
def test_a_declared_batch_is_kept_to_in_onnxruntime(digits_files: Path, tmp_path: Path, size: int):
    """torch runs the graph at any size; onnxruntime refuses all but the declared one."""
    model = onnx.load(digits_files / "digits.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    del model.graph.value_info[:]
    uploaded = tmp_path / "fixed.onnx"
    onnx.save(model, uploaded)
    fixed = pruned(uploaded, digits_files, tmp_path)
    assert fixed[1].imported.facts.inputs[0].shape[0] == size
    assert fixed[2].samples % 7
    assert set(check(fixed).values()) == {"pass"}
    assert len(check(fixed)) == 7
    tamper(fixed[0].model[0], bias_moved)
    with pytest.raises(SecateurError) as failed:
        check((replace(fixed[0], bitmask=None), *fixed[1:]))
    assert failed.value.where == "onnxruntime_outputs"


def one_weight_back(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    arrays["fc1.weight"].flat[np.flatnonzero(arrays["fc1.weight"] == 0)[0]] = 1e-30


def head_wrong_way_round(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    head = arrays["head.weight"]
    arrays["head.weight"] = head.T.copy().reshape(head.shape)


def bias_moved(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    arrays["fc1.bias"] += 0.01


def output_renamed(model: onnx.ModelProto, _: dict[str, np.ndarray]) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "scores"


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (one_weight_back, "exact_zeros"),
        (head_wrong_way_round, "exact_zeros"),
        (output_renamed, "graph_kept"),
    ],
)
def test_a_wrong_model_file_is_caught(job, change, caught_by):
    tamper(job[0].model[0], change)
    with pytest.raises(SecateurError) as failed:
        check(job)
    assert (failed.value.code, failed.value.where) == ("verification_failed", caught_by)


def test_outputs_that_differ_are_caught_in_onnxruntime(job):
    tamper(job[0].model[0], bias_moved)
    written = replace(job[0], bitmask=None)
    with pytest.raises(SecateurError) as failed:
        check((written, *job[1:]))
    assert failed.value.where == "onnxruntime_outputs"


def test_an_accuracy_that_is_not_the_reported_one_is_caught(job):
    job[1].report.metrics.pruned["accuracy"].value -= 0.05
    with pytest.raises(SecateurError) as failed:
        check(job)
    assert failed.value.where == "onnxruntime_accuracy"


def test_masks_and_bitmask_files_that_disagree_are_caught(job):
    written, expected, _ = job
    masks = {name: mask.clone() for name, mask in expected.masks.items()}
    masks["fc1.weight"][0, 0] ^= True
    write_masks(masks, written.masks)
    with pytest.raises(SecateurError) as failed:
        check(job)
    assert failed.value.where == "masks_file"
    write_masks(expected.masks, written.masks)

    arrays = dict(read_onnx(written.model[0]).tensors())
    arrays["fc1.bias"] = -arrays["fc1.bias"]
    bitmask.encode(arrays, written.bitmask)
    with pytest.raises(SecateurError) as failed:
        check(job)
    assert failed.value.where == "bitmask_file"


def test_a_kept_weight_that_became_zero_is_a_warning(job):
    """As happens to weights below the range of the file's type; the network barely changes."""
    written, expected, data = job
    first = int(expected.masks["fc1.weight"].flatten().int().argmax())

    def first_kept_is_zero(_: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
        arrays["fc1.weight"].flat[first] = 0.0

    tamper(written.model[0], first_kept_is_zero)
    bitmask.encode(dict(read_onnx(written.model[0]).tensors()), written.bitmask)
    with torch.no_grad():
        expected.module.get_parameter("fc1.weight").view(-1)[first] = 1e-30
    again = replace(written, again=read_onnx(written.model[0]))
    checks = verify(again, expected, data, threads=1)
    zeros = next(c for c in checks if c.name == "zeros_by_layer")
    assert (zeros.status, zeros.value) == ("warn", 1)
    assert "too small" in zeros.message

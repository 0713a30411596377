"""The standard's own cases of every operator that is read: each agrees, or is refused by name."""

import pkgutil
import warnings
from collections import defaultdict
from functools import cache
from importlib import import_module

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case import node as standard

from pruning.errors import SecateurError
from pruning.formats.onnx import read_onnx
from pruning.formats.onnx.ops import OPERATORS

torch.set_num_threads(1)

# What is refused wherever it comes up, as the message says it.
_REFUSED = (
    "Inputs of type float32",  # inputs of small integers
    "has no batch axis",
    "An input has a size of 0",
    "The graph holds a constant of type",  # 4 and 8 bit numbers
    "are read.",  # opsets before the oldest
    "which is not read",
    "is computed from data",
    "are not read",
    "is not a tensor",
    "has no shape",
)
# Cases that are refused for reasons of their own.
_ALONE: dict[str, str] = {
    "test_resize_downsample_scales_linear_align_corners": "Resize with 'align_corners'",
    "test_resize_downsample_scales_cubic_align_corners": "Resize with 'align_corners'",
}


# Cases that ONNX computes in Python loops for seconds; the tables of operators cover them.
_SLOW = ("averagepool", "lppool", "maxpool")
# Dropout in training mode draws random numbers; it is read as in evaluation, which is for its own
# tests to check.
_RANDOM = ("test_training_dropout", "test_training_dropout_default")


@cache
def _cases() -> dict[str, list]:
    """The cases of operators that are read, by operator."""
    found = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.iter_modules(standard.__path__):
            if module.name not in _SLOW:
                import_module(f"{standard.__name__}.{module.name}")
        for case in standard._NodeTestCases:
            nodes = case.model.graph.node if case.model is not None else []
            if case.name in _RANDOM:
                continue
            if len(nodes) == 1 and nodes[0].op_type in OPERATORS:
                found[nodes[0].op_type].append(case)
    return dict(found)


def _array(value: object) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _verdict(case: object) -> str:
    """'agrees', the text of the refusal, or what went wrong.

    The first real input is the network's; the others become initialisers.
    """
    inputs, outputs = ([_array(v) for v in part] for part in case.data_sets[0])
    if any(array.dtype == object for array in (*inputs, *outputs)):
        return "which is not read: text or sequences"
    live = next((i for i, a in enumerate(inputs) if a.dtype.kind == "f" and a.ndim), 0)
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    for i, value in enumerate(case.model.graph.input):
        if i != live:
            proto.graph.initializer.append(numpy_helper.from_array(inputs[i], value.name))
            if proto.ir_version > 3:
                proto.graph.input.remove(value)
    try:
        module = read_onnx(proto.SerializeToString()).module
        with torch.no_grad():
            ours = module(torch.from_numpy(np.ascontiguousarray(inputs[live])))
    except SecateurError as error:
        return str(error)
    ours = ours if isinstance(ours, tuple) else (ours,)
    for a, b in zip(ours, outputs, strict=True):
        half = b.dtype.name in ("float16", "bfloat16")
        a, b = a.numpy().astype(np.float64), b.astype(np.float64)
        if a.shape != b.shape:
            return f"WRONG shape {a.shape} for {b.shape}"
        # The standard's own runner compares at 1e-3; narrow types are computed in float32 here.
        if not np.allclose(a, b, rtol=1e-2 if half else 1e-3, atol=1e-5, equal_nan=True):
            return f"WRONG by {np.nanmax(np.abs(a - b))}"
    return "agrees"


@pytest.mark.parametrize("quarter", range(4))
def test_every_standard_case_agrees_or_is_refused(quarter):
    wrong, agreed = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(_cases())[quarter::4]:
            for case in _cases()[name]:
                verdict = _verdict(case)
                agreed += verdict == "agrees"
                expected = _ALONE.get(case.name)
                known = expected in verdict if expected else any(r in verdict for r in _REFUSED)
                if verdict != "agrees" and not known:
                    wrong.append((case.name, verdict))
    assert not wrong, wrong
    assert agreed > 100, agreed

"""Values that come from shapes alone, where an operator computes with them as with any other.

A graph may feed an operator from ConstantOfShape, Range or Expand of the batch size: such values
stay host arrays while the graph runs (`values`), and every operator must take them.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pruning.errors import SecateurError
from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import Net, ints, run_onnx
from tests.pruning.formats.test_onnx_ops_standard import _ALONE, _REFUSED, _array, _cases

torch.set_num_threads(1)
onnxruntime.set_default_logger_severity(4)


KNOWN = (*_REFUSED, *_ALONE.values())
# Inputs that these values make no sense as: factors of 0, fractions where places are asked for.
_SENSELESS = {("Resize", 1), ("Resize", 2), ("Upsample", 1), ("OneHot", 0)}


def from_shapes(net: Net, name: str, array: np.ndarray, how: str) -> None:
    """Nodes that make a value of the array's shape and type out of the batch size alone.

    `zeros` is ConstantOfShape; `ramp` numbers between 0 and 1 by Range; `spread` one row of such
    numbers that Expand repeats.
    """
    rest = array.shape[1:]
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    net.op("Shape", ["v"], f"{name}/s")
    net.op("Gather", [f"{name}/s", net.const(f"{name}/0", ints(0))], f"{name}/n")
    net.op("Concat", [f"{name}/n", net.const(f"{name}/rest", ints(*rest))], f"{name}/shape",
           axis=0)  # fmt: skip
    if how == "zeros":
        value = numpy_helper.from_array(np.zeros(1, array.dtype))
        net.op("ConstantOfShape", [f"{name}/shape"], name, value=value)
        return
    first = f"{name}/shape" if how == "ramp" else f"{name}/row"
    if how == "spread":
        net.op("Div", [f"{name}/shape", net.const(f"{name}/one", ints(array.shape[0], *rest))],
               f"{name}/ones")  # fmt: skip
        net.op("Mul", [f"{name}/ones", net.const(f"{name}/ri", ints(1, *rest))], f"{name}/row")
    net.op("ReduceProd", [first], f"{name}/count", keepdims=0)
    net.op("Range", [net.const(f"{name}/a", np.int64(0)), f"{name}/count",
                     net.const(f"{name}/d", np.int64(1))], f"{name}/range")  # fmt: skip
    net.op("Cast", [f"{name}/range"], f"{name}/real", to=kind)
    net.op("Mul", [f"{name}/real", net.const(f"{name}/step", np.array(0.37, array.dtype))],
           f"{name}/far")  # fmt: skip
    net.op("Sin", [f"{name}/far"], f"{name}/wave")
    net.op("Abs", [f"{name}/wave"], f"{name}/flat")
    net.op("Reshape", [f"{name}/flat", first], name if how == "ramp" else f"{name}/line")
    if how == "spread":
        net.op("Expand", [f"{name}/line", f"{name}/shape"], name)


def fed(case: object, index: int, how: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """A standard case with one input made from the batch size, and the input that has it."""
    inputs = [_array(value) for value in case.data_sets[0][0]]
    graph = case.model.graph
    net = Net()
    for value, array in zip(graph.input, inputs, strict=True):
        if value.name != graph.input[index].name:
            net.initializers.append(numpy_helper.from_array(array, value.name))
    from_shapes(net, graph.input[index].name, inputs[index], how)
    made = helper.make_graph(
        [*net.nodes, *graph.node],
        "g",
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [inputs[index].shape[0], 1])],
        graph.output,
        net.initializers,
    )
    model = helper.make_model(
        made, opset_imports=case.model.opset_import, ir_version=case.model.ir_version
    )
    return model, np.zeros((inputs[index].shape[0], 1), np.float32)


def truths(model: onnx.ModelProto, v: np.ndarray) -> Iterator[list[np.ndarray]]:
    """What onnxruntime gives, then what the standard's own interpreter does."""
    for run in (lambda: run_onnx(model, v), lambda: ReferenceEvaluator(model).run(None, {"v": v})):
        try:
            yield run()
        except Exception:  # whichever of them lacks the operator or the type
            continue


def verdict(case: object, index: int, how: str) -> str:
    """'agrees', 'no truth', the text of the refusal, or what went wrong."""
    model, v = fed(case, index, how)
    if next(truths(model, v), None) is None:
        return "no truth"
    try:
        module = read_onnx(model.SerializeToString()).module
        with torch.no_grad():
            ours = module(torch.from_numpy(v))
    except SecateurError as error:
        return f"{error.code}: {error}"
    ours = ours if isinstance(ours, tuple) else (ours,)
    if any(not wrong(ours, theirs) for theirs in truths(model, v)):
        return "agrees"
    return wrong(ours, next(truths(model, v)))


def wrong(ours: Sequence[torch.Tensor], theirs: list[np.ndarray]) -> str:
    """How the outputs differ, empty where they don't."""
    for a, b in zip(ours, theirs, strict=True):
        half = b.dtype.name in ("float16", "bfloat16")
        a, b = a.numpy().astype(np.float64), b.astype(np.float64)
        if a.shape != b.shape:
            return f"WRONG shape {a.shape} for {b.shape}"
        if not np.allclose(a, b, rtol=1e-2 if half else 1e-3, atol=1e-4, equal_nan=True):
            return f"WRONG by {np.nanmax(np.abs(a - b))}"
    return ""


def table() -> list[tuple[object, int]]:
    """Every standard case with each of its inputs that holds real numbers."""
    found = []
    for name in sorted(set(_cases()) - {"Range"}):
        for case in _cases()[name]:
            inputs, outputs = ([_array(v) for v in part] for part in case.data_sets[0])
            if any(array.dtype == object for array in (*inputs, *outputs)):
                continue
            version = next(o.version for o in case.model.opset_import if not o.domain)
            found += [
                (case, i)
                for i, array in enumerate(inputs)
                if array.dtype.name in ("float32", "float64") and array.ndim and array.size
                and (name, i) not in _SENSELESS and version > 10
            ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    "how",
    [
        "zeros",
        pytest.param("ramp", marks=pytest.mark.wide),
        pytest.param("spread", marks=pytest.mark.wide),
    ],
)
def test_every_operator_takes_values_that_come_from_shapes(how):
    failed, agreed = [], set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case, index in table():
            said = verdict(case, index, how)
            if said == "agrees":
                agreed.add(case.model.graph.node[0].op_type)
            elif said != "no truth" and not any(part in said for part in KNOWN):
                failed.append((case.name, index, said[:200]))
    assert not failed, failed
    assert len(agreed) > 100, sorted(agreed)


def cell() -> onnx.ModelProto:
    """An unrolled recurrent cell that starts from zeros of the batch size, and pads with them."""
    net = Net()
    from_shapes(net, "h0", np.zeros((1, 8), np.float32), "zeros")
    net.nodes[0].input[0] = "x"
    net.weight("u", 8, 8)
    net.op("Gemm", ["h0", "u"], "hu")
    net.op("MatMul", ["x", net.weight("w", 6, 8)], "a")
    net.op("Add", ["a", "hu"], "q")
    net.op("Tanh", ["q"], "h1")
    net.op("MatMul", ["h1", "u"], "hu2")
    net.op("Add", ["a", "hu2"], "q2")
    net.op("Tanh", ["q2"], "h2")
    net.op("MatMul", ["h2", net.weight("f", 8, 3)], "y")
    return net.model({"x": ["n", 6]}, ["y"])


def test_a_cell_that_starts_from_zeros_is_read_and_has_a_gradient_for_each_sample():
    model = cell()
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    imported = read_onnx(model.SerializeToString())
    assert imported.facts.batch is None
    assert imported.facts.ties  # the first product is a layer too
    assert {layer.name for layer in imported.facts.layers} == {"u", "u_2", "w", "f"}
    state = dict(imported.module.named_parameters())

    def output(state: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(imported.module, state, (sample[None],)).sum()

    each = torch.func.vmap(torch.func.grad(output), (None, 0))(state, torch.from_numpy(x))
    whole = torch.autograd.grad(imported.module(torch.from_numpy(x)).sum(), list(state.values()))
    for part, total in zip(each.values(), whole, strict=True):
        torch.testing.assert_close(part.sum(0), total)
    with torch.no_grad():
        np.testing.assert_allclose(imported.module(torch.from_numpy(x)), run_onnx(model, x)[0],
                                   rtol=1e-5, atol=1e-5)  # fmt: skip

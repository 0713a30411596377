"""If and Loop whose course is known at import: the nodes they come to, in place of them.

An If is decided by a constant, or by sizes that the file fixes; a Loop by a constant number of
rounds and a condition that stays true. All else depends on data and is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.onnx.graph import (
    Constant,
    Graph,
    Home,
    first_output,
    label,
    reads,
    stored,
    subgraphs,
)
from pruning.formats.onnx.operation import Operation

_ROUNDS = 64
"""Rounds of a loop that are unrolled."""

_PROBES = (1, 2, 3, 64, 1000)
"""What an open size is taken to be, to see whether a condition depends on it."""

_SIZES = frozenset(
    [
        "Add",
        "And",
        "Cast",
        "Concat",
        "Div",
        "Equal",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Shape",
        "Slice",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)
"""What conditions on sizes are computed with; none of it makes more than it was given."""

Shapes = Callable[[], Mapping[str, tuple[int | None, ...]]]


@dataclass(frozen=True)
class Choice:
    """The subgraph that runs, under its attribute's name, and how often."""

    attribute: str
    graph: GraphProto
    rounds: int = 1


def decided(node: Operation, graph: Graph, shapes: Shapes) -> Choice:
    """What an If or Loop does.

    Raises:
        SecateurError: `operator_unsupported` where data decide, or a loop runs too often.
    """
    bodies = dict(node.bodies)
    if node.op_type == "If":
        condition = _condition(node.input[0], graph, shapes)
        if condition is None:
            raise _refused(node, "its condition depends on data")
        name = "then_branch" if condition else "else_branch"
        return Choice(name, bodies[name])
    body = bodies["body"]
    trips = _number(node.input[0], graph) if node.input[0] else None
    start = _number(node.input[1], graph) if len(node.input) > 1 and node.input[1] else 1
    if start == 0 or trips == 0:
        return Choice("body", body, 0)
    if start is None or trips is None or not _stays_true(body):
        raise _refused(node, "how often it runs depends on data")
    if not 0 <= trips <= _ROUNDS:
        raise _refused(node, f"it runs {trips} times, over {_ROUNDS}")
    return Choice("body", body, trips)


def inlined(
    node: Operation, choice: Choice, graph: Graph, most: int
) -> tuple[list[Operation], dict[str, Constant]]:
    """The nodes and constants that the node comes to.

    `graph.homes` is told where the file keeps each of the nodes.

    Args:
        node: An If or Loop.
        choice: What it does.
        graph: What has been read so far.
        most: Nodes that may still be added.

    Raises:
        SecateurError: `model_too_large`, or `model_invalid` where the subgraph does not fit.
    """
    if choice.rounds * max(1, len(choice.graph.node)) > most:
        raise SecateurError("model_too_large", "Loops unroll to too many nodes.", where=label(node))
    return _Inlining(node, choice, graph).result()


class _Inlining:
    def __init__(self, node: Operation, choice: Choice, graph: Graph) -> None:
        self.node, self.choice, self.graph = node, choice, graph
        home = graph.homes.get(first_output(node))
        path = home.path if home else ()
        self.path = (*path, home.output if home else first_output(node), choice.attribute)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, Constant] = {}

    def result(self) -> tuple[list[Operation], dict[str, Constant]]:
        results = self._round(0, {}) if self.node.op_type == "If" else self._loop()
        for outer, inner in zip(self.node.output, results, strict=False):
            if outer:
                self.nodes.append(helper.make_node("Identity", [inner], [outer], name=outer))
        return [Operation(node) for node in self.nodes], self.constants

    def _loop(self) -> list[str]:
        node, body = self.node, self.choice.graph
        carried = list(node.input[2:])
        count = len(carried)
        if len(body.input) != 2 + count or len(body.output) < 1 + count:
            raise SecateurError("model_invalid", "A loop's body does not fit.", where=label(node))
        scans: list[list[str]] = [[] for _ in body.output[1 + count :]]
        for number in range(self.choice.rounds):
            given = [
                self._made(f"round {number}", np.array(number, np.int64)),
                self._made("true", np.array(True)),
                *carried,
            ]
            names = {i.name: value for i, value in zip(body.input, given, strict=True)}
            results = self._round(number, names)
            carried = results[1 : 1 + count]
            for scan, name in zip(scans, results[1 + count :], strict=True):
                scan.append(name)
        return [*carried, *(self._stacked(scan, i) for i, scan in enumerate(scans))]

    def _stacked(self, parts: list[str], number: int) -> str:
        """The results of all rounds along a new first axis."""
        if not parts:
            raise _refused(self.node, "it never runs, and its results have no shape then")
        axis = self._made("axis", np.zeros(1, np.int64))
        rows = []
        for i, part in enumerate(parts):
            rows.append(self._name(f"row {number}.{i}"))
            self.nodes.append(helper.make_node("Unsqueeze", [part, axis], [rows[-1]]))
        name = self._name(f"scan {number}")
        self.nodes.append(helper.make_node("Concat", rows, [name], axis=0))
        return name

    def _round(self, number: int, names: dict[str, str]) -> list[str]:
        """One pass through the subgraph; the names of its outputs."""
        body = self.choice.graph
        given = frozenset(names)
        names = dict(names)
        for tensor in body.initializer:
            names[tensor.name] = self._name(f"{number}/{tensor.name}")
            source = "/".join((*self.path, tensor.name))
            constant = stored(names[tensor.name], tensor, source)
            self.constants[names[tensor.name]] = constant
        for inner in body.node:
            for name in filter(None, inner.output):
                names[name] = self._name(f"{number}/{name}")
        for inner in body.node:
            copy = NodeProto()
            copy.CopyFrom(inner)
            copy.name = f"{self.node.name or first_output(self.node)}/{inner.name}"
            _rename(copy, names)
            bound = frozenset(i for i, name in enumerate(inner.input) if name in given)
            self.graph.homes[first_output(copy)] = Home(self.path, first_output(inner), bound)
            self.nodes.append(copy)
        return [names.get(output.name, output.name) for output in body.output]

    def _made(self, name: str, value: np.ndarray) -> str:
        name = self._name(name)
        self.constants.setdefault(name, Constant(name, "", value))
        return name

    def _name(self, name: str) -> str:
        return f"{first_output(self.node)}//{self.choice.attribute}//{name}"


def _rename(node: NodeProto, names: Mapping[str, str]) -> None:
    """Renames what a node reads and writes, in its subgraphs too where they do not hide it."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for _, inner in subgraphs(node):
        own = {i.name for i in inner.input} | {t.name for t in inner.initializer}
        own.update(name for n in inner.node for name in n.output)
        seen = {name: new for name, new in names.items() if name not in own}
        for child in inner.node:
            _rename(child, seen)
        for output in inner.output:
            output.name = seen.get(output.name, output.name)


def _stays_true(body: GraphProto) -> bool:
    """Whether the body passes its condition on, or sets it to true."""
    name = body.output[0].name
    makers = {output: node for node in body.node for output in node.output}
    while (maker := makers.get(name)) is not None and maker.op_type == "Identity":
        name = maker.input[0]
    if maker is None:
        held = next((t for t in body.initializer if t.name == name), None)
        return body.input[1].name == name if held is None else _is_true(held)
    value = next((a.t for a in maker.attribute if a.name == "value"), None)
    return maker.op_type == "Constant" and value is not None and _is_true(value)


def _is_true(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.BOOL and bool(numpy_helper.to_array(tensor).all())


def _number(name: str, graph: Graph) -> int | None:
    constant = graph.constants.get(name)
    if constant is None or constant.value.size != 1 or constant.value.dtype.kind not in "iub":
        return None
    return int(constant.value.reshape(-1)[0])


def _condition(name: str, graph: Graph, shapes: Shapes) -> bool | None:
    """The condition's value, where sizes that the file leaves open do not change it."""
    if name in graph.constants:
        value: np.ndarray | None = graph.constants[name].value
    else:
        value = value_of(name, graph, shapes)
    return bool(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def value_of(name: str, graph: Graph, shapes: Shapes) -> np.ndarray | None:
    """A value that is computed from sizes, where those that the file leaves open do not change it.

    Args:
        name: Of the value, no constant.
        graph: What has been read so far.
        shapes: Of its values, asked for once.
    """
    nodes = _ancestors(name, graph)
    if nodes is None:
        return None
    known = shapes()
    first = None
    for probe in _PROBES:
        result = _evaluated(name, nodes, graph, known, probe)
        if result is None or (first is not None and not np.array_equal(first, result)):
            return None
        first = result
    return first


def _ancestors(name: str, graph: Graph) -> list[Operation] | None:
    """The nodes that a value is computed by from shapes and constants, None for others."""
    wanted = {name}
    nodes: list[Operation] = []
    for node in reversed(graph.nodes):
        if not wanted.intersection(node.output):
            continue
        if len(nodes) > 64 or node.op_type not in _SIZES:
            return None
        nodes.append(node)
        wanted.difference_update(node.output)
        if node.op_type != "Shape":
            wanted.update(n for n in reads(node) if n and n not in graph.constants)
    return None if wanted else nodes[::-1]


def _evaluated(
    name: str,
    nodes: list[Operation],
    graph: Graph,
    shapes: Mapping[str, tuple[int | None, ...]],
    probe: int,
) -> np.ndarray | None:
    """The value with every open size taken to be `probe`, by the standard's own reference."""
    from onnx.reference import ReferenceEvaluator

    values: dict[str, Any] = {}
    rest = []
    for node in nodes:
        if node.op_type == "Shape":
            shape = shapes.get(node.input[0])
            if shape is None:
                return None
            sizes = np.array([probe if size is None else size for size in shape], np.int64)
            ends: dict[Any, int] = {a.name: a.i for a in node.attribute}
            values[node.output[0]] = sizes[ends.get("start", 0) : ends.get("end", len(sizes))]
        else:
            rest.append(node)
    used = {n for node in rest for n in node.input if n in graph.constants}
    if any(graph.constants[n].value.size > 4096 for n in used):
        return None
    values.update({n: graph.constants[n].value for n in used})
    if not rest:
        return values.get(name)
    inputs = [helper.make_tensor_value_info(n, 0, None) for n in values]
    outputs = [helper.make_tensor_value_info(name, 0, None)]
    inner = helper.make_graph([n.proto for n in rest], "condition", inputs, outputs)
    model = helper.make_model(inner, opset_imports=graph.proto.opset_import)
    try:
        results: Any = ReferenceEvaluator(model).run([name], values)
        return np.asarray(results[0])
    except Exception:  # the reference raises whatever its NumPy code does
        return None


def _refused(node: Operation, why: str) -> SecateurError:
    return SecateurError(
        "operator_unsupported",
        f"{node.op_type} is not read here: {why}.",
        where=label(node),
        hint="Export without control flow that data decide, for example by tracing.",
        operators=[node.op_type],
    )

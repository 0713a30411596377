"""Works out at import what depends on constants alone, and decides control flow that does."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.onnx.binding import Route, computing_dtype, is_real
from pruning.formats.onnx.control import decided, inlined, value_of
from pruning.formats.onnx.ends import network_outputs
from pruning.formats.onnx.graph import (
    Constant,
    Graph,
    constant_tensor,
    label,
    live,
    reads,
    stored,
)
from pruning.formats.onnx.node import Node
from pruning.formats.onnx.operation import Operation
from pruning.formats.onnx.parse import opset
from pruning.formats.onnx.values import LARGEST, axis_of

Operators = dict[str, Callable[[Any, Any], None]]

_ARRANGED = frozenset(("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))

_CUTS = frozenset(("Slice", "Split", "Gather"))

FOLDED = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Concat",
        "ConstantOfShape",
        "Cos",
        "CumSum",
        "Div",
        "Equal",
        "Exp",
        "Expand",
        "EyeLike",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)
"""Operators that are worked out at import: those whose cost is that of their result."""

_PLACES = 1 << 22
"""Places along axes that parts of weights come to, written out one by one."""

_COMPARED = 1 << 30
"""Numbers that are looked at to see whether parts of one tensor share any."""

_MOST = 3 << 24
"""Bytes of all results worked out at import together."""


_UNROLLED = 12_000
"""Nodes that subgraphs come to, loops in loops included."""


def simplify(
    proto: ModelProto,
    nodes: list[Operation],
    operators: Operators,
    limits: Limits,
    same: Mapping[str, str] | None = None,
) -> Graph:
    """The graph with constants resolved, dead nodes dropped and decided control flow in place.

    Args:
        proto: A checked model.
        nodes: Those of its graph.
        operators: The builders, whose arithmetic on host arrays gives the results.
        limits: `nodes` bounds what unrolled loops may come to.
        same: Initialisers that are one tensor of the upload with another, to that one.

    Raises:
        SecateurError: `operator_attribute_unsupported` for constants of types that are not read,
            `operator_unsupported` for control flow that data decide, `model_too_large`, or what
            the arithmetic raises, with the node.
    """
    return _Folding(proto, nodes, operators, limits, same or {}).graph


class _Unfolded(Exception):  # noqa: N818 - no error: the node stays in the graph
    """The builder wants what only a real build can give."""


class _Folding:
    """Stands in for a Builder: what it is asked to call is computed at once."""

    def __init__(
        self,
        proto: ModelProto,
        nodes: list[Operation],
        operators: Operators,
        limits: Limits,
        same: Mapping[str, str],
    ) -> None:
        graph = proto.graph
        self.opset = opset(proto)
        outputs = network_outputs(graph, nodes)
        kept = live(nodes, outputs)
        wanted = {*outputs, *(name for node in kept for name in reads(node))}
        constants = {
            t.name: stored(t.name, t, same.get(t.name, t.name))
            for t in graph.initializer
            if t.name in wanted or t.data_type != TensorProto.STRING
        }
        held = {tensor.name for tensor in graph.initializer}
        self.graph = Graph(
            proto=proto,
            inputs=[i for i in graph.input if i.name not in held],
            outputs=outputs,
            constants=constants,
        )
        self._operators, self._limits = operators, limits
        self._bytes = self._unrolled = self._places = 0
        self._left = limits.nodes
        self._pending = deque(kept)
        self._uses: dict[str, int] = {}
        self._count(self._pending)
        while self._pending:
            self._left -= 1
            if self._left < 0:
                raise SecateurError(
                    "model_too_large", f"The graph unrolls to more than {limits.nodes} nodes."
                )
            self._take(self._pending.popleft())
        self.graph.nodes = live(self.graph.nodes, outputs)
        self._join_parts()
        self.graph.count()

    def _count(self, nodes: Iterable[Operation]) -> None:
        for node in nodes:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1
        for name in self.graph.outputs:
            self._uses[name] = self._uses.get(name, 0) + 1

    def _take(self, node: Operation) -> None:
        constants = self.graph.constants
        kind = node.op_type
        if kind == "Constant":
            name = node.output[0]
            home = self.graph.homes.get(name)
            source = "/".join((*home.path, home.output)) if home else name
            constants[name] = stored(name, constant_tensor(node), source)
            return
        if kind in ("If", "Loop"):
            self._control(node)
            return
        names = [name for name in node.input if name]
        if kind == "Slice":
            self._decide_bounds(node)
        known = all(name in constants for name in names)
        if known and kind in _ARRANGED and (seen := self._arranged(node)) is not None:
            constants[node.output[0]] = seen
            return
        if known and kind in ("Cast", "Mul", "Div") and (seen := self._adapted(node)) is not None:
            constants[node.output[0]] = seen
            return
        if known and (names or kind == "ConstantOfShape") and self._fold(node):
            return
        self._derive(node, names)
        self.graph.nodes.append(node)

    def _decide_bounds(self, node: Operation) -> None:
        """Takes bounds of a weight's part that sizes of the file fix for constants."""
        constants = self.graph.constants
        if not _weight(constants.get(node.input[0])):
            return
        for name in node.input[1:]:
            if name and name not in constants:
                value = value_of(name, self.graph, self._shapes)
                if value is None:
                    return
                constants[name] = Constant(name, "", value)

    def _join_parts(self) -> None:
        """Takes parts of a tensor that share numbers for results: each would be a weight twice."""
        constants = self.graph.constants
        read = {*self.graph.outputs, *(name for node in self.graph.nodes for name in reads(node))}
        parts: dict[str, dict[object, Constant]] = {}
        for name in sorted(read & constants.keys()):
            constant = constants[name]
            if constant.source:
                parts.setdefault(constant.source, {}).setdefault(constant.route.part, constant)
        for source, each in parts.items():
            if all(constant.route.whole for constant in each.values()):
                continue
            if _apart([constant.route for constant in each.values()]):
                continue
            self.graph.frozen.add(source)
            for name, constant in constants.items():
                if constant.source == source and not constant.route.whole:
                    constants[name] = Constant(
                        name, "", constant.value, computed=name, made_of=frozenset({source})
                    )

    def _derive(self, node: Operation, names: list[str]) -> None:
        """Notes what is computed from stored real numbers alone, but not at import."""
        graph = self.graph
        if names and all(name in graph.constants or name in graph.derived for name in names):
            graph.derived.update(dict.fromkeys(filter(None, node.output), label(node)))

    def _arranged(self, node: Operation) -> Constant | None:
        """The constant that a node only renames or arranges anew."""
        constant = self.graph.constants[node.input[0]]
        name = node.output[0]
        if node.op_type == "Identity":
            return constant.seen_as(name, constant.route)
        shape = constant.shape
        if node.op_type == "Transpose":
            order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
            order = tuple(range(len(shape)))[::-1] if order is None else order
            if sorted(order) != list(range(len(shape))):
                raise SecateurError(
                    "model_invalid",
                    f"perm {list(order)} is no permutation of {len(shape)} axes.",
                    where=label(node),
                )
            return constant.seen_as(name, constant.route.then(("turn", order)))
        sizes = self._sizes(node, shape)
        if sizes is None or prod(sizes) != prod(shape) or min(sizes, default=1) < 0:
            return None  # the operator itself says what is wrong
        return constant.seen_as(name, constant.route.then(("shape", sizes)))

    def _sizes(self, node: Operation, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        ints: dict[str, Any] = {a.name: list(a.ints) or a.i for a in node.attribute}
        second = node.input[1] if len(node.input) > 1 else ""
        given = self.graph.constants[second].value if second else None
        listed = ints.get("axes") if given is None else [int(v) for v in given.reshape(-1)]
        if node.op_type == "Reshape":
            return _reshaped(listed, shape) if listed and not ints.get("allowzero") else None
        if node.op_type == "Flatten":
            axis = axis_of(ints.get("axis", 1), len(shape) + 1, label(node)) if shape else 0
            return (prod(shape[:axis]), prod(shape[axis:]))
        if node.op_type == "Squeeze":
            ones = [i for i, size in enumerate(shape) if size == 1]
            gone = {a % len(shape) for a in listed} if listed and shape else set(ones)
            return tuple(size for i, size in enumerate(shape) if i not in gone)
        rank = len(shape) + len(listed or [])
        new, old = {a % rank for a in listed or []}, iter(shape)
        return tuple(1 if i in new else next(old, 0) for i in range(rank))

    def _adapted(self, node: Operation) -> Constant | None:
        """A cast among real types, or a tensor times one number: both can be written back."""
        constants = self.graph.constants
        first = constants[node.input[0]]
        if not first.source or not first.is_real or prod(first.shape) < 2:
            return None
        if node.op_type == "Cast":
            dtype = _cast_type(node)
            if dtype is None or first.route.dtype or first.route.scale != 1.0:
                return None
            return first.seen_as(node.output[0], first.route.cast(dtype.name))
        second = constants[node.input[1]]
        if second.value.size != 1 or len(second.shape) > len(first.shape):
            return None
        factor = float(second.value.reshape(-1)[0])
        factor = factor if node.op_type == "Mul" else 1 / factor if factor else 0.0
        if len(first.shape) < 2 or not np.isfinite(factor) or factor == 0:
            return None
        route = first.route
        scaled = Route(route.start, route.moves, route.scale * factor, route.dtype)
        return first.seen_as(node.output[0], scaled)

    def _fold(self, proto: Operation) -> bool:
        build = self._operators.get(proto.op_type)
        if build is None or proto.op_type not in FOLDED:
            return False
        node = Node(proto, self._uses)
        try:
            build(node, self)
        except _Unfolded:
            return False
        if left := node.attributes.unread():
            raise node.unsupported(f"attribute {', '.join(left)}")
        return True

    def _control(self, node: Operation) -> None:
        choice = decided(node, self.graph, self._shapes)
        left = min(self._left, _UNROLLED - self._unrolled)
        nodes, constants = inlined(node, choice, self.graph, left)
        self._unrolled += len(nodes)
        self.graph.constants.update(constants)
        for inner in nodes:
            self._uses.update({name: self._uses.get(name, 0) + 1 for name in inner.input})
        self._pending.extendleft(reversed(nodes))

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        from pruning.formats.onnx.shapes import infer_shapes

        found = {name: shape for name, (shape, _) in infer_shapes(self.graph).items()}
        self.graph.light = None  # the graph still grows
        return found

    # What builders ask a Builder for.

    def constant(self, name: str | None) -> Constant | None:
        """As `Builder.constant`."""
        return self.graph.constants.get(name) if name else None

    def rank(self, name: str) -> int | None:
        """As `Builder.rank`."""
        constant = self.graph.constants.get(name)
        return None if constant is None else len(constant.shape)

    def refuse_computed(self, node: Node, name: str | None, what: str) -> None:
        """Nothing is a weight here."""

    def call(
        self,
        node: Node,
        function: Callable[..., Any],
        inputs: list[str | None],
        outputs: list[str] | None = None,
    ) -> None:
        """Computes the function of host arrays and keeps the results as constants."""
        constants = self.graph.constants
        given = [constants[name] for name in inputs if name]
        if (
            node.operator in _CUTS
            and _weight(given[0])
            and self._cut(node, function, inputs, outputs)
        ):
            return
        arguments = [None if not name else constants[name].host() for name in inputs]
        if sum(prod(c.shape) for c in given) > LARGEST:
            raise _Unfolded
        try:
            results = function(*arguments)
        except SecateurError as error:
            message = error.message
            if error.code == "model_too_large":
                message = f"Constants computed in the graph are too large: {message}"
            raise SecateurError(
                error.code, message, where=error.where or node.label, hint=error.hint
            ) from None
        except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError):
            raise _Unfolded from None
        results = results if isinstance(results, tuple) else (results,)
        names = outputs if outputs is not None else [node.one_output()]
        shape_only = node.operator in ("Shape", "Size")
        # An array of real numbers among the arguments may be a weight that training moves.
        real = not shape_only and any(c.is_real and prod(c.shape) > 1 for c in given)
        origin = next((c.computed for c in given if c.computed), None)
        origin = node.label if real and any(c.source for c in given) else origin
        made_of = frozenset(s for c in given if c.is_real for s in c.made_of | {c.source} if s)
        for name, result in zip(names, results, strict=False):
            array = result.numpy() if isinstance(result, Tensor) else np.asarray(result)
            self._bytes += array.nbytes
            if self._bytes > _MOST:
                raise SecateurError(
                    "model_too_large",
                    f"Constants computed in the graph take more than {_MOST} bytes.",
                    where=node.label,
                )
            if name:
                made = frozenset() if shape_only else made_of
                constants[name] = Constant(name, "", array, computed=origin, made_of=made)
                if origin and not shape_only:
                    self.graph.derived[name] = origin
        if not shape_only:
            self.graph.frozen.update(c.source for c in given if c.source)

    def _cut(
        self,
        node: Node,
        function: Callable[..., Any],
        inputs: list[str | None],
        outputs: list[str] | None,
    ) -> bool:
        """Follows a weight into its parts, which stay weights of the file.

        Returns:
            False where a slice is taken twice or none, indices have several axes, or the parts of
            the graph come to more places than are written out.
        """
        constants = self.graph.constants
        whole, *rest = [constants[name] if name else None for name in inputs]
        assert whole is not None
        names = outputs if outputs is not None else [node.one_output()]
        shape, gone = whole.shape, None
        self._places += len(names) * sum(shape)
        if self._places > _PLACES:
            return False
        bounds = [None if c is None else c.host() for c in rest]
        if node.operator == "Gather":
            assert bounds[0] is not None
            # The builder has taken the attribute from `node.attributes`.
            axis = next((a.i for a in node.proto.attribute if a.name == "axis"), 0)
            axis = axis_of(axis, len(shape), node.label)
            gone = axis if bounds[0].ndim == 0 else None
            if bounds[0].ndim > 1 or not (abs(bounds[0] + 0.5) < shape[axis]).all():
                return False
            taken = (bounds[0].reshape(-1) % shape[axis]).tolist()
            lines = [[taken if a == axis else list(range(n)) for a, n in enumerate(shape)]]
        else:
            lines = _lines(function, shape, bounds)
        if any(len(set(line)) < len(line) or not line for part in lines for line in part):
            return False
        for name, part in zip(names, lines, strict=True):
            route = whole.route
            for axis, line in enumerate(part):
                route = route.cut(axis, line)
            if gone is not None:
                left = route.shapes[-1]
                route = route.then(("shape", (*left[:gone], *left[gone + 1 :])))
            constants[name] = whole.seen_as(name, route)
        return True

    def layer(self, *_: Any, **__: Any) -> None:
        """Layers are built later."""
        raise _Unfolded

    place = bind = layer


def _weight(constant: Constant | None) -> bool:
    """Whether a constant is a tensor of several real numbers out of the file."""
    return (
        constant is not None
        and bool(constant.source)
        and constant.is_real
        and len(constant.shape) > 0
        and prod(constant.shape) > 1
    )


def _apart(routes: list[Route]) -> bool:
    """Whether no two parts of one tensor hold the same number."""
    start = routes[0].start
    if sum(prod(route.shapes[-1]) for route in routes) > prod(start):
        return False
    if len(routes) * prod(start) > _COMPARED:
        return False
    taken = np.zeros(start, dtype=bool)
    for route in routes:
        picked = route.picked()
        if (taken & picked).any():
            return False
        taken |= picked
    return True


def _lines(
    function: Callable[..., Any], shape: tuple[int, ...], bounds: list[np.ndarray | None]
) -> list[list[list[int]]]:
    """What Slice or Split takes along each axis, for each result.

    They give views, so that numbers of the axis alone, spread over a tensor of that shape, tell it
    without a copy of that size.
    """
    found: list[list[list[int]]] = []
    for axis, size in enumerate(shape):
        numbers = np.arange(size).reshape(-1, *[1] * (len(shape) - 1 - axis))
        results = function(np.broadcast_to(numbers, shape), *bounds)
        results = results if isinstance(results, tuple) else (results,)
        found = found or [[] for _ in results]
        for lines, part in zip(found, results, strict=True):
            first: tuple[Any, ...] = (*[0] * axis, slice(None), *[0] * (len(shape) - 1 - axis))
            lines.append(np.asarray(part)[first].tolist() if np.size(part) else [])
    return found


def _reshaped(sizes: list[int], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if any(size == 0 and i >= len(shape) for i, size in enumerate(sizes)):
        return None
    known = [shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    rest = prod(size for size in known if size != -1)
    if known.count(-1) > 1 or (-1 in known and (rest < 1 or prod(shape) % rest)):
        return None
    return tuple(prod(shape) // rest if size == -1 else size for size in known)


def _cast_type(node: Operation) -> np.dtype | None:
    from onnx import helper

    to = next((a.i for a in node.attribute if a.name == "to"), 0)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    except KeyError:
        return None
    known = dtype.name in ("float16", "bfloat16", "float32", "float64")
    return dtype if known and is_real(computing_dtype(dtype)) else None

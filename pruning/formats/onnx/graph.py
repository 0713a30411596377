"""The graph without its detours: constants with their origin, and the nodes that matter."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Route, Use, computing_dtype, is_real, named_dtype
from pruning.formats.onnx.operation import Operation
from pruning.formats.onnx.parse import shown, subgraphs

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_RAW: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype("<f4"), TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.FLOAT16: np.dtype("<f2"), TensorProto.INT64: np.dtype("<i8"),
    TensorProto.INT32: np.dtype("<i4"), TensorProto.BOOL: np.dtype("?"),
    TensorProto.INT8: np.dtype("i1"), TensorProto.UINT8: np.dtype("u1"),
}  # fmt: skip
HELD = frozenset({
    *_RAW, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32,
    TensorProto.UINT64,
})  # fmt: skip


Shapes = dict[str, tuple[tuple[int | None, ...], int]]


class Constant:
    """A constant value: the tensor of the file it comes from and the way from it, or a result.

    Attributes:
        name: What the graph calls the value.
        source: The tensor's name in the file; empty for a result computed from constants.
        route: From the tensor to the value, where there is a source.
        computed: The node that computed a result from tensors of real numbers.
        made_of: Those tensors' names in the file.
    """

    def __init__(
        self,
        name: str,
        source: str,
        tensor: TensorProto | np.ndarray,
        route: Route | None = None,
        computed: str | None = None,
        made_of: frozenset[str] = frozenset(),
    ) -> None:
        self.name, self.source, self.computed, self.made_of = name, source, computed, made_of
        self.tensor = tensor
        self._route = route

    @cached_property
    def original(self) -> np.ndarray:
        """The tensor as the file holds it."""
        return self.tensor if isinstance(self.tensor, np.ndarray) else to_array(self.tensor)

    @property
    def route(self) -> Route:
        """From the tensor to the value."""
        if self._route is None:
            self._route = Route(self._stored)
        return self._route

    @cached_property
    def _stored(self) -> tuple[int, ...]:
        held = self.tensor
        return held.shape if isinstance(held, np.ndarray) else tuple(held.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's sizes, without reading its numbers."""
        return self._stored if self._route is None else self._route.shapes[-1]

    @property
    def permutation(self) -> tuple[int, ...]:
        """The identity on the value's axes: what layouts start from."""
        return tuple(range(len(self.shape)))

    @cached_property
    def value(self) -> np.ndarray:
        """The constant as the graph sees it under this name, of the type it has there."""
        return self.route.value(self.original)

    @property
    def array(self) -> np.ndarray:
        """The same as `value`."""
        return self.value

    @property
    def dtype(self) -> np.dtype:
        """The value's type in the graph."""
        if self.route.dtype:
            return named_dtype(self.route.dtype)
        raw = None if isinstance(self.tensor, np.ndarray) else _RAW.get(self.tensor.data_type)
        return self.original.dtype if raw is None else raw

    @property
    def is_real(self) -> bool:
        """Whether the numbers are floating point."""
        return is_real(self.dtype)

    def seen_as(self, name: str, route: Route) -> "Constant":
        """The same tensor under another name, arranged anew."""
        other = Constant(name, self.source, self.tensor, route, self.computed, self.made_of)
        if "original" in self.__dict__:
            other.__dict__["original"] = self.original
        return other

    def host(self) -> np.ndarray:
        """The value as a host array of the type it is computed in."""
        return np.asarray(self.value, dtype=computing_dtype(self.value.dtype), order="C")


@dataclass
class Graph:
    """What the importer works on.

    Attributes:
        nodes: Those that a graph output depends on, without constants and what is computed or
            arranged from constants alone, subgraphs of decided control flow in their place.
        constants: Every constant value by name.
        uses: How often each value is read.
        readers: The first node that reads a value.
        derived: A value computed from constants of real numbers to the node that computes it.
        light: The graph as shape inference takes it, once it has been asked.
        frozen: Tensors of the file that went into results computed at import.
        homes: The first output of a node out of a subgraph to where the file keeps that node.
    """

    proto: ModelProto
    inputs: list[onnx.ValueInfoProto]
    outputs: list[str]
    nodes: list[Operation] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    readers: dict[str, Operation] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    homes: dict[str, "Home"] = field(default_factory=dict)
    light: ModelProto | None = None
    _shapes: dict[object, Shapes] = field(default_factory=dict)
    _both: dict[object, tuple[Shapes, Shapes]] = field(default_factory=dict)

    def use(self, node: Operation, index: int) -> Use | None:
        """Where the file has that input of the node, None where it can't be named anew there."""
        output = first_output(node)
        home = self.homes.get(output)
        if home is None:
            return (), output, index
        return None if index in home.bound else (home.path, home.output, index)

    def shapes(
        self, batch: int | None = None, sizes: dict[str, tuple[int | None, ...]] | None = None
    ) -> Shapes:
        """Shape and bytes a number of every value that inference reaches; see `infer_shapes`."""
        from pruning.formats.onnx.shapes import infer_shapes

        key = (batch, *(sizes or {}).items())
        if key not in self._shapes:
            self._shapes[key] = infer_shapes(self, batch, sizes)
        return self._shapes[key]

    def both_shapes(self, sizes: dict[str, tuple[int | None, ...]]) -> tuple[Shapes, Shapes]:
        """Shapes at both batch sizes that are compared; see `shapes_at_both`."""
        from pruning.formats.onnx.shapes import shapes_at_both

        key = (*sizes.items(),)
        if key not in self._both:
            self._both[key] = shapes_at_both(self, sizes)
        return self._both[key]

    def count(self) -> None:
        """Counts who reads what."""
        self.uses.clear()
        self.readers.clear()
        for node in self.nodes:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1
                self.readers.setdefault(name, node)
        for name in self.outputs:
            self.uses[name] = self.uses.get(name, 0) + 1


@dataclass(frozen=True)
class Home:
    """A node of a subgraph in the file: the subgraph, its first output, inputs from outside."""

    path: tuple[str, ...]
    output: str
    bound: frozenset[int] = frozenset()


def first_output(node: Operation | NodeProto) -> str:
    """The first output that has a name, which tells a node from all others of its graph."""
    return next(filter(None, node.output), "")


def label(node: Operation | NodeProto) -> str:
    """How messages call a node: its name and operator."""
    if not isinstance(node, Operation):
        return _label(node)
    if node.label is None:
        node.label = _label(node)
    return node.label


def _label(node: Operation | NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{shown(name)} ({shown(node.op_type)})" if name else shown(node.op_type)


def type_name(kind: int) -> str:
    """ONNX's name of a tensor type, or its number where there is no such type."""
    return str(TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else kind)


def reads(node: Operation) -> Iterator[str]:
    """Every name that a node or its subgraphs read, the subgraphs' own values among them."""
    yield from node.input
    pending = [inner for _, inner in node.bodies]
    while pending:
        graph = pending.pop()
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from inner.input
            pending.extend(body for _, body in subgraphs(inner))


def live(nodes: Sequence[Operation], outputs: Iterable[str]) -> list[Operation]:
    """The nodes that the outputs depend on."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(reads(node) if node.bodies else node.input)
            found.append(node)
    return found[::-1]


def constant_tensor(node: Operation) -> TensorProto:
    """The value of a Constant node as a tensor.

    Raises:
        SecateurError: `operator_attribute_unsupported` for sparse and text values.
    """
    if len(node.attribute) != 1:
        raise _unread(label(node), f"a constant with {len(node.attribute)} values")
    attribute = node.attribute[0]
    if attribute.ref_attr_name:
        raise _unread(label(node), "a constant taken from a function's attribute")
    if attribute.type == AttributeProto.TENSOR:
        return attribute.t
    if attribute.type == AttributeProto.FLOAT:
        return numpy_helper.from_array(np.array(attribute.f, np.float32))
    if attribute.type == AttributeProto.FLOATS:
        return numpy_helper.from_array(np.array(attribute.floats, np.float32))
    if attribute.type == AttributeProto.INT:
        return numpy_helper.from_array(np.array(attribute.i, np.int64))
    if attribute.type == AttributeProto.INTS:
        return numpy_helper.from_array(np.array(attribute.ints, np.int64))
    raise _unread(label(node), f"a constant given as {shown(attribute.name)}")


def stored(name: str, tensor: TensorProto, source: str) -> Constant:
    """A tensor of the file as a constant.

    Raises:
        SecateurError: `operator_attribute_unsupported` for types that are not read.
    """
    if tensor.data_type not in HELD:
        raise _unread(shown(name), f"a constant of type {type_name(tensor.data_type)}")
    return Constant(name, source, tensor)


def to_array(tensor: TensorProto) -> np.ndarray:
    """The numbers of a tensor, read-only where they lie in the file as they are computed with.

    Raises:
        SecateurError: `model_invalid` for a tensor whose bytes do not fit its shape.
    """
    raw, dtype = tensor.raw_data, _RAW.get(tensor.data_type)
    try:
        if raw and dtype is not None:
            return np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))
        if tensor.data_type == TensorProto.FLOAT:
            # Written out they lie in one piece, which NumPy reads faster than one by one.
            packed = TensorProto(float_data=tensor.float_data).SerializeToString()
            packed = packed[len(packed) - 4 * len(tensor.float_data) :]
            return np.frombuffer(packed, "<f4").reshape(tuple(tensor.dims))
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise SecateurError(
            "model_invalid", f"The tensor's bytes do not fit its shape ({shown(str(error))}).",
            where=shown(tensor.name),
        ) from None  # fmt: skip


def _unread(where: str, what: str) -> SecateurError:
    return SecateurError(
        "operator_attribute_unsupported",
        f"The graph holds {what}, which is not read.",
        where=where,
        hint="Export the model with dense float32, float16, bfloat16 or float64 weights.",
    )

"""How a parameter of the module stands for a tensor of the file, there and back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from pruning.errors import SecateurError

_BFLOAT16 = "bfloat16"

Move = tuple[str, tuple[int, ...]]
"""("turn", permutation) | ("shape", sizes) | ("take", indices on the first axis, none twice)."""

Use = tuple[tuple[str, ...], str, int]
"""Where the file reads a tensor: the subgraph, the first output of the node, the input's index."""


@dataclass(frozen=True)
class Layout:
    """parameter = scale * value.transpose(permutation).reshape(shape), in the module's dtype.

    Relative to the value that the node reads. With `of`, the turned value is cut into that many
    equal parts in row-major order, and `blocks` are the parts that the parameter holds.
    """

    permutation: tuple[int, ...]
    shape: tuple[int, ...]
    scale: float = 1.0
    of: int = 0
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Route:
    """How a tensor of the file becomes a value: moves without arithmetic, a cast, one factor.

    Attributes:
        start: The tensor's shape in the file.
        moves: What arranges its numbers anew, merged where two follow each other.
        scale: What the numbers are multiplied by.
        dtype: The real type that the graph casts the tensor to, where it does.
    """

    start: tuple[int, ...]
    moves: tuple[Move, ...] = ()
    scale: float = 1.0
    dtype: str | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape before each move, and after the last."""
        if not self.moves:
            return [self.start]
        shapes = [self.start]
        for move in self.moves:
            shapes.append(_shape_after(move, shapes[-1]))
        return shapes

    def then(self, *moves: Move) -> "Route":
        """This route with further moves."""
        result = list(self.moves)
        shape = self.shapes[-1]
        for kind, numbers in moves:
            if kind == "turn" and numbers == tuple(range(len(numbers))):
                continue
            if kind == "shape" and numbers == shape:
                continue
            shape = _shape_after((kind, numbers), shape)
            if result and result[-1][0] == kind == "shape":
                result[-1] = (kind, numbers)
            elif result and result[-1][0] == kind == "turn":
                both = tuple(result[-1][1][axis] for axis in numbers)
                result[-1:] = [] if both == tuple(range(len(both))) else [(kind, both)]
            else:
                result.append((kind, numbers))
        return Route(self.start, tuple(result), self.scale, self.dtype)

    def laid_out(self, layout: Layout) -> "Route":
        """This route followed by a layout."""
        if (
            not layout.of
            and layout.scale == 1.0
            and layout.permutation == tuple(range(len(layout.permutation)))
            and layout.shape == self.shapes[-1]
        ):
            return self
        route = self.then(("turn", layout.permutation))
        if layout.of:
            whole = (layout.of, prod(route.shapes[-1]) // layout.of)
            route = route.then(("shape", whole), ("take", layout.blocks))
        route = route.then(("shape", layout.shape))
        return Route(route.start, route.moves, self.scale * layout.scale, self.dtype)

    def cut(self, axis: int, places: Sequence[int]) -> "Route":
        """This route followed by taking slices along an axis, none twice."""
        shape = self.shapes[-1]
        if tuple(places) == tuple(range(shape[axis])):
            return self
        front = (axis, *(a for a in range(len(shape)) if a != axis))
        return self.then(("turn", front), ("take", tuple(places)), ("turn", _inverse(front)))

    def cast(self, dtype: str) -> "Route":
        """This route with a cast to another real type."""
        return Route(self.start, self.moves, self.scale, dtype)

    @property
    def whole(self) -> bool:
        """Whether no part of the tensor is taken out or moved among others."""
        return not self.part

    @property
    def part(self) -> tuple[Move, ...]:
        """The moves up to the last that takes a part out: which numbers of the tensor these are."""
        last = max((n for n, (kind, _) in enumerate(self.moves, 1) if kind == "take"), default=0)
        return self.moves[:last]

    @property
    def of_part(self) -> "Route":
        """The rest of the route, from the part that is taken out."""
        taken = len(self.part)
        return Route(self.shapes[taken], self.moves[taken:], self.scale, self.dtype)

    def picked(self) -> np.ndarray:
        """Which numbers of the tensor the value holds, bool of the tensor's shape."""
        everything = np.ones(self.shapes[-1], dtype=bool)
        return self.undo(everything, np.zeros(self.start, dtype=bool))

    def back(self) -> tuple[Move, ...]:
        """The moves that undo this reversible route's."""
        shapes = self.shapes
        undone: list[Move] = []
        for (kind, numbers), before in reversed(list(zip(self.moves, shapes, strict=False))):
            undone.append((kind, before if kind == "shape" else _inverse(numbers)))
        return tuple(undone)

    def apply(self, value: Any) -> Any:
        """The moves on an array or a tensor; a view where that is possible."""
        for move, after in zip(self.moves, self.shapes[1:], strict=True):
            value = _moved(value, move, after)
        return value

    def value(self, tensor: np.ndarray) -> np.ndarray:
        """What the graph sees of the tensor: cast, arranged anew, times the factor."""
        if self.dtype is not None:
            tensor = tensor.astype(named_dtype(self.dtype), copy=False)
        found: np.ndarray = self.apply(tensor)
        if self.scale != 1.0:
            scale = computing_dtype(found.dtype).type(self.scale)
            found = (found * scale).astype(found.dtype)
        return found

    def undo(self, after: np.ndarray, before: np.ndarray) -> np.ndarray:
        """`before` (in the file's layout) with the numbers that the route picks replaced."""
        stages = [before]
        for move, shape in zip(self.moves, self.shapes[1:], strict=True):
            stages.append(_moved(stages[-1], move, shape))
        for (kind, numbers), stage in zip(reversed(self.moves), reversed(stages[:-1]), strict=True):
            if kind == "turn":
                after = after.transpose(_inverse(numbers))
            elif kind == "shape":
                after = after.reshape(stage.shape)
            else:
                whole = stage.copy()
                whole[list(numbers)] = after
                after = whole
        return after


@dataclass
class Binding:
    """One tensor of the file and the parameter or buffer that holds it.

    Attributes:
        path: The first place in the module; further layers with the same weight share the object.
        source: The tensor's name in the file.
        route: From the tensor to the parameter.
        uses: The inputs of nodes that read the tensor for this parameter.
        seen: The route from the tensor to the value that those inputs read.
    """

    path: str
    source: str
    route: Route
    uses: list[Use] = field(default_factory=list)
    seen: Route = field(default_factory=lambda: Route(()))


def is_real(dtype: np.dtype) -> bool:
    """Whether numbers of this type are floating point, bfloat16 included."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name == _BFLOAT16)


def computing_dtype(dtype: np.dtype) -> np.dtype:
    """What a tensor is computed in: float16 and bfloat16 in float32, others as they are."""
    half = dtype.itemsize == 2 and is_real(dtype)
    return np.dtype(np.float32) if half else dtype


def to_parameter(tensor: np.ndarray, route: Route) -> np.ndarray:
    """The parameter's value for a tensor of the file; a new array."""
    if route.dtype is not None:
        tensor = tensor.astype(named_dtype(route.dtype), copy=False)
    dtype = computing_dtype(tensor.dtype)
    value = np.array(route.apply(tensor), dtype=dtype, order="C")
    if route.scale != 1.0:
        with np.errstate(over="ignore"):
            value *= dtype.type(route.scale)
    return value


def to_tensor(parameter: np.ndarray, original: np.ndarray, route: Route) -> np.ndarray | None:
    """The file's tensor for a parameter, or None where nothing has changed.

    Elements whose parameter is bit for bit as imported keep the file's bits, whatever rounding a
    scale or a narrower type would bring; zeros are written as +0.

    Raises:
        SecateurError: `weights_non_finite` where the file's type can't hold a value.
    """
    imported = to_parameter(original, route)
    bits = np.dtype(f"u{imported.dtype.itemsize}")
    given = np.ascontiguousarray(parameter, dtype=imported.dtype)
    changed = given.reshape(-1).view(bits) != imported.reshape(-1).view(bits)
    if not changed.any():
        return None
    changed = changed.reshape(given.shape)
    value = given if route.scale == 1.0 else given / given.dtype.type(route.scale)
    value = np.where(value == 0, value.dtype.type(0), value)
    with np.errstate(over="ignore"):
        value = value.astype(original.dtype)
    where = route.undo(changed, np.zeros(original.shape, dtype=bool))
    result = np.where(where, route.undo(value, original), original)
    if not np.isfinite(result[where].astype(np.float64)).all():
        raise SecateurError(
            "weights_non_finite", f"A value is not finite or too large for {original.dtype.name}."
        )
    return np.ascontiguousarray(result).reshape(original.shape)


def named_dtype(name: str) -> np.dtype:
    """NumPy's type of that name, bfloat16 included."""
    if name == _BFLOAT16:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _shape_after(move: Move, shape: tuple[int, ...]) -> tuple[int, ...]:
    kind, numbers = move
    if kind == "turn":
        return tuple(shape[axis] for axis in numbers)
    if kind == "shape":
        assert prod(numbers) == prod(shape)
        return numbers
    return (len(numbers), *shape[1:])


def _moved(value: Any, move: Move, shape: tuple[int, ...]) -> Any:
    kind, numbers = move
    if kind == "turn":
        return value.transpose(numbers) if isinstance(value, np.ndarray) else value.permute(numbers)
    if kind == "shape":
        return value.reshape(shape)
    return value[list(numbers)]

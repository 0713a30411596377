"""Einsum: with a constant matrix it becomes nn.Linear, with one for each of a batch MatMul.

All others are plain sums of products.
"""

from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.values import Value, affordable, is_host, tensors
from pruning.layers import MatMul

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_MOST = 1 << 26
_REST = "."
"""Stands for an ellipsis among the letters of an operand."""


def _einsum(node: Node, builder: Builder) -> None:
    equation = node.attributes.string("equation", "").replace(" ", "")
    if not equation or len(equation) > 500 or set(equation) - _LETTERS - set(".,->"):
        raise node.invalid("its equation is not one")
    for place in (1, 0):
        product = _product(equation, place)
        if product and len(node.inputs) == 2 and _linear(node, builder, product, place):
            return
    builder.call(node, partial(einsum, equation), list(node.inputs))


def einsum(equation: str, *values: Value) -> Value:
    """The sum of products that the equation describes."""
    if is_host(*values):
        shapes = [torch.empty(v.shape, device="meta") for v in values]
        affordable(torch.einsum(equation, *shapes).shape, "Einsum")
    _check_products(equation, values)
    found: Value = compute(partial(torch.einsum, equation), *values)
    return found


def _check_products(equation: str, values: tuple[Value, ...]) -> None:
    """Prices the products of the first operands, which are made one after the other."""
    left, _, right = equation.replace("...", _REST).partition("->")
    operands = left.split(",")
    if len(operands) < 3 or len(operands) != len(values):
        return
    sizes: dict[str, int] = {}
    for letters, value in zip(operands, values, strict=True):
        rest = len(value.shape) - len(letters.replace(_REST, ""))
        axis = 0
        for letter in letters:
            count = rest if letter == _REST else 1
            size = prod(int(s) for s in value.shape[axis : axis + count])
            sizes[letter] = max(sizes.get(letter, 1), size)
            axis += count
    for last in range(2, len(operands)):
        later = "".join(operands[last:]) + right
        held = {c for letters in operands[:last] for c in letters if c in later}
        shape = [sizes[c] for c in held]
        priced(tensors(values[0])[0], shape, "Einsum", _MOST)


@dataclass(frozen=True)
class _Product:
    """An equation that sums the axes `summed` of a value and a weight, and nothing else.

    `given`, `weight` and `result` are the letters of the axes; `shared` are those of all three,
    `kept` those of the value that stay, `new` those of the weight that take the place of the summed
    ones.
    """

    given: str
    weight: str
    result: str

    @property
    def summed(self) -> str:
        """In the weight's order."""
        return "".join(c for c in self.weight if c in self.given and c not in self.result)

    @property
    def shared(self) -> str:
        """In the weight's order."""
        return "".join(c for c in self.weight if c in self.given and c in self.result)

    @property
    def new(self) -> str:
        """In the weight's order."""
        return "".join(c for c in self.weight if c not in self.given)

    @property
    def kept(self) -> str:
        """In the value's order."""
        return "".join(c for c in self.given if c not in self.weight)

    @property
    def is_linear(self) -> bool:
        """Whether this is a product with a matrix, or with one for each of a batch."""
        once = all(len(set(s)) == len(s) for s in (self.given, self.weight, self.result))
        return (
            once
            and bool(self.summed and self.new)
            and _REST not in self.weight
            and set(self.result) == set(self.shared + self.kept + self.new)
        )


def _product(equation: str, place: int) -> _Product | None:
    """The equation as a product with the weight at that place of two operands."""
    left, arrow, right = equation.replace("...", _REST).partition("->")
    operands = left.split(",")
    if not arrow or len(operands) != 2:
        return None
    product = _Product(operands[1 - place], operands[place], right)
    return product if product.is_linear else None


def _linear(node: Node, builder: Builder, product: _Product, place: int) -> bool:
    """Reads the node as a layer if the operand at that place is a tensor of the file."""
    source, name = node.input(1 - place), node.input(place)
    if source is None or builder.constant(source) or source in builder.graph.derived:
        return False
    builder.refuse_computed(node, name, "weight")
    weight = builder.constant(name)
    if weight is None or not weight.source or not weight.is_real:
        return False
    if len(weight.shape) != len(product.weight):
        raise node.invalid(f"a weight with {len(weight.shape)} axes for its equation")
    if product.shared:
        return _batched(node, builder, product, (source, weight))
    order = tuple(product.weight.index(c) for c in product.new + product.summed)
    new, summed = (_sizes(weight, product.weight, part) for part in (product.new, product.summed))
    layout = Layout(order, (prod(new), prod(summed)))
    if min(weight.shape) < 1 or builder.tied_otherwise(weight, layout):
        return False
    layer = plain(nn.Linear, prod(summed), prod(new), bias=False)
    path = builder.place(layer, (weight.source, None, node), "einsum")
    builder.bind(node, f"{path}.weight", weight, layout, prunable=True)
    output = node.one_output()
    if product.given != product.kept + product.summed or len(summed) > 1:
        turned = f"{output}/turned"
        builder.call(node, partial(gathered, product, len(summed)), [source], [turned])
        source = turned
    if product.result == product.kept + product.new and len(new) == 1:
        builder.layer(node, path, source, output)
        return True
    raw = f"{output}/product"
    builder.layer(node, path, source, raw)
    builder.call(node, partial(spread, product, new), [raw], [output])
    return True


def _batched(
    node: Node, builder: Builder, product: _Product, operands: tuple[str, Constant]
) -> bool:
    """Reads the node as a MatMul layer, whose matrices lie along the shared axes."""
    source, weight = operands
    letters = (product.shared, product.summed, product.new)
    shared, summed, new = (_sizes(weight, product.weight, part) for part in letters)
    layout = Layout(
        tuple(product.weight.index(c) for c in "".join(letters)),
        (prod(shared), prod(summed), prod(new)),
    )
    if min(weight.shape) < 1 or builder.tied_otherwise(weight, layout):
        return False
    layer = plain(MatMul, layout.shape, False)
    path = builder.place(layer, (weight.source, None, node), "einsum")
    builder.bind(node, f"{path}.weight", weight, layout, prunable=True)
    output = node.one_output()
    columns, raw = f"{output}/columns", f"{output}/product"
    builder.call(node, partial(rows, product, layout.shape), [source], [columns])
    builder.layer(node, path, columns, raw)
    builder.call(node, partial(unrolled, product, (shared, new)), [raw, source], [output])
    return True


def _sizes(weight: Constant, letters: str, part: str) -> tuple[int, ...]:
    return tuple(weight.shape[letters.index(c)] for c in part)


def gathered(product: _Product, count: int, x: Value) -> Tensor:
    """X with the summed axes joined to a last one."""
    (x,) = tensors(x)
    return _turned(x, product.given, product.kept + product.summed).flatten(x.dim() - count)


def spread(product: _Product, sizes: tuple[int, ...], x: Value) -> Tensor:
    """X with its last axis split into the new ones, in the order of the result."""
    split = tensors(x)[0].unflatten(-1, sizes)
    return _turned(split, product.kept + product.new, product.result)


def rows(product: _Product, sizes: tuple[int, ...], x: Value) -> Tensor:
    """X as one matrix for each of the shared entries, [shared, kept, summed], each in one piece."""
    (x,) = tensors(x)
    turned = _turned(x, product.given, product.shared + product.kept + product.summed)
    return turned.reshape(sizes[0], -1, sizes[1])


def unrolled(
    product: _Product, sizes: tuple[tuple[int, ...], tuple[int, ...]], y: Value, x: Value
) -> Tensor:
    """Y, [shared, kept, new] each in one piece, with the axes of the result.

    Args:
        product: Names the axes.
        sizes: Of the shared axes and of the new ones.
        y: What the matrices made of the rows.
        x: What the rows were taken from, for the sizes that are kept.
    """
    y, x = tensors(y, x)
    turned = _turned(x, product.given, product.shared + product.kept + product.summed)
    kept = turned.shape[len(sizes[0]) : turned.dim() - len(product.summed)]
    whole = y.reshape(*sizes[0], *kept, *sizes[1])
    return _turned(whole, product.shared + product.kept + product.new, product.result)


def _turned(x: Tensor, before: str, after: str) -> Tensor:
    """X with its axes in another order of letters, of which one may stand for several axes."""
    places: dict[str, list[int]] = {}
    axis = 0
    for letter in before:
        count = x.dim() - len(before) + 1 if letter == _REST else 1
        places[letter] = list(range(axis, axis + count))
        axis += count
    return x.permute([axis for letter in after for axis in places[letter]])


def _det(node: Node, builder: Builder) -> None:
    builder.call(node, partial(compute, determinant), [node.input(0)])


def determinant(x: Tensor) -> Tensor:
    """The determinant of the last two axes."""
    return torch.linalg.det(x)


OPERATORS = {"Einsum": _einsum, "Det": _det}

"""How each operation passes a diagonal of second derivatives backwards.

An operation y = phi(x) with Jacobian J passes h_x = (J * J)' h_y, elementwise square, and where it
is not linear f'' dE/dy may be added; the gradient goes along as g_x = J' g_y. One rule a family of
operations, found by the operation's name.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pruning.errors import SecateurError

Pair = tuple[Tensor, Tensor]
"""Second and first derivative of the summed loss in some value, both of its shape."""

Found = Iterator[tuple[Tensor, Pair]]
Rule = Callable[["Call", Pair, Callable[[Any], bool], bool], Found]


@dataclass
class Call:
    """One recorded operation: its arguments, its output, and the layer it happened in."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: str
    words: str
    output: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def name(self) -> str:
        """The operation's plain name."""
        return str(self.func.__name__).strip("_")

    def again(self, old: Tensor, new: Tensor) -> Tensor:
        """The operation once more with one argument replaced."""

        def swap(value: Any) -> Any:
            if value is old:
                return new
            if isinstance(value, list | tuple) and any(v is old for v in value):
                return type(value)(swap(v) for v in value)
            return value

        args = tuple(swap(a) for a in self.args)
        result: Tensor = self.func(*args, **{k: swap(v) for k, v in self.kwargs.items()})
        return result

    def pulled(self, value: Tensor, at: Tensor, back: Tensor) -> Tensor:
        """J' back for the argument `value`, with the Jacobian taken at `at`."""
        with torch.enable_grad():
            leaf = at.detach().clone().requires_grad_()
            (result,) = torch.autograd.grad(self.again(value, leaf), leaf, back)
        return result

    def sources(self, depends: Callable[[Any], bool]) -> list[Tensor]:
        """The arguments that depend on weights; none may come twice."""
        flat: list[Any] = []
        for part in (*self.args, *self.kwargs.values()):
            flat += part if isinstance(part, list | tuple) else [part]
        found = [a for a in flat if depends(a)]
        if len({id(a) for a in found}) != len(found):
            raise self.refusal()
        return found

    def only_source(self, depends: Callable[[Any], bool]) -> Tensor:
        """The one argument that depends on weights.

        Raises:
            SecateurError: There are several, whose product this would be.
        """
        found = self.sources(depends)
        if len(found) != 1:
            raise self.refusal()
        return found[0]

    def refusal(self) -> SecateurError:
        """The error for an operation that no rule describes."""
        return SecateurError(
            "operator_unsupported",
            f"Back-propagation of second derivatives knows no rule for {self.name} in "
            f"{self.words}.",
            where=self.place or None,
            hint="Use curvature: ggn_diagonal or hutchinson, which take any operation.",
        )


def _elementwise(call: Call, pair: Pair, depends: Any, second_derivatives: bool) -> Found:
    """h_x = f'(x)^2 h_y [+ f''(x) g_y], each entry by itself."""
    value = call.only_source(depends)
    training = call.name == "batch_norm" and (
        call.kwargs.get("training") or call.args[5:6] == (True,)
    )
    if value.shape != call.output.shape or training:
        raise call.refusal()
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_()
        result = call.again(value, leaf)
        (slope,) = torch.autograd.grad(result.sum(), leaf, create_graph=True)
        bend = torch.zeros_like(slope)
        if second_derivatives and slope.requires_grad:
            (found,) = torch.autograd.grad(slope.sum(), leaf, allow_unused=True)
            bend = bend if found is None else found
    slope = slope.detach()
    h, g = pair
    yield value, (slope.square() * h + bend * g, slope * g)


def _selection(call: Call, pair: Pair, depends: Any, second_derivatives: bool) -> Found:
    """Entries of the Jacobian are 0 or 1, so that its square is itself."""
    for value in call.sources(depends):
        yield value, (call.pulled(value, value, pair[0]), call.pulled(value, value, pair[1]))


def _sum(call: Call, pair: Pair, depends: Any, second_derivatives: bool) -> Found:
    """Sums and differences, either side broadcast; entries are 1 or -1."""
    if call.kwargs.get("alpha", 1) != 1:
        raise call.refusal()
    for value in call.sources(depends):
        h = call.pulled(value, value, pair[0])
        sign = -1.0 if call.name in ("sub", "isub") and value is call.args[1] else 1.0
        yield value, (sign * h, call.pulled(value, value, pair[1]))


def _weighted(call: Call, pair: Pair, depends: Any, second_derivatives: bool) -> Found:
    """Products with a weight, y = sum w x: h_x = sum w^2 h_y and h_w = sum x^2 h_y."""
    if len(call.args) < 2:
        raise call.refusal()
    x, w = call.args[:2]
    squares = {0: (x, w), 1: (w, x)}
    for number, (value, other) in squares.items():
        if not depends(value):
            continue
        squared = Call(call.func, call.args, call.kwargs, call.place, call.words)
        swapped = list(call.args)
        swapped[1 - number] = other.square()
        squared.args = tuple(swapped)
        h = squared.pulled(value, value, pair[0])
        yield value, (h, call.pulled(value, value, pair[1]))


def _mean(call: Call, pair: Pair, depends: Any, second_derivatives: bool) -> Found:
    """Means over parts of equal size k: entries are 1 / k."""
    value = call.only_source(depends)
    count = _part(call, value)
    yield (
        value,
        (
            call.pulled(value, value, pair[0]) / count,
            call.pulled(value, value, pair[1]),
        ),
    )


def _part(call: Call, value: Tensor) -> float:
    """How many entries each output averages.

    Raises:
        SecateurError: Where parts differ in size.
    """
    if call.name == "mean":
        return value.numel() / call.output.numel()
    axes = call.output.ndim - 2
    inner = value.shape[2:]
    if call.name.startswith("adaptive"):
        if any(a % b for a, b in zip(inner, call.output.shape[2:], strict=True)):
            raise call.refusal()
        return math.prod(inner) / math.prod(call.output.shape[2:])
    settings: list[Any] = [
        call.kwargs.get(key, call.args[n] if len(call.args) > n else default)
        for n, (key, default) in enumerate(
            [
                ("kernel_size", None),
                ("stride", None),
                ("padding", 0),
                ("ceil_mode", False),
                ("count_include_pad", True),
                ("divisor_override", None),
            ],
            start=1,
        )
    ]
    kernel, _, padding, ceil, include, override = settings
    padded = any(padding) if isinstance(padding, tuple | list) else bool(padding)
    if ceil or override is not None or (padded and not include):
        raise call.refusal()
    sizes = (kernel,) * axes if isinstance(kernel, int) else tuple(kernel)
    return float(math.prod(sizes * axes if len(sizes) < axes else sizes))


_NAMES: dict[Rule, str] = {
    _elementwise: "relu relu6 leaky_relu elu celu selu gelu silu mish softplus softsign tanh "
    "sigmoid hardtanh hardsigmoid hardswish logsigmoid exp log sqrt square neg abs clamp clip pow "
    "mul rmul div truediv batch_norm rsub erf sin cos",
    _selection: "flatten reshape view squeeze unsqueeze transpose permute contiguous clone cat "
    "concat concatenate getitem select narrow chunk max_pool1d max_pool2d max_pool3d pad dropout "
    "expand movedim unflatten to float double",
    _sum: "add radd iadd sub isub sum",
    _weighted: "linear conv1d conv2d conv3d",
    _mean: "mean avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""By the operation's plain name."""


def rule_of(call: Call) -> Rule:
    """The rule for an operation.

    Raises:
        SecateurError: `operator_unsupported` naming the operation and its layer.
    """
    if call.name not in RULES:
        raise call.refusal()
    return RULES[call.name]


def check_place(call: Call) -> None:
    """Refuses operations that overwrite their argument.

    Raises:
        SecateurError: `operator_unsupported` naming the operation and its layer.
    """
    name = str(call.func.__name__)
    if name.endswith("_") and not name.startswith("_"):
        raise call.refusal()

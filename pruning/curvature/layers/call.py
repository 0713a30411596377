"""One use of one weight, as a layer kind describes it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Size, Tensor
from torch.autograd.graph import GradientEdge


@dataclass(frozen=True)
class Geometry:
    """How a convolution slides: one entry a spatial axis; `padding` is (before, after)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Bound:
    """The arguments of a call.

    Args:
        inputs: What the weight is applied to.
        weight: The weight itself.
        unfold: Inputs, with samples first, as [n, g, d, T].
        fold: Output gradients, with samples first, as [n, g, o, T].
        movable: Whether the samples may lie along any axis but the last; else along the first.
        copies: How many times `unfold` copies an input's entries; 0 if it is a view.
    """

    inputs: Tensor
    weight: Tensor
    unfold: Callable[[Tensor], Tensor]
    fold: Callable[[Tensor], Tensor]
    movable: bool
    copies: int


@dataclass(frozen=True)
class Use:
    """A call that a forward pass made.

    Args:
        name: The weight's parameter name.
        bound: Its arguments.
        shape: Shape of the output.
        edge: Where the gradient of the output arrives, whatever is done to it in place later.
    """

    name: str
    bound: Bound
    shape: Size
    edge: GradientEdge

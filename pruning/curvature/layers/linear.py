"""Linear: y = x W', at every position of a sample. U_n = x_n' and B_n = (dl / dy_n)'."""

from typing import Any

from torch import Tensor
from torch.nn import functional

from pruning.curvature.layers.call import Bound

FUNCTIONS = (functional.linear,)


def bind(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
    """The arguments of `linear(input, weight, bias)`."""

    def named(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Bound:
        return Bound(input, weight, unfold, fold, movable=True, copies=0)

    return named(*args, **kwargs)


def unfold(inputs: Tensor) -> Tensor:
    """[n, ..., d] as [n, 1, d, T]."""
    flat = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    return flat.transpose(1, 2).unsqueeze(1)


def fold(gradients: Tensor) -> Tensor:
    """[n, ..., o] as [n, 1, o, T]."""
    return unfold(gradients)

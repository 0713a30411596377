"""Products with a matrix that no layer holds: y = W x, or y = x W.

On the left the columns U are those of x [..., d, T]; on the right its rows, and W has its inputs
first. A batch of matrices is no problem of one matrix.
"""

from typing import Any

import torch
from torch import Tensor

FUNCTIONS = (
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    torch.mm,
    Tensor.mm,
    torch.addmm,
    Tensor.addmm,
)
_ADDED = (torch.addmm, Tensor.addmm)


def factors(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Left and right factor of a call."""
    names = ("mat1", "mat2") if function in _ADDED or "mat2" in kwargs else ("input", "other")
    plain = [a for a in args if isinstance(a, Tensor)][1 if function in _ADDED else 0 :]
    left, right = (*plain, *(kwargs[n] for n in names if n in kwargs))[:2]
    return (right, left) if function is Tensor.__rmatmul__ else (left, right)


def weights(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Both factors, each of which may be a weight; one that can't be is replaced by nothing."""
    left, right = factors(function, args, kwargs)
    nothing = left.new_empty(0)
    return [
        left if left.ndim == 2 and right.ndim >= 2 else nothing,
        right if right.ndim == 2 and left.ndim >= 2 else nothing,
    ]


def unfold(inputs: Tensor) -> Tensor:
    """[n, ..., d, t] as [n, 1, d, T]."""
    return inputs.movedim(-2, 1).flatten(2).unsqueeze(1)

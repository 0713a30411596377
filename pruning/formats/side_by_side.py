"""Whether a value holds several batches side by side, as it would hold each by itself."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOGETHER = 2
"""Batches of a file's own number of samples that are run at once to find the sizes that hold it."""


def doubt(whole: Any, apart: Sequence[Any], batch: int) -> int | None:
    """How doubtful it is that a value holds those of the batches; None where it does not.

    Least where the samples have an axis of their own; then side by side along an axis, as heads of
    attention are; then interleaved, as steps are; most along the last axis, which holds features.

    Args:
        whole: A value with `TOGETHER` batches at once.
        apart: The same value with each of them.
        batch: Samples of a batch.
    """
    one = apart[0]
    if not isinstance(whole, Tensor) or whole.dim() != one.dim():
        return None
    axes = [i for i, (m, n) in enumerate(zip(whole.shape, one.shape, strict=True)) if m != n]
    if len(axes) != 1 or whole.shape[axes[0]] != TOGETHER * one.shape[axes[0]]:
        return None
    axis, size = axes[0], one.shape[axes[0]]
    for outer in (n for n in range(1, size // batch + 1) if size % (n * batch) == 0):
        shape = (*one.shape[:axis], outer, TOGETHER, size // outer, *one.shape[axis + 1 :])
        parts = whole.reshape(shape).unbind(axis + 1)
        if all(
            torch.allclose(part.reshape(one.shape).double(), wanted.double(), 1e-4, 1e-5, True)
            for part, wanted in zip(parts, apart, strict=True)
        ):
            if size == batch:
                return 0
            return 3 if axis == one.dim() - 1 else 1 if outer == 1 else 2
    return None


def even(value: Tensor, axis: int) -> bool:
    """Whether a constant is the same for every sample."""
    return bool((value == value.narrow(axis, 0, 1)).all())

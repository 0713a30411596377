"""Normalisations of torch's inner operators by the outer ones, which check all sizes.

The inner ones give statistics as further results; a graph that goes on with these is not read.
"""

from torch import Tensor
from torch.nn import functional


def group_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> tuple[Tensor]:
    """`native_group_norm` of [N, C, ...]; sizes are the input's own."""
    return (functional.group_norm(input, groups, weight, bias, eps),)


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor]:
    """`native_batch_norm` of [N, C, ...] with the statistics of the batch or the stored ones."""
    return (functional.batch_norm(input, mean, variance, weight, bias, training, momentum, eps),)


def batch_norm_without_statistics(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor]:
    """`_native_batch_norm_legit.no_stats`: those of the batch."""
    return batch_norm(input, weight, bias, None, None, True, momentum, eps)


def trained_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor]:
    """`_native_batch_norm_legit_no_training`: with the stored statistics."""
    return batch_norm(input, weight, bias, mean, variance, False, momentum, eps)


def updated_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor]:
    """`_batch_norm_with_update` of the statistics of the batch; stored ones stay."""
    return batch_norm(input, weight, bias, None, None, True, momentum, eps)

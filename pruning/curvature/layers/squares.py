"""The sum of squared per-sample gradients of one weight, from its uses as matrix problems."""

import torch
from torch import Tensor

CACHED = 2**19
"""Entries of per-sample gradients, or of patches, formed at a time: few enough for a cache."""

PAIRS = 8
"""Positions up to which the position form may be used; beyond, its cancellation costs digits."""

Problem = tuple[Tensor, Tensor]
"""Unfolded inputs U [n, g, d, T] and output gradients B [c, n, g, o, T]."""


def sum_of_squares(problems: list[Problem]) -> Tensor:
    """sum_c sum_n (sum over uses of B_cn U_n')^2, entry by entry, shape [g, o, d].

    Args:
        problems: One for each use of the weight within a forward pass. The uses of one sample are
            summed before they are squared, as the gradient of a tied weight is.
    """
    inputs, gradients = problems[0]
    positions, columns = inputs.shape[-1], len(gradients)
    # A pair of positions costs one multiplication an entry whatever the number of columns; a
    # gradient formed costs one a position and column, and about as much again to be squared.
    if len(problems) == 1 and positions <= PAIRS and positions + 1 <= 4 * columns:
        return _by_pairs(inputs, gradients)
    entries = inputs.shape[1] * gradients.shape[3] * inputs.shape[2]
    together = max(1, min(columns, CACHED // entries))
    step = max(1, CACHED // (entries * together))
    total = inputs.new_zeros(inputs.shape[1], gradients.shape[3], inputs.shape[2])
    for start in range(0, len(inputs), step):
        for column in range(0, columns, together):
            some = slice(start, start + step), slice(column, column + together)
            rows = per_sample([(u[some[0]], b[some[1], some[0]]) for u, b in problems])
            if len(rows) == 1:
                total.addcmul_(rows[0], rows[0])
            else:
                total += rows.square_().sum(0)
    return total


def per_sample(problems: list[Problem]) -> Tensor:
    """The gradients B_cn U_n' themselves, uses summed, sample by sample: [n * c, g, o, d]."""
    total: Tensor | None = None
    for u, b in problems:
        # Columns become rows of one product, so that the inputs are not copied for each of them.
        columns, count, groups, outs, positions = b.shape
        left = b.permute(1, 2, 0, 3, 4).reshape(count, groups, columns * outs, positions)
        rows = left @ u.transpose(-1, -2)
        total = rows if total is None else total.add_(rows)
    assert total is not None
    rows = total.unflatten(2, (columns, outs))
    return rows.transpose(1, 2).flatten(0, 1)


def _by_pairs(inputs: Tensor, gradients: Tensor) -> Tensor:
    """The squares as sums over pairs of positions t <= s: one product for all samples.

    (sum_t b_t u_t)^2 = sum_t b_t^2 u_t^2 + 2 sum_{t<s} (b_t b_s)(u_t u_s).
    """
    positions = inputs.shape[-1]
    t, s = torch.triu_indices(positions, positions, device=inputs.device)
    left = (gradients[..., t] * gradients[..., s]).sum(0)
    left = left * torch.where(t == s, 1.0, 2.0).to(left.dtype)
    right = inputs[..., t] * inputs[..., s]
    left, right = (v.permute(1, 2, 0, 3).flatten(2) for v in (left, right))
    return (left @ right.transpose(1, 2)).clamp_(min=0.0)

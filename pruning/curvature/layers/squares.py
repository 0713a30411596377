"""Sums of squared per-sample gradients of one weight, from its uses as matrix problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CACHED = 2**19
"""Entries of per-sample gradients, or of patches, formed at a time: few enough for a cache."""

PAIRS = 8
"""Positions up to which pairs of them may be used, in float32 and less alone.

Where a gradient is a difference of large terms their squares cancel: an entry is off by rounding of
the largest of them rather than by its own. Float64 is asked for where every digit matters, so there
pairs are not used (at 8 positions they save nothing, at 2 to 4 a factor of 2 to 4).
"""

PAIRED = 2**22
"""Entries of pairs of positions formed at a time."""


@dataclass(frozen=True)
class Problem:
    """One use of a weight in a forward pass, and the columns of derivatives that went back.

    Args:
        inputs: What the weight was applied to, samples first.
        gradients: For each of c columns the gradients of the use's output, samples first.
        unfold: Inputs as U [n, g, d, T].
        fold: Gradients of one column as B [n, g, o, T].
        copies: How many times `unfold` copies an input's entries; 0 if it is a view.
    """

    inputs: Tensor
    gradients: Sequence[Tensor]
    unfold: Callable[[Tensor], Tensor]
    fold: Callable[[Tensor], Tensor]
    copies: int

    def unfolded(self, samples: slice) -> Tensor:
        """U of some samples, [n, g, d, T]."""
        return self.unfold(self.inputs[samples])

    def folded(self, samples: slice) -> list[Tensor]:
        """B of some samples, column by column [n, g, o, T]."""
        return [self.fold(gradient[samples]) for gradient in self.gradients]


def add_squares(total: Tensor, problems: list[Problem]) -> None:
    """Add sum_c sum_n (sum over uses of B_cn U_n')^2, entry by entry, to `total` in place.

    Args:
        total: Shape [g, o, d].
        problems: One for each use of the weight within a forward pass. The uses of one sample are
            summed before they are squared, as the gradient of a tied weight is.
    """
    first = problems[0]
    count, columns = len(first.inputs), len(first.gradients)
    groups, outs, entries = total.shape
    positions = first.fold(first.gradients[0][:1]).shape[-1]
    # A pair of positions costs one multiplication an entry whatever the number of columns; a
    # gradient formed costs one a position and column, and about as much again to be squared.
    most = 1 if total.dtype == torch.float64 else PAIRS
    if len(problems) == 1 and positions <= most and positions + 1 <= 4 * columns:
        paired = groups * (outs + entries) * positions * (positions + 1) // 2
        for samples in _slices(count, PAIRED // paired):
            _add_pairs(total, first.unfolded(samples), first.folded(samples))
        return
    together = max(1, min(columns, CACHED // total.numel()))
    patches = max(p.copies * p.inputs[0].numel() for p in problems)
    for samples in _slices(count, CACHED // max(patches, total.numel() * together)):
        parts = [(p.unfolded(samples), p.folded(samples)) for p in problems]
        for start in range(0, columns, together):
            some = [(u, b[start : start + together]) for u, b in parts]
            if total.numel() > CACHED // 32:
                _add_one_by_one(total, some)
            else:
                rows = per_sample(some)
                total += rows.square_().sum((0, 2))


def per_sample(parts: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
    """The gradients sum over uses of B_cn U_n' themselves, shape [n, g, c, o, d].

    Args:
        parts: For each use U [n, g, d, T] and, column by column, B [n, g, o, T].
    """
    total: Tensor | None = None
    for u, b in parts:
        # Columns become rows of one product, so that the inputs are not copied for each of them.
        left = b[0] if len(b) == 1 else torch.cat(b, dim=2)
        rows = left @ u.transpose(-1, -2)
        total = rows if total is None else total.add_(rows)
    assert total is not None
    return total.unflatten(2, (len(parts[0][1]), -1))


def _slices(count: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, start + step) for start in range(0, count, step)]


def _add_one_by_one(total: Tensor, parts: list[tuple[Tensor, list[Tensor]]]) -> None:
    """Gradient after gradient in one buffer, squared while it is still in a cache."""
    buffer = torch.empty_like(total)
    for n in range(len(parts[0][0])):
        for column in range(len(parts[0][1])):
            for number, (u, b) in enumerate(parts):
                left, right = b[column][n], u[n].transpose(-1, -2)
                if number:
                    torch.baddbmm(buffer, left, right, out=buffer)
                elif len(buffer) == 1:
                    torch.mm(left[0], right[0], out=buffer[0])
                else:
                    torch.bmm(left, right, out=buffer)
            total.addcmul_(buffer, buffer)


def _add_pairs(total: Tensor, inputs: Tensor, gradients: list[Tensor]) -> None:
    """The squares as sums over pairs of positions t <= s: one product for all samples.

    (sum_t b_t u_t)^2 = sum_t b_t^2 u_t^2 + 2 sum_{t<s} (b_t b_s)(u_t u_s).
    """
    positions = inputs.shape[-1]
    if positions == 1:
        left = torch.zeros_like(gradients[0])
        for b in gradients:
            left.addcmul_(b, b)
        right = inputs.square()
    else:
        t, s = torch.triu_indices(positions, positions, device=inputs.device)
        left = gradients[0][..., t] * gradients[0][..., s]
        for b in gradients[1:]:
            left += b[..., t] * b[..., s]
        left = left * torch.where(t == s, 1.0, 2.0).to(left.dtype)
        right = inputs[..., t] * inputs[..., s]
    left, right = (v.permute(1, 2, 0, 3).flatten(2) for v in (left, right))
    if positions == 1:
        total.baddbmm_(left, right.transpose(1, 2))
    else:
        total += (left @ right.transpose(1, 2)).clamp_(min=0.0)

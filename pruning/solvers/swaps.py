"""Swaps on a solved support: what is worth least goes, what the error pulls at most comes back.

On the best weights of a support S the error of a row is stationary, so removing weight q of it
costs w_q^2 / [H_SS^-1]_qq and bringing back p gains r_p^2 / (H_pp - H_pS H_SS^-1 H_Sp), with r the
row of (A - W) H. Both denominators need each row's own inverse; here the metric of the layer
stands in for them to rank the candidates, many are exchanged at once, conjugate gradients
mend the row, and its true error decides: a row that got worse is put back and tries fewer.
So no row's error ever rises, and the number of zeros of each row (and group) stays.
"""

import torch
from torch import Tensor

from pruning.solvers import masked_cg
from pruning.solvers.layer import Pattern


def refine(
    curvature: Tensor,
    aim: Tensor,
    weight: Tensor,
    removed: Tensor,
    scale: Tensor,
    pattern: Pattern,
    *,
    gone: Tensor | None = None,
    rounds: int = 4,
    share: float = 0.02,
    steps: int = 6,
) -> tuple[Tensor, Tensor]:
    """Weights and removed after some rounds of swaps within rows, each row no worse than before.

    Args:
        curvature: H, damped, shape [g, d, d].
        aim: A, shape [g, o, d].
        weight: About the best weights on the support, zero where `removed`, shape [g, o, d].
        removed: True for the removed weights, shape [g, o, d].
        scale: Square roots of the metric's diagonal, shape [g, d].
        pattern: Where swaps are possible: `unstructured` in a row, `nm` in a group; other
            patterns are returned as they are.
        gone: Weights that may not come back, shape [g, o, d].
        rounds: How often swaps are tried.
        share: Of a row's survivors, how many are exchanged in its first round (at least one).
        steps: Conjugate-gradient steps that mend a row after its swaps.
    """
    if pattern.kind == "block":
        return weight, removed
    locked = (gone if gone is not None else removed.new_zeros(())).expand_as(removed)
    square = scale.square()[:, None, :]
    done = []
    for start in range(0, aim.shape[1], masked_cg.ROWS):
        rows = slice(start, start + masked_cg.ROWS)
        slab = (aim[:, rows], weight[:, rows], removed[:, rows], locked[:, rows])
        done.append(_refine(curvature, square, *slab, pattern, rounds, share, steps))
    return torch.cat([solved for solved, _ in done], 1), torch.cat([mask for _, mask in done], 1)


def _refine(
    curvature: Tensor, square: Tensor, aim: Tensor, weight: Tensor, removed: Tensor, locked: Tensor,
    pattern: Pattern, rounds: int, share: float, steps: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    tries = ((~removed).sum(-1) * share).round().clamp(min=1.0)
    for _ in range(rounds):
        change = aim - weight
        pull = torch.bmm(change, curvature)
        errors = torch.linalg.vecdot(pull, change)
        loss = torch.mul(weight, weight, out=change).mul_(square)
        gain = pull.square_().div_(square)
        candidate = _swap(loss, gain, removed, tries.long(), pattern, locked)
        moved = masked_cg.improve(curvature, aim, weight, candidate, steps)
        better = _errors(curvature, aim, moved) < errors
        weight = torch.where(better[..., None], moved, weight)
        removed = torch.where(better[..., None], candidate, removed)
        tries = torch.where(better, tries, (tries / 2).floor().clamp(min=1.0))
    return weight, removed


def _errors(curvature: Tensor, aim: Tensor, weight: Tensor) -> Tensor:
    """Each row's error in the damped H, [g, o]."""
    change = weight - aim
    return torch.linalg.vecdot(torch.bmm(change, curvature), change)


def _swap(
    loss: Tensor, gain: Tensor, removed: Tensor, tries: Tensor, pattern: Pattern, locked: Tensor
) -> Tensor:
    """Removed after up to `tries` swaps a row, the best gains for the least losses first.

    `loss` and `gain` are overwritten.
    """
    width = pattern.columns if pattern.kind == "nm" else loss.shape[-1]
    most = 1 if pattern.kind == "nm" else int(tries.max())
    loss = loss.masked_fill_(removed, torch.inf).unflatten(-1, (-1, width))
    gain = gain.masked_fill_(~removed | locked, -torch.inf).unflatten(-1, (-1, width))
    out_cost, out = loss.topk(min(most, width), dim=-1, largest=False)
    in_gain, back = gain.topk(min(most, width), dim=-1)
    worth = in_gain - out_cost
    do = worth > 0
    if pattern.kind == "nm":
        # The best groups of a row, one swap in each.
        flat = worth[..., 0]
        order = flat.argsort(dim=-1, descending=True).argsort(dim=-1)
        do &= (order < tries[..., None])[..., None]
    else:
        do &= torch.arange(do.shape[-1], device=do.device) < tries[..., None, None]
    result = removed.unflatten(-1, (-1, width)).clone()
    # An index that is not swapped writes back what stood there.
    result.scatter_(-1, out, result.gather(-1, out) | do)
    result.scatter_(-1, back, result.gather(-1, back) & ~do)
    return result.flatten(-2)

"""The inverse curvature of OBS, and its update of the survivors for a whole removed set at once.

Minimising 1/2 dw' H dw subject to dw_Q = -w_Q over the survivors S gives dw_S = H_SS^-1 H_SQ w_Q,
which equals -[H^-1]_:Q ([H^-1]_QQ)^-1 w_Q (Kurtic et al. 2022, eq. 5; for one weight Hassibi and
Stork 1992, eq. 5). H stands for curvature + damping I throughout, in float64. Where a row of it is
zero see `pruning.solvers.null_space`.
"""

from functools import singledispatch

import torch
from torch import Tensor

from pruning.criteria.problem import Problem
from pruning.curvature.kronecker import Kronecker
from pruning.curvature.matrix import Blocks, Dense, Diagonal, LowRank, Matrix
from pruning.solvers import kronecker, low_rank
from pruning.solvers.null_space import free
from pruning.solvers.singular import SingularError

__all__ = ["SingularError", "compensate", "inverse_diagonal", "survivors_update"]

PANEL = 256
"""Columns of an inverse factor that are solved for at a time."""


def compensate(problem: Problem, removed: Tensor) -> Tensor:
    """The change of all active weights for the removed set, shape [A]; dw_Q = -w_Q exactly.

    Args:
        problem: Weights, curvature and damping.
        removed: True for the removed set Q, shape [A].

    Raises:
        SingularError: If the survivors' curvature can't be factorised.
    """
    if problem.curvature is None:
        raise ValueError("the OBS update needs curvature")
    change = survivors_update(problem.curvature, problem.weights, removed, problem.damping)
    return torch.where(removed, -problem.weights, change)


@singledispatch
def inverse_diagonal(curvature: Matrix, damping: float) -> Tensor:
    """Diagonal of (H + damping I)^-1, infinite where its row is zero, shape [A].

    Raises:
        SingularError: If the matrix can't be factorised.
    """
    raise TypeError(f"no inverse for {type(curvature).__name__}")


@singledispatch
def survivors_update(curvature: Matrix, weights: Tensor, removed: Tensor, damping: float) -> Tensor:
    """dw_S for the removed set, shape [A], zero at the removed weights and where H's row is zero.

    Raises:
        SingularError: If the survivors' matrix can't be factorised.
    """
    raise TypeError(f"no update for {type(curvature).__name__}")


@inverse_diagonal.register
def _(curvature: Diagonal, damping: float) -> Tensor:
    damped = curvature.values + damping
    bad = ~(damped > 0) & ~free(curvature, damping)
    if bool(bad.any()):
        positions = bad.nonzero()[:1, 0]
        raise SingularError(positions, damped[positions][:, None])
    return damped.reciprocal()


@survivors_update.register
def _(curvature: Diagonal, weights: Tensor, removed: Tensor, damping: float) -> Tensor:
    return torch.zeros_like(weights)


@inverse_diagonal.register
def _(curvature: Dense, damping: float) -> Tensor:
    nothing = free(curvature, damping)
    everything = torch.arange(len(nothing), device=nothing.device)
    factor = _cholesky(_damped(curvature.values, damping)[None], everything[None], nothing[None])
    return _diagonal_of_inverse(factor)[0].masked_fill(nothing, torch.inf)


@survivors_update.register
def _(curvature: Dense, weights: Tensor, removed: Tensor, damping: float) -> Tensor:
    survivors = (~removed & ~free(curvature, damping)).nonzero()[:, 0]
    gone = removed.nonzero()[:, 0]
    change = torch.zeros_like(weights)
    if len(survivors) == 0 or len(gone) == 0:
        return change
    rows = curvature.values[survivors]
    pull = rows[:, gone] @ weights[gone]
    factor = _cholesky(_damped(rows[:, survivors], damping)[None], survivors[None])
    change[survivors] = torch.cholesky_solve(pull[:, None], factor[0])[:, 0]
    return change


@inverse_diagonal.register
def _(curvature: Blocks, damping: float) -> Tensor:
    nothing = free(curvature, damping)
    out = curvature.scatter(nothing.double(), padding=1.0).bool()
    factor = _cholesky(_damped(curvature.values, damping), curvature.index, out)
    return curvature.gather(_diagonal_of_inverse(factor)).masked_fill(nothing, torch.inf)


@survivors_update.register
def _(curvature: Blocks, weights: Tensor, removed: Tensor, damping: float) -> Tensor:
    gone = curvature.scatter(removed.double(), padding=1.0).bool()
    removed_weights = curvature.scatter(torch.where(removed, weights, 0.0))
    pull = (curvature.values @ removed_weights[..., None]).masked_fill(gone[..., None], 0.0)
    out = curvature.scatter((removed | free(curvature, damping)).double(), padding=1.0).bool()
    factor = _cholesky(_damped(curvature.values, damping), curvature.index, out)
    return curvature.gather(torch.cholesky_solve(pull, factor)[..., 0])


inverse_diagonal.register(LowRank, low_rank.inverse_diagonal)
survivors_update.register(LowRank, low_rank.survivors_update)
inverse_diagonal.register(Kronecker, kronecker.inverse_diagonal)
survivors_update.register(Kronecker, kronecker.survivors_update)


def _diagonal_of_inverse(factor: Tensor) -> Tensor:
    """Diagonals of (L L')^-1 for lower factors L, shape [batch, n]: column norms of L^-1.

    L^-1 is lower triangular too, so panel by panel only its rows from the panel on are solved for:
    a third of the work of a full solve, and the inverse itself is never formed.
    """
    count, size = factor.shape[:2]
    diagonal = factor.new_empty(count, size)
    for start in range(0, size, PANEL):
        below = factor[:, start:, start:]
        width = min(PANEL, size - start)
        right = torch.eye(size - start, width, dtype=factor.dtype, device=factor.device)
        columns = torch.linalg.solve_triangular(below, right.expand(count, -1, -1), upper=False)
        diagonal[:, start : start + width] = columns.square().sum(1)
    return diagonal


def _damped(values: Tensor, damping: float) -> Tensor:
    damped = values.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damping)
    return damped


def _left_out(values: Tensor, out: Tensor) -> Tensor:
    """The matrices with rows and columns cut out, shapes [batch, n, n] and [batch, n].

    In their place stand rows of a diagonal matrix as large as the rest, which leave that alone.
    """
    crossed = out[:, :, None] | out[:, None, :]
    values = values.masked_fill(crossed, 0.0)
    diagonal = values.diagonal(dim1=1, dim2=2)
    scale = diagonal.amax(1, keepdim=True)
    diagonal.copy_(torch.where(out, torch.where(scale > 0, scale, 1.0), diagonal))
    return values


def _cholesky(values: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Lower factors of a batch; singular to working precision counts as failed.

    The squared ratio of the extreme pivots bounds the condition number from below.

    Args:
        values: Shape [batch, n, n].
        index: Active positions of the rows, -1 for padding, shape [batch, n].
        out: Rows and columns to leave out, shape [batch, n].
    """
    if out is not None and bool(out.any()):
        values, index = _left_out(values, out), index.masked_fill(out, -1)
    factor, info = torch.linalg.cholesky_ex(values)
    pivots = factor.diagonal(dim1=1, dim2=2)
    scale = values.diagonal(dim1=1, dim2=2).amax(1).clamp(min=0.0)
    floor = scale * values.shape[-1] * torch.finfo(values.dtype).eps
    bad = (info != 0) | ~(pivots.square().amin(1) > floor)
    if bool(bad.any()):
        block = int(bad.nonzero()[0, 0])
        real = index[block] >= 0
        raise SingularError(index[block][real], values[block][real][:, real])
    return factor

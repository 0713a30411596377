"""The OBS inverse of V'V + damping I by an m x m system (Woodbury 1950)."""

import torch
from torch import Tensor

from pruning.curvature.matrix import LowRank
from pruning.solvers.null_space import free
from pruning.solvers.singular import SingularError


def inverse_diagonal(curvature: LowRank, damping: float) -> Tensor:
    """1/d (1 - [V' (d I + V V')^-1 V]_qq), infinite where V's column is zero and d too, shape [A].

    Raises:
        SingularError: Without damping, where the rows can't span all weights.
    """
    rows = curvature.rows
    nothing = free(curvature, damping)
    if bool(nothing.all()):
        return torch.full_like(rows[0], torch.inf)
    factor = _factor(curvature, rows, damping)
    explained = torch.linalg.solve_triangular(factor, rows, upper=False).square().sum(0)
    return (1.0 - explained).clamp(min=torch.finfo(rows.dtype).eps) / damping


def survivors_update(
    curvature: LowRank, weights: Tensor, removed: Tensor, damping: float
) -> Tensor:
    """dw_S = V_S' (d I + V_S V_S')^-1 V_Q w_Q, which is H_SS^-1 H_SQ w_Q; zero on Q, shape [A].

    Raises:
        SingularError: As `inverse_diagonal`.
    """
    if bool(free(curvature, damping).all()):
        return torch.zeros_like(weights)
    kept = curvature.rows.masked_fill(removed, 0.0)
    pull = curvature.rows @ torch.where(removed, weights, 0.0)
    factor = _factor(curvature, kept, damping)
    return kept.T @ torch.cholesky_solve(pull[:, None], factor)[:, 0]


def _factor(curvature: LowRank, rows: Tensor, damping: float) -> Tensor:
    gram = rows @ rows.T
    top = float(gram.diagonal().sum())
    floor = top * len(gram) * torch.finfo(rows.dtype).eps
    damped = gram.clone()
    damped.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(damped)
    if not damping > floor or int(info) != 0:
        everything = torch.arange(rows.shape[1], device=rows.device)
        raise SingularError(
            everything, diagonal=curvature.diagonal(), spectrum=_spectrum(gram, damping)
        )
    return factor


def _spectrum(gram: Tensor, damping: float) -> Tensor:
    """Eigenvalues of V V' + d I, which V' V + d I shares; NaN where V is not finite."""
    if not bool(torch.isfinite(gram).all()):
        return torch.full_like(gram[0], torch.nan)
    return torch.linalg.eigvalsh(gram) + damping

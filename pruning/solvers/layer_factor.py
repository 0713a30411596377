"""The damped Gram matrices of a layer and their factors, which every exact solver starts from."""

import torch
from torch import Tensor

from pruning.solvers.layer import LayerProblem
from pruning.solvers.singular import SingularError


def dead_inputs(problem: LayerProblem) -> Tensor:
    """True for inputs that are always zero: no weight on them changes the output, shape [g, d]."""
    return problem.gram.diagonal(dim1=1, dim2=2) == 0


def damped(problem: LayerProblem) -> Tensor:
    """H + damping, with ones for dead inputs where there is no damping, shape [g, d, d].

    A dead input is coupled to none, so what stands on its diagonal changes no other weight.
    """
    values = problem.damped()
    diagonal = values.diagonal(dim1=1, dim2=2)
    diagonal.masked_fill_(dead_inputs(problem) & (diagonal == 0), 1.0)
    return values


def cholesky(values: Tensor) -> Tensor:
    """Lower factors of positive definite matrices, shape [batch, n, n], in their own dtype.

    What is singular to single precision is factorised in double precision.

    Raises:
        SingularError: If a matrix is singular to double precision too.
    """
    if values.dtype != torch.float64:
        factor, bad = _factor(values)
        if not bool(bad.any()):
            return factor
        del factor
    factor, bad = _factor(values.double())
    if bool(bad.any()):
        first = int(bad.nonzero()[0, 0])
        everything = torch.arange(values.shape[-1], device=values.device)
        raise SingularError(everything, values[first].double())
    return factor.to(values.dtype)


def _factor(values: Tensor) -> tuple[Tensor, Tensor]:
    """Factors, and where they failed; the squared ratio of extreme pivots bounds the condition."""
    factor, info = torch.linalg.cholesky_ex(values)
    pivots = factor.diagonal(dim1=1, dim2=2)
    scale = values.diagonal(dim1=1, dim2=2).amax(1).clamp(min=0.0)
    floor = scale * values.shape[-1] * torch.finfo(values.dtype).eps
    return factor, (info != 0) | ~(pivots.square().amin(1) > floor)


def upper(values: Tensor) -> Tensor:
    """Upper R with H = R R', shape [batch, n, n]: the inverse of the factor U of H^-1 = U' U.

    R is the lower factor of H with rows and columns in reverse order, reversed again: neither the
    inverse nor its factor is formed, at a quarter of the work.

    Raises:
        SingularError: If a matrix is singular.
    """
    return cholesky(values.flip(1, 2)).flip(1, 2)

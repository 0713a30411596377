"""The alternating direction method on a layer's mask, then the best weights on what it chose.

The layer's error is minimised over B, a copy D of it has the wanted number of zeros, and a growing
penalty rho brings the two together (Boyd et al. 2011, section 9.1; for layers Meng et al. 2024,
algorithm 1). With V = B + U the scaled dual U is V where V was cut to zero and D is V where it was
not, so one matrix carries both. The minimiser over B is

    B = (A H + rho (D - U)) (H + rho)^-1 = A + rho (D - U - A) (H + rho)^-1

Distances are measured in a diagonal metric. Meng et al. use that of H. The one here is the
diagonal of the inverse of (1 + SOFT) diag(H) + offdiag(H), inverted: a weight is worth what it
costs to remove it when all others make up for it, which is the saliency of OBS, and SOFT bounds
what inputs that are nearly combinations of others can gain by that. On a sentence encoder's layers
it left 1 to 6 % less error than the diagonal of H after as many iterations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers import masked_cg, projection, swaps
from pruning.solvers.layer import LayerProblem, LayerSolution
from pruning.solvers.layer_factor import cholesky, damped, dead_inputs

SOFT = 0.05
"""What is added to the correlations' diagonal of ones before they are inverted."""


@dataclass(frozen=True)
class ADMM:
    """What there is to choose.

    Args:
        penalties: How many penalties are gone through.
        steps: Iterations at each penalty; a penalty costs one inverse of H + rho.
        start: The first penalty, in units of the mean diagonal of H in the metric.
        growth: Ratio of a penalty to the one before.
        polish: Conjugate-gradient steps on the final support.
        swaps: Rounds of swaps on the solved support.
    """

    penalties: int = 3
    steps: int = 7
    start: float = 0.17
    growth: float = 1.8
    polish: int = 4
    swaps: int = 0


FAST = ADMM()
THOROUGH = ADMM(penalties=12, steps=6, start=0.1, growth=1.2, polish=8, swaps=2)


def solve(problem: LayerProblem, options: ADMM = FAST) -> LayerSolution:
    """Prune a layer with exactly `problem.count` zeros.

    Raises:
        SecateurError: If the pattern does not fit the layer, or the weights are not finite.
        SingularError: If the damped Gram matrix can't be factorised.
    """
    patterns.check(problem)
    curvature = damped(problem)
    dead = dead_inputs(problem)[:, None, :]
    # What a weight on a dead input is worth: nothing.
    aim = problem.aim.masked_fill(dead, 0.0) if bool(dead.any()) else problem.aim
    scale = metric(curvature)[:, None, :]
    weight, removed = _masks(problem, curvature, aim, scale, options)
    weight = masked_cg.improve(curvature, aim, weight.div_(scale), removed, options.polish)
    if options.swaps:
        gone = patterns.already_gone(problem) | dead
        weight, removed = swaps.refine(
            curvature, aim, weight, removed, scale[:, 0], problem.pattern,
            gone=gone, rounds=options.swaps,
        )  # fmt: skip
    return LayerSolution(torch.where(dead & ~removed, problem.aim, weight), removed)


def metric(curvature: Tensor) -> Tensor:
    """Square roots of the metric's diagonal, shape [g, d], of H damped, [g, d, d].

    Raises:
        SingularError: If H can't be factorised.
    """
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    root = diagonal.rsqrt()
    correlation = curvature * root[:, :, None]
    correlation *= root[:, None, :]
    correlation.diagonal(dim1=1, dim2=2).add_(SOFT)
    inverse = torch.cholesky_inverse(cholesky(correlation))
    return (diagonal / inverse.diagonal(dim1=1, dim2=2)).sqrt()


def _masks(
    problem: LayerProblem, curvature: Tensor, aim: Tensor, scale: Tensor, options: ADMM
) -> tuple[Tensor, Tensor]:
    """The last V and the weights it gives up, both [g, o, d], in the metric's units."""
    unit = (curvature.diagonal(dim1=1, dim2=2) / scale[:, 0].square()).mean(1)
    aim = aim * scale
    value = aim.clone()
    right, base, cut = (torch.empty_like(value) for _ in range(3))
    removed = projection.nearly(torch.mul(value, value, out=base), problem)
    torch.mul(value, removed, out=cut)
    rho = unit * options.start
    for penalty in range(options.penalties):
        inverse = _inverse(curvature, scale, rho)
        # U is the multiplier over rho, so it shrinks as rho grows.
        share = 1.0 / options.growth if penalty else 1.0
        for _ in range(options.steps):
            # D - U - A and A + U with U = share * cut, D = V - cut.
            torch.sub(value, aim, out=right).sub_(cut, alpha=1.0 + share)
            torch.add(aim, cut, alpha=share, out=base)
            torch.baddbmm(base, right, inverse, out=value)
            removed = projection.nearly(torch.mul(value, value, out=base), problem)
            torch.mul(value, removed, out=cut)
            share = 1.0
        rho = rho * options.growth
    del aim, cut, right
    removed = projection.support(torch.mul(value, value, out=base), problem)
    return value, removed


def _inverse(curvature: Tensor, scale: Tensor, rho: Tensor) -> Tensor:
    """The inverse of H + rho, times rho, with H in the metric, shape [g, d, d].

    Raises:
        SingularError: If the sum can't be factorised.
    """
    shifted = curvature / scale
    shifted /= scale.transpose(1, 2)
    shifted.diagonal(dim1=1, dim2=2).add_(rho[:, None])
    return torch.cholesky_inverse(cholesky(shifted)).mul_(rho[:, None, None])

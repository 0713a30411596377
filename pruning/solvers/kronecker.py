"""The OBS inverse of Kronecker-factored blocks, each with damping I added.

While all weights of a layer are active the inverse is diagonal in the Kronecker eigenbasis. Once
some are gone, what is inverted is the block of the others, which is no Kronecker product: its
inverse diagonal comes from a dense system over the removed or the remaining weights, whichever are
fewer, and the update of the survivors by conjugate gradients.
"""

import torch
from torch import Tensor

from pruning.catalogue.curvature import RESTRICTED_LIMIT
from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.errors import SecateurError
from pruning.solvers.singular import SingularError

PANEL = 64
"""Columns of a block that are formed at a time."""

TOLERANCE = 1e-12
"""Relative residual at which conjugate gradients stop."""

ITERATIONS = 1_000
"""Conjugate gradient steps, at most."""


def inverse_diagonal(curvature: Kronecker, damping: float) -> Tensor:
    """The inverse's diagonal, block by block, shape [A].

    Raises:
        SingularError: A block has an eigenvalue that is zero to working precision.
        SecateurError: `curvature_too_large` where weights of a large layer are gone already.
    """
    values = torch.empty(curvature.size, dtype=torch.float64, device=curvature.diagonal().device)
    for block in curvature.blocks:
        inverse = _inverse_scales(block, damping)
        if block.whole:
            values[block.index] = block.diagonal_of(inverse)
        else:
            values[block.index] = _restricted_diagonal(block, damping, inverse)
    return values


def survivors_update(
    curvature: Kronecker, weights: Tensor, removed: Tensor, damping: float
) -> Tensor:
    """dw_S of H_SS dw_S = H_SQ w_Q by conjugate gradients, zero on Q, shape [A].

    Raises:
        SingularError: As `inverse_diagonal`.
        SecateurError: `factorization_failed` where the iteration does not converge.
    """
    change = torch.zeros_like(weights)
    for block in curvature.blocks:
        gone = removed[block.index]
        if not bool(gone.any()) or bool(gone.all()):
            continue
        inverse = _inverse_scales(block, damping)
        shape = block.scales.shape
        kept, pulled = block.scales.new_zeros(2, block.scales.numel())
        kept[block.position] = (~gone).double()
        pulled[block.position] = torch.where(gone, weights[block.index], 0.0)
        kept, pulled = kept.view(shape), pulled.view(shape)
        right = kept * block.product(pulled, block.scales)
        solution = _conjugate_gradients(block, right, kept, block.scales + damping, inverse)
        change[block.index] = solution.flatten()[block.position]
    return change


def _inverse_scales(block: KroneckerBlock, damping: float) -> Tensor:
    damped = block.scales + damping
    floor = float(damped.max()) * damped.numel() * torch.finfo(damped.dtype).eps
    if not float(damped.min()) > floor:
        raise SingularError(
            block.index,
            diagonal=block.diagonal_of(damped),
            spectrum=damped.flatten(),
        )
    return damped.reciprocal()


def _restricted_diagonal(block: KroneckerBlock, damping: float, inverse: Tensor) -> Tensor:
    left = block.position
    mask = torch.ones(block.scales.numel(), dtype=torch.bool, device=left.device)
    mask[left] = False
    gone = mask.nonzero()[:, 0]
    fewer = min(len(left), len(gone))
    if fewer > RESTRICTED_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"{len(gone)} of {mask.numel()} weights of a layer are gone, and the Kronecker inverse "
            f"over the others needs a dense system of {fewer}; the limit is {RESTRICTED_LIMIT}.",
            where="spec.criterion.inverse",
            hint="Use schedule {kind: one_shot, recomputations: 1}, or inverse: block_fisher.",
        )
    if len(left) <= len(gone):
        dense = _rows(block, left, block.scales)[:, left]
        dense.diagonal().add_(damping)
        return torch.cholesky_inverse(torch.linalg.cholesky(dense)).diagonal()
    # Of the whole inverse P, the inverse of the kept block is P_SS - P_SR P_RR^-1 P_RS.
    rows = _rows(block, gone, inverse)
    factor = torch.linalg.cholesky(rows[:, gone])
    explained = torch.linalg.solve_triangular(factor, rows[:, left], upper=False)
    return block.diagonal_of(inverse) - explained.square().sum(0)


def _rows(block: KroneckerBlock, position: Tensor, scales: Tensor) -> Tensor:
    return torch.cat([block.columns(some, scales) for some in position.split(PANEL)])


def _conjugate_gradients(
    block: KroneckerBlock, right: Tensor, kept: Tensor, damped: Tensor, inverse: Tensor
) -> Tensor:
    """Solves the block over the kept weights, preconditioned by the whole block's inverse."""
    solution, residual = torch.zeros_like(right), right.clone()
    goal = TOLERANCE * float(right.norm())
    if goal == 0.0:
        return solution
    turned = kept * block.product(residual, inverse)
    direction, weight = turned, float((residual * turned).sum())
    for _ in range(ITERATIONS):
        image = kept * block.product(direction, damped)
        step = weight / float((direction * image).sum())
        solution = solution + step * direction
        residual = residual - step * image
        if float(residual.norm()) <= goal:
            return solution
        turned = kept * block.product(residual, inverse)
        former, weight = weight, float((residual * turned).sum())
        direction = turned + (weight / former) * direction
    raise SecateurError(
        "factorization_failed",
        f"Conjugate gradients over {int(kept.sum())} weights of a layer did not converge in "
        f"{ITERATIONS} steps; what is left is {float(residual.norm() / right.norm()):.1e}.",
        where="spec.criterion.damping",
        hint="Use a larger criterion.damping, or inverse: block_fisher.",
    )

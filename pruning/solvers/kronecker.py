"""The OBS inverse of Kronecker-factored blocks, each with damping I added.

While all weights of a layer are active the inverse is diagonal in the Kronecker eigenbasis. Once
some are gone, what is inverted is the block of the others, which is no Kronecker product: its
inverse diagonal comes from a dense system over the removed or the remaining weights, whichever are
fewer, and the update of the survivors from a dense system where they are few, else by conjugate
gradients preconditioned by the inverse of the whole block.
"""

import torch
from torch import Tensor

from pruning.catalogue.curvature import RESTRICTED_LIMIT
from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.errors import SecateurError
from pruning.solvers.null_space import free_of_block
from pruning.solvers.singular import SingularError

PANEL = 64
"""Columns of a block that are formed at a time."""

TOLERANCE = 1e-8
"""Relative residual at which conjugate gradients stop."""

ITERATIONS = 4_000
"""Conjugate gradient steps, at most."""


def inverse_diagonal(curvature: Kronecker, damping: float) -> Tensor:
    """The inverse's diagonal, block by block, shape [A].

    Infinite for the weights of `pruning.solvers.null_space`.

    Raises:
        SingularError: A block has an eigenvalue that is zero to working precision.
        SecateurError: `curvature_too_large` where weights of a large layer are gone already.
    """
    values = torch.empty(curvature.size, dtype=torch.float64, device=curvature.diagonal().device)
    for block in curvature.blocks:
        used = ~free_of_block(block, damping)
        if block.whole and bool(used.all()):
            values[block.index] = block.diagonal_of(_inverse_scales(block, damping))
            continue
        found = torch.full_like(block.index, torch.inf, dtype=torch.float64)
        if bool(used.any()):
            found[used] = _restricted_diagonal(block, damping, used)
        values[block.index] = found
    return values


def survivors_update(
    curvature: Kronecker, weights: Tensor, removed: Tensor, damping: float
) -> Tensor:
    """dw_S of H_SS dw_S = H_SQ w_Q, zero on Q, shape [A].

    Raises:
        SingularError: As `inverse_diagonal`, or the iteration does not converge.
    """
    change = torch.zeros_like(weights)
    for block in curvature.blocks:
        gone = removed[block.index]
        moving = ~gone & ~free_of_block(block, damping)
        if not bool(gone.any()) or not bool(moving.any()):
            continue
        shape = block.scales.shape
        kept, pulled = block.scales.new_zeros(2, block.scales.numel())
        kept[block.position] = moving.double()
        pulled[block.position] = torch.where(gone, weights[block.index], 0.0)
        kept = kept.view(shape)
        right = kept * block.product(pulled.view(shape), block.scales)
        if int(moving.sum()) <= RESTRICTED_LIMIT:
            factor = _dense_factor(block, damping, moving)
            pull = right.flatten()[block.position[moving]]
            change[block.index[moving]] = torch.cholesky_solve(pull[:, None], factor)[:, 0]
            continue
        solution = _conjugate_gradients(block, right, kept, damping, moving)
        change[block.index] = solution.flatten()[block.position]
    return change


def _invertible(block: KroneckerBlock, damping: float) -> bool:
    damped = block.scales + damping
    floor = float(damped.max()) * damped.numel() * torch.finfo(damped.dtype).eps
    return float(damped.min()) > floor


def _inverse_scales(block: KroneckerBlock, damping: float) -> Tensor:
    damped = block.scales + damping
    if not _invertible(block, damping):
        raise SingularError(
            block.index, diagonal=block.diagonal_of(damped), spectrum=damped.flatten()
        )
    return damped.reciprocal()


def _restricted_diagonal(block: KroneckerBlock, damping: float, used: Tensor) -> Tensor:
    """The inverse's diagonal over the `used` ones among the active weights alone."""
    left = block.position[used]
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
    small = len(left) <= 2 * RESTRICTED_LIMIT
    if fewer == len(left) or (small and not _invertible(block, damping)):
        return torch.cholesky_inverse(_dense_factor(block, damping, used)).diagonal()
    # Of the whole inverse P, the inverse of the kept block is P_SS - P_SR P_RR^-1 P_RS.
    inverse = _inverse_scales(block, damping)
    factor = _factor(block, _entries(block, gone, gone, inverse), used)
    rows = _entries(block, gone, left, inverse)
    explained = torch.linalg.solve_triangular(factor, rows, upper=False)
    return block.diagonal_of(inverse)[used] - explained.square().sum(0)


def _dense_factor(block: KroneckerBlock, damping: float, used: Tensor) -> Tensor:
    """Lower factor of the damped block over the `used` ones among the active weights."""
    left = block.position[used]
    dense = _entries(block, left, left, block.scales)
    dense.diagonal().add_(damping)
    return _factor(block, dense, used)


def _factor(block: KroneckerBlock, dense: Tensor, used: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(dense)
    floor = float(dense.diagonal().max()) * len(dense) * torch.finfo(dense.dtype).eps
    if int(info) != 0 or not float(factor.diagonal().min()) ** 2 > floor:
        if len(dense) == int(used.sum()):
            raise SingularError(block.index[used], dense)
        raise SingularError(
            block.index[used],
            diagonal=block.diagonal()[used],
            reason="The inverse of a layer's whole block keeps too few digits for the weights left",
        )
    return factor


def _entries(block: KroneckerBlock, rows: Tensor, columns: Tensor, scales: Tensor) -> Tensor:
    return torch.cat([block.columns(some, scales, columns) for some in rows.split(PANEL)])


def _conjugate_gradients(
    block: KroneckerBlock, right: Tensor, kept: Tensor, damping: float, moving: Tensor
) -> Tensor:
    """Solves the block over the kept weights, preconditioned by the whole block's inverse."""
    damped = block.scales + damping
    # Any positive matrix may precondition, so what is zero to rounding is lifted from zero.
    inverse = damped.clamp(min=block.rounding).reciprocal()
    solution, residual = torch.zeros_like(right), right.clone()
    goal = TOLERANCE * float(right.norm())
    if goal == 0.0:
        return solution
    turned = kept * block.product(residual, inverse)
    direction, weight = turned, float((residual * turned).sum())
    for _ in range(ITERATIONS):
        image = kept * block.product(direction, damped)
        bend = float((direction * image).sum())
        if not bend > 0.0:
            break
        step = weight / bend
        solution = solution + step * direction
        residual = residual - step * image
        if float(residual.norm()) <= goal:
            return solution
        turned = kept * block.product(residual, inverse)
        former, weight = weight, float((residual * turned).sum())
        direction = turned + (weight / former) * direction
    raise SingularError(
        block.index[moving],
        diagonal=block.diagonal()[moving] + damping,
        bound=float(damped.max()) / float(damped.min()) if float(damped.min()) > 0 else None,
        reason=f"Conjugate gradients did not converge in {ITERATIONS} steps (what is left is "
        f"{float(residual.norm() / right.norm()):.1e})",
    )

"""What a layer is solved on: aim and Gram matrix, columns in the order that patterns need."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.curvature.layers.matrix import Form
from pruning.errors import SecateurError
from pruning.layers import Prunable
from pruning.layerwise.moments import Moments
from pruning.solvers.layer import LayerProblem, Pattern

ROWS = 1 << 19
"""Entries of a layer's rows that are multiplied at a time."""


@dataclass(frozen=True)
class Collected:
    """A layer as a matrix problem, before it is said how much of it goes.

    Args:
        prunable: The weight.
        form: How its entries lie in matrices.
        order: Order of the columns, [d]; that of the weight's entries without one.
        weight: The weight as it was, [g, o, d], float64.
        aim: A, [g, o, d], float64.
        gram: H, [g, d, d], float64.
        damping: Relative to the mean of H's diagonal.
        columns: Columns that H is the mean of, in each group.
    """

    prunable: Prunable
    form: Form
    order: Tensor | None
    weight: Tensor
    aim: Tensor
    gram: Tensor
    damping: float
    columns: int

    def problem(
        self,
        count: int,
        pattern: Pattern | None = None,
        gone: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> LayerProblem:
        """The problem of removing `count` weights.

        Args:
            count: Weights that are zero at the end.
            pattern: Which go together; single weights without one.
            gone: What was removed before, in the shape of the weight.
            dtype: Of aim and Gram matrix.
        """
        return LayerProblem(
            self.aim.to(dtype),
            self.gram.to(dtype),
            self.damping,
            count,
            pattern or Pattern(),
            None if gone is None else self.as_matrix(gone),
        )

    def as_matrix(self, weight: Tensor) -> Tensor:
        """Something of the weight's shape as [g, o, d]."""
        return ordered(self.form, self.order, weight)

    def as_weight(self, matrix: Tensor) -> Tensor:
        """The inverse of `as_matrix`."""
        if self.order is not None:
            back = self.order.argsort().to(matrix.device)
            matrix = matrix[..., back]
        return self.form.weight(matrix)


def energy(matrix: Tensor, gram: Tensor) -> float:
    """tr(M H M') of M [g, o, d], some rows at a time."""
    rows = max(1, ROWS // matrix.shape[2])
    parts = [((part @ gram) * part).sum() for part in matrix.split(rows, 1)]
    return float(torch.stack(parts).sum())


def ordered(form: Form, order: Tensor | None, weight: Tensor) -> Tensor:
    """A weight as [g, o, d] with its columns in `order`."""
    matrix = form.matrix(weight)
    return matrix if order is None else matrix[..., order.to(weight.device)]


def collected(
    prunable: Prunable, form: Form, moments: Moments, neighbours: bool, dense: Tensor
) -> Collected:
    """A layer's problem from its moments.

    Args:
        prunable: The weight.
        form: How it lies in matrices.
        moments: Of its inputs.
        neighbours: Whether input channels shall be neighbours among the columns.
        dense: The dense weight, in its own shape, where the moments lie.

    Raises:
        SecateurError: `factorization_failed` naming the layer, `loss_non_finite` for inputs that
            are not finite.
    """
    weight, gram = form.matrix(dense.to(torch.float64, copy=True)), moments.gram
    if not bool(torch.isfinite(gram).all()):
        raise SecateurError(
            "loss_non_finite",
            f"The inputs of {prunable.layer} are not finite, or too large to be squared.",
            where=prunable.layer,
            hint="Check the calibration data, or exclude the layer from the scope.",
        )
    cross, drift = moments.cross, moments.drift(prunable.name)
    goal = None
    if cross is not None:
        goal = weight @ (cross.mT - gram)
        goal = goal if drift is None else goal + drift
    elif drift is not None:
        goal = drift
    del cross
    aim = weight if goal is None else weight + _divided(goal, gram, moments.damping, prunable)
    order = form.neighbours() if neighbours else None
    if order is not None:
        at = order.to(gram.device)
        weight, aim, gram = weight[..., at], aim[..., at], gram[:, at][:, :, at]
    return Collected(
        prunable, form, order, weight, aim, gram, moments.damping, round(moments.columns)
    )


def _divided(goal: Tensor, gram: Tensor, damping: float, prunable: Prunable) -> Tensor:
    """How far the aim lies from the dense weights: goal (H + lambda I)^-1.

    A = argmin |X A' - T|^2 / m + lambda |A - W|^2 = W + (T'X / m - W H) (H + lambda I)^-1, for
    outputs T that the layer shall have; without damping the least change that reaches the minimum.
    """
    if damping == 0.0:
        return goal @ torch.linalg.pinv(gram, hermitian=True)
    damped = LayerProblem(goal, gram, damping, 0).damped()
    factor, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed.any()):
        raise SecateurError(
            "factorization_failed",
            f"The Gram matrix of the inputs of {prunable.layer} can't be factorised at damping "
            f"{damping:g}.",
            where=prunable.layer,
            hint="Use a larger damping, or exclude the layer from the scope.",
        )
    return torch.cholesky_solve(goal.mT, factor).mT

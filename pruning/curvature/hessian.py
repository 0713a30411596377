"""The exact Hessian of the mean loss over all active weights, one product a column.

It need not be positive semidefinite: away from a minimum it has negative curvature, and the OBS
inverse then needs a damping above its lowest eigenvalue.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pruning.catalogue.curvature import HESSIAN_LIMIT
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Dense
from pruning.curvature.network import Network
from pruning.curvature.products import hessian_products
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

COLUMNS = 512
"""Columns held at a time before only their active rows are kept."""


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Dense:
    """The matrix over the `active` flat positions, symmetrised.

    Raises:
        SecateurError: `curvature_too_large` above `HESSIAN_LIMIT` active weights.
    """
    if len(active) > HESSIAN_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"The exact Hessian takes one product a weight, {len(active)} of them; the limit is "
            f"{HESSIAN_LIMIT}.",
            where="spec.criterion.curvature",
            hint="Use curvature: ggn, or exclude layers with scope.exclude.",
        )
    total = torch.empty(len(active), len(active), dtype=torch.float64, device=active.device)
    for start, rows in columns(network, data, loss, active):
        total[start : start + len(rows)] = rows[:, active]
    return Dense((total + total.T) / 2.0)


def columns(
    network: Network, data: ArrayData, loss: Loss, active: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Columns of the Hessian of the active weights, in order, some at a time.

    Yields:
        The number of the first of them, and the columns as rows [n, W].
    """
    for start in range(0, len(active), COLUMNS):
        some = active[start : start + COLUMNS]
        unit = torch.zeros(
            len(some), len(network.weights), dtype=torch.float64, device=active.device
        )
        unit[torch.arange(len(some), device=active.device), some] = 1.0
        yield start, hessian_products(network, data, loss, unit)
        network.progress(start + len(some), len(active))

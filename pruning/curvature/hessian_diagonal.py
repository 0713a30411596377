"""The exact diagonal of the Hessian of the mean loss: h_q = e_q' H e_q, one product a weight."""

import torch
from torch import Tensor

from pruning.catalogue.curvature import HESSIAN_DIAGONAL_LIMIT
from pruning.curvature.hessian import columns
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Diagonal:
    """The diagonal over the `active` flat positions; entries may be negative.

    Raises:
        SecateurError: `curvature_too_large` above `HESSIAN_DIAGONAL_LIMIT` active weights.
    """
    if len(active) > HESSIAN_DIAGONAL_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"The exact Hessian diagonal takes one product a weight, {len(active)} of them; the "
            f"limit is {HESSIAN_DIAGONAL_LIMIT}.",
            where="spec.criterion.curvature",
            hint="Use curvature: hutchinson or ggn_diagonal, or exclude layers with scope.exclude.",
        )
    values = torch.empty(len(active), dtype=torch.float64, device=active.device)
    for start, rows in columns(network, data, loss, active):
        some = active[start : start + len(rows)]
        values[start : start + len(rows)] = rows.gather(1, some[:, None])[:, 0]
    return Diagonal(values)

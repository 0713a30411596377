"""The empirical Fisher matrix over all active weights: F = 1/N sum_n g_n g_n'."""

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import FULL_LIMIT
from pruning.curvature.full import accumulate_gram
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Dense
from pruning.curvature.network import Network
from pruning.curvature.per_sample import gradients
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Dense:
    """The matrix over the `active` flat positions, summed in float64; its rank is N at most.

    Raises:
        SecateurError: `curvature_too_large` above `FULL_LIMIT` active weights.
    """
    size = len(active)
    if size > FULL_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"The empirical Fisher over {size} weights; the limit is {FULL_LIMIT}.",
            where="spec.criterion.inverse",
            hint="Use inverse: low_rank or block_fisher, or exclude layers with scope.exclude.",
        )
    total = torch.zeros(size, size, dtype=torch.float64, device=active.device)
    for rows in gradients(network, data, loss, active):
        accumulate_gram(total, rows)
    upper = torch.triu(total)
    return Dense((upper + torch.triu(upper, 1).T) / data.samples)

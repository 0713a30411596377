"""The empirical Fisher matrix of m samples, kept as its gradients: F = 1/m sum_k g_k g_k'.

The W x W matrix is never formed; what is needed of (F + damping I)^-1 follows from an m x m system
(Woodbury 1950), which `pruning.solvers.low_rank` solves.
"""

import torch
from torch import Tensor

from pruning.catalogue.curvature import LOW_RANK_LIMIT
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import LowRank
from pruning.curvature.network import Network
from pruning.curvature.per_sample import gradients
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError


def compute(
    network: Network,
    data: ArrayData,
    loss: Loss,
    active: Tensor,
    samples: int = 256,
    seed: int = 0,
) -> LowRank:
    """Gradients of at most `samples` samples over the `active` flat positions.

    Args:
        network: The module with its weights in scope.
        data: Samples and targets; where there are more than `samples`, a seeded choice is taken.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        samples: m, at most.
        seed: Of the choice.

    Raises:
        SecateurError: `curvature_too_large` above `LOW_RANK_LIMIT` numbers.
    """
    count = min(samples, data.samples)
    if count * len(active) > LOW_RANK_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"{count} gradients of {len(active)} weights hold {count * len(active)} numbers; the "
            f"limit is {LOW_RANK_LIMIT}.",
            where="spec.criterion.gradients",
            hint="Use fewer gradients, or exclude layers with scope.exclude.",
        )
    if count < data.samples:
        order = torch.randperm(data.samples, generator=torch.Generator().manual_seed(seed))
        data = data.select(order[:count].sort().values)
    rows = torch.empty(count, len(active), dtype=torch.float64, device=active.device)
    at = 0
    for chunk in gradients(network, data, loss, active):
        rows[at : at + len(chunk)] = chunk
        at += len(chunk)
    return LowRank(rows / count**0.5)

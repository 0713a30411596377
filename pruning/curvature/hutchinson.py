"""Hutchinson's estimate of the Hessian's diagonal (Bekas, Kokiopoulou, Saad 2007, eq. 2).

h = (sum_k v_k * H v_k) / (sum_k v_k * v_k), elementwise, with random signs v_k, so that the
denominator is the number of probes. Unbiased; the variance of h_q is sum_{p != q} H_pq^2 / probes.
"""

import torch
from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.products import hessian_products
from pruning.data.batches import ArrayData

PROBES_AT_ONCE = 32
"""Probes held at a time."""


def compute(
    network: Network, data: ArrayData, loss: Loss, active: Tensor, probes: int = 100, seed: int = 0
) -> Diagonal:
    """The estimate over the `active` flat positions; probes are zero elsewhere.

    Args:
        network: The module with its weights in scope.
        data: Samples and targets.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        probes: Products with the Hessian.
        seed: Of the signs, which are drawn on the CPU and so are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(active), dtype=torch.float64, device=active.device)
    for start in range(0, probes, PROBES_AT_ONCE):
        count = min(PROBES_AT_ONCE, probes - start)
        coins = torch.randint(2, (count, len(active)), generator=generator)
        signs = (2.0 * coins.double() - 1.0).to(active.device)
        vectors = signs.new_zeros(count, len(network.weights))
        vectors[:, active] = signs
        products = hessian_products(network, data, loss, vectors)[:, active]
        total += (signs * products).sum(0)
        network.progress(start + count, probes)
    return Diagonal(total / probes)

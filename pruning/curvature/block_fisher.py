"""The empirical Fisher matrix, block by block: F_b = 1/N sum_n g_n,b g_n,b'.

Blocks are runs of consecutive active weights of one layer (Singh and Alistarh 2020). Their inverse
is formed from F_b + damping I directly, which equals the Woodbury recursion of WoodFisher and costs
less as soon as there are more samples than weights a block.
"""

import torch
from torch import Tensor

from pruning.catalogue.criteria.obs import BLOCK_LIMIT
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Blocks
from pruning.curvature.network import Network
from pruning.curvature.per_sample import gradients
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError


def compute(
    network: Network, data: ArrayData, loss: Loss, active: Tensor, block: int = 50
) -> Blocks:
    """The blocks over the `active` flat positions, formed and summed in float64.

    Args:
        network: The module with its weights in scope.
        data: Samples and targets.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        block: Weights a block, B; the last block of each layer may hold fewer.

    Raises:
        SecateurError: `curvature_too_large` above `BLOCK_LIMIT` entries, padding included.
    """
    index = partition(network.weights.group[active], block)
    size = index.shape[1]
    if index.numel() * size > BLOCK_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"{len(index)} blocks of {size} x {size} hold {index.numel() * size} entries; the "
            f"limit is {BLOCK_LIMIT}.",
            where="spec.criterion.block",
            hint="Use smaller blocks, or exclude layers with scope.exclude.",
        )
    total = torch.zeros(len(index), size, size, dtype=torch.float64, device=active.device)
    for rows in gradients(network, data, loss, active):
        # One more column of zeros, which is where the index -1 of the padding points.
        padded = torch.cat([rows.double(), rows.new_zeros(len(rows), 1, dtype=torch.float64)], 1)
        grouped = padded[:, index].transpose(0, 1)
        total.baddbmm_(grouped.transpose(1, 2), grouped)
    return Blocks(total / data.samples, index, len(active))


def partition(group: Tensor, block: int) -> Tensor:
    """Runs of at most `block` consecutive positions that share a group.

    Args:
        group: Ascending group numbers, shape [A].
        block: Largest run, B.

    Returns:
        Positions, shape [blocks, min(B, longest run)], padded with -1.
    """
    runs: list[Tensor] = []
    start = 0
    for count in torch.unique_consecutive(group, return_counts=True)[1].tolist():
        positions = torch.arange(start, start + count, device=group.device)
        runs.extend(positions.split(block))
        start += count
    if not runs:
        return torch.empty(0, 0, dtype=torch.long, device=group.device)
    return torch.nn.utils.rnn.pad_sequence(runs, batch_first=True, padding_value=-1)

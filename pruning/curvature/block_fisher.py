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

GROUPED = 2**22
"""Entries of gradients put into the order of their blocks at a time: few enough for a cache."""


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
        add_products(total, rows, index)
    return Blocks(total.div_(data.samples), index, len(active))


def add_products(total: Tensor, rows: Tensor, index: Tensor) -> None:
    """Add sum_n g_n,b g_n,b' of each block b to `total` in place, in its dtype.

    Args:
        total: Shape [blocks, B, B].
        rows: Gradients g_n, shape [n, A].
        index: As `partition` gives it: the blocks hold the positions 0 ... A - 1 in order.
    """
    step = max(1, GROUPED // max(1, len(rows) * index.shape[1]))
    start = 0
    for part, sums in zip(index.split(step), total.split(step), strict=True):
        real = part >= 0
        count = int(real.sum())
        grouped = rows[:, start : start + count]
        if count < part.numel():
            # One more column of zeros, which is where padding points.
            padded = torch.nn.functional.pad(grouped, (0, 1))
            grouped = padded[:, (part - start).masked_fill(~real, count).flatten()]
        grouped = grouped.unflatten(1, part.shape).transpose(0, 1).to(total.dtype)
        sums.baddbmm_(grouped.transpose(1, 2), grouped)
        start += count


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

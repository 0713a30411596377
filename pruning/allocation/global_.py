"""One threshold for the whole network."""

import torch
from torch import Tensor


def shares(group: Tensor, sizes: list[int], count: int, target: int) -> list[tuple[Tensor, int]]:
    """All active weights as one set of which `count` go.

    Args:
        group: Layer number of each active weight, shape [A].
        sizes: Weights of each layer, removed ones included.
        count: How many go now.
        target: How many are gone in all afterwards.
    """
    return [(torch.arange(len(group), device=group.device), count)]

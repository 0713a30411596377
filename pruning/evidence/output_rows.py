"""The output unit or channel that each weight leads to, numbered through the whole network."""

import torch
from torch import Tensor

from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """Row numbers of the active weights, shape [A], int64."""
    numbers, start = [], 0
    for p in view.network.weights.layers:
        rows, size = len(p.weight), p.weight.numel()
        row = torch.arange(start, start + rows, device=view.active.device)
        numbers.append(row.repeat_interleave(size // rows))
        start += rows
    return torch.cat(numbers)[view.active]

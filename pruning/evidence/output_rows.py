"""The output unit or channel that each weight leads to, numbered through the whole network."""

import torch
from torch import Tensor

from pruning.curvature.layers.matrix import Form
from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """Row numbers of the active weights, shape [A], int64."""
    numbers, start = [], 0
    for p in view.network.weights.layers:
        transposed = p.kind.startswith("ConvTranspose")
        form = Form(tuple(p.weight.shape), p.groups, transposed)
        groups, rows, entries = form.groups, form.outputs, form.entries
        row = torch.arange(start, start + groups * rows, device=view.active.device)
        matrix = row.view(groups, rows, 1).expand(groups, rows, entries)
        numbers.append(form.weight(matrix).flatten())
        start += groups * rows
    return torch.cat(numbers)[view.active]

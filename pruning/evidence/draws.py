"""One uniform draw in [0, 1) for each weight in scope, the same in every step of a job."""

import torch
from torch import Tensor

from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """The active weights' draws, shape [A], float64; drawn on the CPU, so equal on every device."""
    generator = torch.Generator().manual_seed(view.seed)
    draws = torch.rand(len(view.network.weights), generator=generator, dtype=torch.float64)
    return draws.to(view.active.device)[view.active]

"""Small networks and data for the library's door."""

import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData, Data

MAGNITUDE = {
    "criterion": {"kind": "magnitude"},
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
    "target": {"sparsity": 0.5},
}


class Net(nn.Module):
    """72 prunable weights, 8 of 6 inputs and 3 of 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.m = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.m(x)


def pair(samples: int = 60) -> tuple[Tensor, Tensor]:
    """Inputs and labels for `Net`."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator)
    return x, torch.randint(0, 3, (samples,), generator=generator)


def same_roles(samples: int = 60) -> Data:
    """The same samples in every role."""
    x, y = pair(samples)
    part = ArrayData({"x": x}, y)
    return Data(part, part, part)


def codes(outcome) -> list[str]:
    """Of the report's warnings, but for that on labels that mean nothing."""
    found = [warning.code for warning in outcome.report.warnings]
    return [code for code in found if code != "accuracy_at_chance"]


def zeros(outcome) -> int:
    """Entries that the masks remove and that are +0 in the result."""
    weights = dict(outcome.module.named_parameters())
    gone = [weights[name].detach()[~kept] for name, kept in outcome.masks.items()]
    assert all(not part.any() and not torch.signbit(part).any() for part in gone)
    return sum(part.numel() for part in gone)

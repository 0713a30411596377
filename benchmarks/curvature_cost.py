"""What curvature costs in units of a plain forward and backward pass, beside BackPACK, curvlinops.

The figures: an empirical Fisher or one-sample GGN diagonal over a data set in at most 1.5 plain
passes in batches of 64, on LeNet-5 and on a transformer encoder; the exact GGN diagonal of LeNet-5
in at most 6.5; the damped inverses of the blocks of an empirical Fisher matrix, given the
gradients, in at most 3 s on two cores. Everything that a call does counts, also its check of how
the network uses its weights. Runs take turns, and each ratio is the median of the ratios to the
plain pass of the same round.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import save, table
from benchmarks.curvature_elsewhere import Runs, by_backpack, by_curvlinops, relative_error
from pruning.curvature import empirical_fisher, ggn_diagonal, ggn_mc
from pruning.curvature.block_fisher import add_products, partition
from pruning.curvature.losses import LOSSES, required
from pruning.curvature.matrix import Blocks
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights, find_prunable
from pruning.solvers.obs import inverse_diagonal
from pruning.spec import Scope

BATCH = 64
IMAGES = 2048
POSITIONS = {32: 64, 64: 64, 128: 64}
"""Sequences in the data set of the encoder, by their length; each length has its figure."""

ROUNDS = {"LeNet-5": 5, "encoder": 3}
LIMITS = {"empirical Fisher": 1.5, "one-sample GGN": 1.5, "exact GGN": 6.5}
WEIGHTS, GRADIENTS, BLOCK, SECONDS = 266_610, 1024, 50, 3.0


class Layer(nn.Module):
    """A pre-norm encoder layer, every weight in a Linear."""

    def __init__(self, width: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] to the same."""
        n, t, width = x.shape
        parts = self.qkv(self.before(x)).view(n, t, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.out(mixed.reshape(n, t, width))
        return x + self.down(functional.gelu(self.up(self.between(x))))


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] to [N, width]."""
        return x.mean(1)


def lenet5() -> nn.Module:
    """LeNet-5 with ReLU and maximum pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def encoder() -> nn.Module:
    """Six layers, 384 wide, any number of positions of 32 numbers each."""
    layers = [Layer() for _ in range(6)]
    return nn.Sequential(nn.Linear(32, 384), *layers, Mean(), nn.Linear(384, 10))


def ours(module: nn.Module, data: ArrayData, *, exact: bool) -> Runs:
    """A plain pass over the data, and our diagonals."""
    weights = FlatWeights(find_prunable(module, Scope()))
    everything = torch.arange(len(weights))
    loss = LOSSES["cross_entropy"]
    arguments = Network(module, weights), data, loss, everything

    def plain() -> None:
        for (x,), y in data.batches(BATCH):
            module.zero_grad()
            functional.cross_entropy(module(x), required(y, loss)).backward()

    runs: Runs = {
        "plain": plain,
        "empirical Fisher": lambda: empirical_fisher.compute(*arguments).values,
        "one-sample GGN": lambda: ggn_mc.compute(*arguments).values,
    }
    if exact:
        runs["exact GGN"] = lambda: ggn_diagonal.compute(*arguments).values
    return runs


def measure(runs: Runs, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each, and the median ratio to the plain pass of its round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    plain = seconds["plain"]
    return {
        name: {
            "seconds": statistics.median(values),
            "ratio": statistics.median(v / p for v, p in zip(values, plain, strict=True)),
        }
        for name, values in seconds.items()
    }


def of_lenet() -> dict[str, dict[str, float]]:
    """LeNet-5 by everyone, with the errors of what curvlinops estimates."""
    labels = torch.randint(10, (IMAGES,))
    data = ArrayData({"x": torch.randn(IMAGES, 1, 28, 28)}, labels)
    module = lenet5().eval()
    runs = ours(module, data, exact=True)
    others = by_backpack(lenet5().eval(), data, BATCH, second_order=True)
    found = measure(runs | others, ROUNDS["LeNet-5"])
    estimates = by_curvlinops(module, data, BATCH)
    found |= {
        k: v for k, v in measure({"plain": runs["plain"]} | estimates, 1).items() if k in estimates
    }
    for name, estimate in estimates.items():
        exact, value = runs[name.split(",")[0]](), estimate()
        if isinstance(exact, Tensor) and isinstance(value, Tensor):
            found[name]["relative_error"] = relative_error(value, exact)
    return found


def of_encoder(positions: int) -> dict[str, dict[str, float]]:
    """The encoder on sequences of one length."""
    count = POSITIONS[positions]
    data = ArrayData({"x": torch.randn(count, positions, 32)}, torch.randint(10, (count,)))
    runs = ours(encoder().eval(), data, exact=False)
    runs |= by_backpack(encoder().eval(), data, BATCH, second_order=False)
    return measure(runs, ROUNDS["encoder"])


def block_inverse() -> float:
    """Median seconds from given gradients to the diagonal of all blocks' damped inverses."""
    rows = torch.randn(GRADIENTS, WEIGHTS)
    index = partition(torch.zeros(WEIGHTS, dtype=torch.long), BLOCK)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        total = torch.zeros(len(index), BLOCK, BLOCK, dtype=torch.float64)
        add_products(total, rows, index)
        inverse_diagonal(Blocks(total.div_(GRADIENTS), index, WEIGHTS), 1e-3)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    torch.manual_seed(0)
    networks: dict[str, Callable[[], dict[str, dict[str, float]]]] = {"LeNet-5": of_lenet}
    networks |= {f"encoder, {t} positions": partial(of_encoder, t) for t in POSITIONS}
    results = {}
    for net, of in networks.items():
        results[net] = found = of()
        rows = [
            [net, name, value["seconds"], value["ratio"], value.get("relative_error", "")]
            for name, value in found.items()
        ]
        table(rows, ["network", "quantity", "seconds", "x plain", "relative error"])
    print(
        "curvlinops has no diagonal of its own: it estimates one from products with the matrix, "
        "and the last column says how far its estimate is from the diagonal. Attention is nothing "
        "that BackPACK takes second derivatives through, so its GGN of the encoder is absent."
    )
    seconds = block_inverse()
    print(
        f"block inverse: {seconds:.2f} s; neither BackPACK nor curvlinops has one (curvlinops "
        "inverts Kronecker factors, and whole matrices by iteration)"
    )
    missed = [
        f"{net}: {name} {values[name]['ratio']:.2f} > {limit}"
        for net, values in results.items()
        for name, limit in LIMITS.items()
        if name in values and values[name]["ratio"] > limit
    ]
    missed += [f"block inverse {seconds:.2f} s > {SECONDS} s"] if seconds > SECONDS else []
    print("figures held" if not missed else "MISSED: " + "; ".join(missed))
    settings: dict[str, Any] = {"batch": BATCH, "images": IMAGES, "sequences": POSITIONS}
    save(
        "curvature_cost",
        {"settings": settings, "results": results, "block_inverse": seconds, "missed": missed},
    )
    return not missed

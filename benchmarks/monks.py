"""MONK's problems, pruned one weight at a time without retraining until an answer goes wrong.

Hassibi and Stork 1992 (table 1) pruned the same three networks, trained on the smaller training
sets of Thrun et al. 1991 (the third with 5 % wrong labels), to 14, 15 and 4 weights. Here the
networks learn all 432 points without noise, and only those that answer all of them are pruned;
biases count as weights; the Gauss-Newton matrix is computed anew before every deletion.

The figures: on MONK-2 OBS leaves a median of at most 16 weights, where OBD and magnitude leave 28
or more on the same networks; the best of 12 networks has at most 15 weights on MONK-1 and at most
7 on MONK-3.
"""

import itertools
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import save, table
from pruning.catalogue import criteria
from pruning.curvature.losses import LOSSES
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.one_by_one import prune_one_by_one, weights_and_biases

SIZES = (3, 3, 2, 3, 4, 2)
"""Values of each of the six attributes: 432 points, 17 inputs in one-hot code."""

HIDDEN = {1: 3, 2: 2, 3: 2}
NETS = 12
DAMPING = 1e-3
"""Of the inverse, in units of the mean diagonal of the Gauss-Newton matrix."""

WEIGHT_DECAY = 3e-4
PUBLISHED = {1: 14, 2: 15, 3: 4}
CRITERIA: dict[str, dict[str, Any]] = {"magnitude": {}, "obd": {}, "obs": {"damping": DAMPING}}


def problem(number: int) -> ArrayData:
    """All 432 points of one of the three problems in float64, targets [432, 1] of 0 and 1."""
    a = torch.tensor(list(itertools.product(*[range(1, size + 1) for size in SIZES])))
    truth = {
        1: (a[:, 0] == a[:, 1]) | (a[:, 4] == 1),
        2: (a == 1).sum(1) == 2,
        3: ((a[:, 4] == 3) & (a[:, 3] == 1)) | ((a[:, 4] != 4) & (a[:, 1] != 3)),
    }[number]
    codes = [nn.functional.one_hot(a[:, i] - 1, size) for i, size in enumerate(SIZES)]
    return ArrayData({"x": torch.cat(codes, 1).double()}, truth[:, None].double())


def network(hidden: int, flat: Tensor) -> nn.Sequential:
    """17-h-1 with tanh and a logistic output; `flat` holds weights and biases by layer."""
    net = nn.Sequential(nn.Linear(17, hidden), nn.Tanh(), nn.Linear(hidden, 1), nn.Sigmoid())
    net = net.double().eval()
    weights_and_biases(net).write(flat)
    return net


def train(number: int, count: int, steps: int = 300) -> list[nn.Sequential]:
    """The first `count` networks, by random start, that answer all points; all trained at once.

    Levenberg-Marquardt on the mean squared error plus WEIGHT_DECAY |w|^2, one damping a network.
    """
    data, hidden = problem(number), HIDDEN[number]
    x, y = data.inputs["x"], data.target[:, 0]
    generator = torch.Generator().manual_seed(0)
    w = 0.5 * torch.randn(2 * count, 19 * hidden + 1, generator=generator, dtype=torch.float64)
    lm = torch.ones(len(w), dtype=torch.float64)
    eye = torch.eye(w.shape[1], dtype=torch.float64)
    value = _objective(w, hidden, x, y)
    for _ in range(steps):
        output, rows = _outputs(w, hidden, x)
        gradient = 2 * torch.einsum("snp,sn->sp", rows, output - y) / len(x) + 2 * WEIGHT_DECAY * w
        normal = 2 * rows.transpose(1, 2) @ rows / len(x)
        damped = normal + (2 * WEIGHT_DECAY + 0.01 * lm[:, None, None]) * eye
        moved = w - torch.linalg.solve(damped, gradient)
        tried = _objective(moved, hidden, x, y)
        better = tried < value
        w, value = torch.where(better[:, None], moved, w), torch.where(better, tried, value)
        lm = torch.where(better, lm / 2, lm * 3).clamp(1e-8, 1e6)
    right = ((_outputs(w, hidden, x)[0] > 0.5) == (y > 0.5)).all(1)
    return [network(hidden, flat) for flat in w[right][:count]]


def _objective(w: Tensor, hidden: int, x: Tensor, y: Tensor) -> Tensor:
    error = _outputs(w, hidden, x)[0] - y
    return error.square().mean(1) + WEIGHT_DECAY * w.square().sum(1)


def _outputs(w: Tensor, hidden: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs [S, N] of S networks and their derivatives in the weights [S, N, W]."""
    first, bias, second, shift = w.split([17 * hidden, hidden, hidden, 1], 1)
    h = torch.tanh(x @ first.view(len(w), hidden, 17).transpose(1, 2) + bias[:, None])
    output = torch.sigmoid(torch.einsum("snh,sh->sn", h, second) + shift)
    slope = (output * (1 - output))[..., None]
    inner = slope * second[:, None] * (1 - h.square())
    outer = (inner[..., None] * x[:, None]).flatten(2)
    return output, torch.cat([outer, inner, slope * h, slope], 2)


def weights_left(net: nn.Sequential, data: ArrayData, kind: str) -> int:
    """Weights and biases left when the next deletion would make an answer wrong."""
    weights = weights_and_biases(net)
    start = weights.read()
    x, truth = data.inputs["x"], data.target > 0.5

    def wrong() -> bool:
        with torch.no_grad():
            return bool(((net(x) > 0.5) != truth).any())

    criterion = criteria()[kind](**CRITERIA[kind])
    loss = LOSSES["mse"]
    deleted = prune_one_by_one(Network(net, weights), data, loss, criterion, stop=wrong)
    weights.write(start)
    return int(deleted.kept.sum())


def measure(number: int, kinds: tuple[str, ...], count: int = NETS) -> dict[str, list[int]]:
    """Weights left on each of `count` networks, by criterion."""
    data, nets = problem(number), train(number, count)
    return {kind: [weights_left(net, data, kind) for net in nets] for kind in kinds}


def figures(left: dict[int, dict[str, list[int]]]) -> dict[str, bool]:
    """What must hold of the weights left by problem and criterion, and whether it does."""
    second = {kind: statistics.median(values) for kind, values in left[2].items()}
    return {
        "12 networks on each problem": all(
            len(v) == NETS for one in left.values() for v in one.values()
        ),
        "MONK-2: median of OBS at most 16": second["obs"] <= 16,
        "MONK-2: medians of OBD and magnitude at least 28": min(second["obd"], second["magnitude"])
        >= 28,
        "MONK-1: best of OBS at most 15": min(left[1]["obs"]) <= 15,
        "MONK-3: best of OBS at most 7": min(left[3]["obs"]) <= 7,
    }


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    torch.set_num_threads(1)  # matrices of 58 x 58: more threads only wait for each other
    begin = time.perf_counter()
    left = {number: measure(number, tuple(CRITERIA)) for number in HIDDEN}
    seconds = time.perf_counter() - begin
    table(
        [
            [f"MONK-{n}", 19 * HIDDEN[n] + 1, kind, statistics.median(v), min(v), max(v),
             PUBLISHED[n] if kind == "obs" else ""]
            for n, one in left.items() for kind, v in one.items()
        ],
        ["problem", "weights", "criterion", "median left", "best", "worst", "Hassibi & Stork"],
    )  # fmt: skip
    held = figures(left)
    for name, holds in held.items():
        print(f"{'held  ' if holds else 'MISSED'}  {name}")
    save("monks", {"left": left, "held": held, "published": PUBLISHED, "seconds": seconds})
    return all(held.values())

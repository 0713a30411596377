"""Predicted against measured loss increase while weights are deleted, as in LeCun et al. 1989.

About 2,600 weights on real 8x8 digits, deleted in the order of OBD's saliencies, not retrained:
their setting (tanh units, mean squared error, trained to a minimum), with and without weight decay,
and the demo's network (ReLU, cross-entropy). Figure: in their setting with decay the quadratic
model with the gradient foretells the increase at 30 % within a factor of 2, in the median of seeds
0 to 4 (each one is printed). Without decay the weights of almost dead pixels grow unchecked, units
saturate, and the model reaches less far: that is measured and shown too. Where OBD's own sum leaves
10 % is printed for all, always of the increase itself: in the total loss a miss would hide.
"""

import statistics
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from benchmarks.common import RESULTS, save, table
from demo.network import digits, train
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.data.batches import ArrayData, Data
from pruning.job import prepare
from pruning.progress import Narrator
from pruning.report.trust import Ladder
from pruning.trust.ladder import climb, holds

SEEDS = range(5)
DECAY = 1e-4
FIGURE, BARE, DEMO = "tanh, MSE, decay", "tanh, MSE, no decay", "ReLU, cross-entropy"
AT = 0.3
SHARES = [i / 20 for i in range(1, 20)]
UNITS = 35


def _tanh_network(data: ArrayData, decay: float, seed: int) -> nn.Module:
    """64-35-10, 2,590 weights, trained on all samples at once by L-BFGS in float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, UNITS), nn.Tanh(), nn.Linear(UNITS, 10)).double()
    (x,), target = next(data.batches(data.samples))
    optimizer = torch.optim.LBFGS(
        net.parameters(),
        max_iter=300,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = sum((p.square().sum() for p in net.parameters()), torch.zeros(()).double())
        loss = nn.functional.mse_loss(net(x), target) + decay * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return net.eval()


def _measure(net: nn.Module, data: ArrayData, loss: str) -> Ladder:
    spec = {
        "objective": {"loss": loss, "metrics": []},
        "criterion": {"kind": "obd"},
        "target": {"sparsity": 1.0 - 1e-9},
    }
    job = prepare(net, Data(data, data, data), spec, facts=None, narrator=Narrator(), copy=True)
    everything = torch.arange(len(job.weights))
    curvature = compute(Request("ggn_diagonal"), job.network(), data, job.loss, everything)
    problem = Problem(job.weights.read(), curvature)
    return climb(job, problem, data, in_loss_units=True, shares=SHARES)


def _draw(found: dict[str, Ladder]) -> None:
    drawn = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, (name, ladder) in zip(drawn.subplots(1, len(found)), found.items(), strict=True):
        for field, style, label in (
            ("measured", "k-", "measured"),
            ("predicted", "C0--", "g·dw + ½ dw'G dw"),
            ("own", "C1:", "OBD's own sum"),
        ):
            pairs = [(r.sparsity, getattr(r, field)) for r in ladder.rungs]
            positive = [(x, y) for x, y in pairs if y and y > 0]
            axes.semilogy(*zip(*positive, strict=True), style, label=label)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("share of the weights deleted")
        axes.set_ylabel("increase of the loss")
        axes.legend(frameon=False, fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    drawn.savefig(RESULTS / "lecun_digits.svg", metadata={"Date": None})


def run() -> bool:
    """Measure, draw, save; whether the figure holds."""
    first: dict[str, Ladder] = {}
    rows: list[list[Any]] = []
    results: list[dict[str, Any]] = []
    for seed in SEEDS:
        arrays, _ = digits(seed)
        x, labels = torch.from_numpy(arrays.x), torch.from_numpy(arrays.target)
        signs = nn.functional.one_hot(labels, 10).double() * 2.0 - 1.0
        squared = ArrayData({"x": x.double()}, signs * 0.8)
        for name, net, data, loss in (
            (FIGURE, _tanh_network(squared, DECAY, seed), squared, "mse"),
            (BARE, _tanh_network(squared, 0.0, seed), squared, "mse"),
            (DEMO, train(arrays, seed), ArrayData({"x": x}, labels), "cross_entropy"),
        ):
            ladder = _measure(net, data, loss)
            first.setdefault(name, ladder)
            rung = min(ladder.rungs, key=lambda r: abs(r.sparsity - AT))
            ends = [ladder.holds_up_to, ladder.own_holds_up_to]
            rows.append([name, seed, rung.predicted, rung.own, rung.measured, *ends])
            results.append(
                {
                    "network": name,
                    "seed": seed,
                    "within_factor_2_at_30": holds(rung.predicted, rung.measured, 2.0, 0.0),
                    "ladder": ladder.model_dump(mode="json"),
                }
            )
    _draw(first)
    rows.sort(key=lambda row: (row[0], row[1]))
    table(
        rows,
        ["network", "seed", "predicted at 30 %", "OBD's own", "measured", "holds to", "own to"],
    )
    misses = {name: [max(r[2] / r[4], r[4] / r[2]) for r in rows if r[0] == name] for name in first}
    for name, factors in misses.items():
        within = sum(f <= 2.0 for f in factors)
        print(f"{name}: off by {statistics.median(factors):.3g} at 30 % in the median, "
              f"within 2 on {within} of {len(factors)} seeds")  # fmt: skip
    held = statistics.median(misses[FIGURE]) <= 2.0
    print(f"figure {'held' if held else 'MISSED'}")
    save(
        "lecun_digits", {"decay": DECAY, "factors_at_30": misses, "networks": results, "held": held}
    )
    return held

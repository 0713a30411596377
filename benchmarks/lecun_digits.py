"""Predicted against measured loss increase while weights are deleted, as in LeCun et al. 1989.

About 2,600 weights on real 8x8 digits, deleted in the order of OBD's saliencies in one step, not
retrained; each network on seeds 0 to 4. Figure: in LeCun's setting (convolutions that share their
weights, 1.7159 tanh(2x/3) units, mean squared error, trained without decay) the quadratic model
with the gradient foretells the increase at 30 % within a factor of 2 on every seed.

Settings were looked at before this one was taken. A perceptron with tanh units was the first and is
measured and shown: each of its weights sees one pixel, those of almost dead pixels are not held by
the data, and their joint removal saturates units. With decay it holds on four seeds, without on
none. The convolutions were looked at with decay too, where they hold as well. Neither seeds nor
samples were chosen. The exact Hessian and the Gauss-Newton matrix are both printed: where the model
misses, both do. Where OBD's own sum leaves 10 % is printed for all, always of the increase itself:
in the total loss a miss would hide.
"""

import statistics
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.common import RESULTS, save, table
from demo.network import digits, train
from pruning.criteria import Problem
from pruning.curvature import Request, compute
from pruning.curvature.quadratic import gauss_newton_products
from pruning.data.batches import ArrayData, Data
from pruning.job import Job, prepare
from pruning.progress import Narrator
from pruning.report.trust import Ladder
from pruning.spec import parse_spec
from pruning.trust.ladder import climb, holds

SEEDS = range(5)
DECAY = 1e-4
LECUN = "shared weights, scaled tanh, MSE"
PERCEPTRON, BARE = "tanh perceptron, MSE, decay", "tanh perceptron, MSE"
DEMO = "ReLU perceptron, cross-entropy"
AT = 0.3
SHARES = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3) (LeCun 1989, Generalization and network design strategies)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return 1.7159 * torch.tanh(x * (2.0 / 3.0))


def _shared() -> nn.Module:
    """Two convolutions, each followed by averaging, and an output layer: 2,560 weights."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 10, 3, padding=1), ScaledTanh(), nn.AvgPool2d(2),
        nn.Conv2d(10, 19, 3, padding=1), ScaledTanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(19 * 4, 10),
    )  # fmt: skip


def _perceptron() -> nn.Module:
    """64-35-10: 2,590 weights."""
    return nn.Sequential(nn.Linear(64, 35), nn.Tanh(), nn.Linear(35, 10))


def _minimised(
    build: Callable[[], nn.Module], data: ArrayData, decay: float, seed: int
) -> nn.Module:
    """Trained on all samples at once by 300 steps of L-BFGS in float64."""
    torch.manual_seed(seed)
    net = build().double()
    (x,), target = next(data.batches(data.samples))
    optimizer = torch.optim.LBFGS(
        net.parameters(),
        max_iter=300,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = sum((p.square().sum() for p in net.parameters()), torch.zeros(()).double())
        loss = nn.functional.mse_loss(net(x), target) + decay * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return net.eval()


def _measure(net: nn.Module, data: ArrayData, loss: str) -> tuple[Ladder, float]:
    """The ladder, and what the Gauss-Newton matrix in place of the Hessian predicts at 30 %."""
    spec = {
        "objective": {"loss": loss, "metrics": []},
        "criterion": {"kind": "obd"},
        "target": {"sparsity": 1.0 - 1e-9},
    }
    job = prepare(
        deepcopy(net), Data(data, data, data), parse_spec(spec), facts=None, narrator=Narrator()
    )
    everything = torch.arange(len(job.weights))
    curvature = compute(Request("ggn_diagonal"), job.network(), data, job.loss, everything)
    problem = Problem(job.weights.read(), curvature)
    ladder = climb(job, problem, data, in_loss_units=True, shares=SHARES)
    return ladder, _with_gauss_newton(job, data, curvature.diagonal(), _at(ladder))


def _at(ladder: Ladder) -> Any:
    return min(ladder.rungs, key=lambda r: abs(r.sparsity - AT))


def _with_gauss_newton(job: Job, data: ArrayData, diagonal: Tensor, rung: Any) -> float:
    old = job.weights.read()
    going = (diagonal * old.square()).argsort(stable=True)[: rung.removed]
    change = torch.zeros_like(old)
    change[going] = -old[going]
    product = gauss_newton_products(job.network(), data, job.loss, change[None])[0]
    second = 0.5 * float(change @ product)
    return float(rung.first_order + second)


def _draw(found: dict[str, Ladder]) -> None:
    drawn = Figure(figsize=(15, 3.8), layout="constrained")
    for axes, (name, ladder) in zip(drawn.subplots(1, len(found)), found.items(), strict=True):
        for field, style, label in (
            ("measured", "k-", "measured"),
            ("predicted", "C0--", "g·dw + ½ dw'H dw"),
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


def _networks(seed: int) -> list[tuple[str, nn.Module, ArrayData, str]]:
    arrays, _ = digits(seed)
    x, labels = torch.from_numpy(arrays.x), torch.from_numpy(arrays.target)
    signs = nn.functional.one_hot(labels, 10).double() * 2.0 - 1.0
    squared = ArrayData({"x": x.double()}, signs * 0.8)
    return [
        (LECUN, _minimised(_shared, squared, 0.0, seed), squared, "mse"),
        (PERCEPTRON, _minimised(_perceptron, squared, DECAY, seed), squared, "mse"),
        (BARE, _minimised(_perceptron, squared, 0.0, seed), squared, "mse"),
        (DEMO, train(arrays, seed), ArrayData({"x": x}, labels), "cross_entropy"),
    ]


def run() -> bool:
    """Measure, draw, save; whether the figure holds."""
    first: dict[str, Ladder] = {}
    rows: list[list[Any]] = []
    results: list[dict[str, Any]] = []
    for seed in SEEDS:
        for name, net, data, loss in _networks(seed):
            ladder, gauss_newton = _measure(net, data, loss)
            first.setdefault(name, ladder)
            rung = _at(ladder)
            found = [rung.predicted, gauss_newton, rung.own, rung.measured]
            rows.append([name, seed, *found, ladder.holds_up_to, ladder.own_holds_up_to])
            results.append(
                {
                    "network": name,
                    "seed": seed,
                    "within_factor_2_at_30": holds(rung.predicted, rung.measured, 2.0, 0.0),
                    "predicted_by_gauss_newton_at_30": gauss_newton,
                    "ladder": ladder.model_dump(mode="json"),
                }
            )
    _draw(first)
    rows.sort(key=lambda row: (row[0], row[1]))
    table(
        rows,
        ["network", "seed", "predicted at 30 %", "by Gauss-Newton", "OBD's own", "measured",
         "holds to", "own to"],
    )  # fmt: skip
    misses = {name: [max(r[2] / r[5], r[5] / r[2]) for r in rows if r[0] == name] for name in first}
    within = {
        name: sum(r["within_factor_2_at_30"] for r in results if r["network"] == name)
        for name in first
    }
    for name, factors in misses.items():
        print(f"{name}: off by {statistics.median(factors):.3g} at 30 % in the median, "
              f"within 2 on {within[name]} of {len(factors)} seeds")  # fmt: skip
    held = within[LECUN] == len(SEEDS)
    print(f"figure {'held' if held else 'MISSED'}")
    save(
        "lecun_digits",
        {"decay": DECAY, "factors_at_30": misses, "within_factor_2_at_30": within,
         "networks": results, "held": held},
    )  # fmt: skip
    return held

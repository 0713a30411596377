"""What each layer costs at every sparsity, in units of the loss, without gradients.

Some rows of the layer, pruned to a dozen sparsities, give the ladder's shape. What a unit of that
error costs the network is measured: the layer alone is pruned, and the distance of the network's
outputs from the dense ones taken, by Kullback-Leibler divergence where the objective is a
cross-entropy of scores, else squared.
"""

import time
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pruning.allocation.ladder import Ladder
from pruning.curvature.losses import Loss, loss_of
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.job import Job
from pruning.layers import Prunable
from pruning.layerwise.collected import Collected, energy
from pruning.layerwise.walk import Options, walk
from pruning.patterns.unstructured import smallest
from pruning.solvers import masked_cg
from pruning.solvers.layer import LayerProblem, LayerSolution
from pruning.solvers.layer_factor import cholesky, damped
from pruning.spec import Objective

ROWS = 128
"""Rows of a layer that are pruned for its ladder, evenly spread."""

RUNGS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Sparsities at which they are, beside none and all."""

SAMPLES, FEWEST, TOKENS = 16, 4, 2048
"""Calibration samples on which a layer's effect on the network is measured; of long texts fewer, so
that they are not more than so many tokens."""

STEPS = 6
"""Conjugate-gradient steps that mend the rows at each rung."""

PROBE = 0.5
"""Sparsity of the one layer that is pruned for it."""


class Ladders:
    """The ladders of a job's layers, made on first use.

    Args:
        job: The module is at the weights from which the ladders start.
        options: Of the walk; its aim is replaced by the layers' own weights.
        real: Which tokens are no padding.
        dense: Whether nothing is gone yet, so that several runs share them.
    """

    def __init__(
        self, job: Job, options: Options, real: Tensor | None, *, dense: bool = False
    ) -> None:
        self.job, self.real, self.dense = job, real, dense
        self.options = Options(
            aim="weights",
            damping=options.damping,
            neighbours=options.neighbours,
            device=options.device,
        )

    def of_layers(self) -> list[Ladder]:
        """One ladder a layer in scope, in their order."""
        return [ladder for ladder, _ in self._made]

    def prices(self, budget: str) -> list[float]:
        """What one weight of each layer is worth: 1, its uses a sample, or its share of seconds."""
        layers = self.job.weights.layers
        if budget == "weights":
            return [1.0] * len(layers)
        uses = [u for _, u in self._made]
        if budget == "flops":
            return uses
        return [s / p.weight.numel() for s, p in zip(self._seconds(uses), layers, strict=True)]

    @cached_property
    def _made(self) -> list[tuple[Ladder, float]]:
        if not self.dense:
            return self._climbed()
        # Of a part of the data too, where dampings are compared.
        what = f"ladders of {self.job.data.calibration.samples} samples"
        key = (self.options.damping, self.options.neighbours, self.job.spec.objective)
        return self.job.shared(what, repr(key), self._climbed)

    def _climbed(self) -> list[tuple[Ladder, float]]:
        job = self.job
        numbers = {p.name: n for n, p in enumerate(job.weights.layers)}
        found: dict[int, tuple[Ladder, float]] = {}
        calibration = job.data.calibration
        some = calibration.select(_spread(calibration.samples, _looked_at(calibration)))
        loss = _distance(job.spec.objective)
        dense = self._outputs(some)

        def look(layer: Collected) -> LayerSolution | None:
            rungs, errors = _path(layer)
            number = numbers[layer.prunable.name]
            probe, error = _probe(layer)
            increase = self._increase(layer.prunable, layer.as_weight(probe), some, dense, loss)
            scale = max(increase, 0.0) / error if error > 0 else 0.0
            rising = torch.tensor(errors).cummax(0).values * scale
            uses = layer.columns / job.data.calibration.samples
            found[number] = Ladder(tuple(rungs), tuple(rising.tolist())), uses
            return None

        walk(
            job.module,
            job.weights.layers,
            job.data.calibration,
            look,
            self.options,
            real=self.real,
            progress=lambda i, n, name: job.narrator.progress(i, n, f"ladder {name}"),
        )
        return [found[n] for n in range(len(job.weights.layers))]

    @torch.no_grad()
    def _outputs(self, data: ArrayData) -> Tensor:
        batches = ArrayData(data.inputs).batches(SAMPLES, device=self.job.device)
        return torch.cat([first_output(self.job.module(*inputs)) for inputs, _ in batches])

    @torch.no_grad()
    def _increase(
        self, layer: Prunable, weight: Tensor, data: ArrayData, dense: Tensor, loss: Loss
    ) -> float:
        old = layer.weight.detach().clone()
        try:
            layer.weight.copy_(weight)
            return float(loss.samples(self._outputs(data), dense).double().mean())
        finally:
            layer.weight.copy_(old)

    def _seconds(self, uses: list[float]) -> list[float]:
        """Seconds that a product of each layer's size takes, the median of five."""
        found = []
        for p, columns in zip(self.job.weights.layers, uses, strict=True):
            matrix = p.weight.detach().flatten(1)
            right = torch.ones(matrix.shape[1], max(1, round(columns))).to(matrix)
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                product: Any = matrix @ right
                float(product.flatten()[0])
                times.append(time.perf_counter() - begin)
            found.append(sorted(times)[2])
        return found


def _distance(objective: Objective) -> Loss:
    scores = objective.loss in ("cross_entropy", "causal_lm") or objective.distance == "kl"
    return loss_of(Objective(loss="match_dense", distance="kl" if scores else "squared"))


def _looked_at(data: ArrayData) -> int:
    """How many samples are enough."""
    texts = [x for x in data.inputs.values() if x.dim() == 2 and not x.is_floating_point()]
    longest = max((x.shape[1] for x in texts), default=1)
    return min(SAMPLES, max(FEWEST, TOKENS // longest))


def _spread(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()


def _path(layer: Collected) -> tuple[list[int], list[float]]:
    """Weights removed, and the error of the layer's outputs as that of the rows looked at."""
    problem = layer.problem(0, dtype=torch.float32)
    groups, outputs = problem.aim.shape[:2]
    rows = _spread(outputs, max(1, ROWS // groups)).to(problem.aim.device)
    aim, total = problem.aim[:, rows], layer.aim.numel()
    shares = [s for a, s in pairwise((0.0, *RUNGS)) if int(s * total) > int(a * total)]
    removed, errors = [0], [0.0]
    counts = [int(s * aim.numel()) for s in shares]
    for share, weight in zip(shares, _thinned(problem, aim, counts), strict=True):
        removed.append(int(share * total))
        errors.append(energy((weight - aim).double(), layer.gram) * outputs / len(rows))
    return [*removed, total], [*errors, energy(layer.aim, layer.gram)]


def _probe(layer: Collected) -> tuple[Tensor, float]:
    """The layer pruned to `PROBE`, and its error."""
    problem = layer.problem(0, dtype=torch.float32)
    (found,) = _thinned(problem, problem.aim, [int(PROBE * problem.aim.numel())])
    weight = found.double()
    return weight, energy(weight - layer.aim, layer.gram)


def _thinned(problem: LayerProblem, aim: Tensor, counts: list[int]) -> Iterator[Tensor]:
    """Rows of the layer with more and more zeros: those of least saliency go, the others mend.

    Cheaper than a solver for each count, and close enough for what a ladder decides.
    """
    curvature = damped(problem)
    inverse = torch.cholesky_inverse(cholesky(curvature)).diagonal(dim1=1, dim2=2)[:, None, :]
    weight = aim
    for count in counts:
        removed = smallest((weight.square() / inverse).flatten(), count).view_as(weight)
        start = weight.masked_fill(removed, 0.0)
        weight = masked_cg.improve(curvature, aim, start, removed, STEPS)
        yield weight

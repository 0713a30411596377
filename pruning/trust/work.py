"""What a job costs, counted in operations, so that trust can be held to what the rest takes.

Counted and not timed: a report's results are the same bytes on every run, so that no clock may
decide what is in them. A pass is that of one sample forwards through the network; a gradient takes
about three of them, and each product with the Hessian four more
(`python -m benchmarks trust_cost` holds the count to the clock).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pruning.catalogue.about import Size
from pruning.criteria import Problem
from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.matrix import Blocks, Dense, LowRank, Matrix
from pruning.curvature.network import first_output
from pruning.curvature.products import KEPT, pass_size
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.job import Job
from pruning.report.trust import Part
from pruning.schedule.step import scorings
from pruning.spec import FineTune
from pruning.trust import bootstrap
from pruning.trust.checks import PROBES, STEPS
from pruning.trust.conditioning import BLOCK_ENTRIES, DECOMPOSED
from pruning.trust.ladder import RUNGS, heights

GRADIENT, PRODUCT = 3, 4
"""Passes that a gradient takes with the forward pass before it, and a product after that."""

BATCH = 512
"""Samples in a batch, as far as the cost of starting one is concerned."""

CALL = 200_000
"""Operations that could be done in the time that a layer takes beside its arithmetic."""

EVERY_JOB = 10**10
"""Operations that could be done in about the second that every job takes beside its passes:
reading, writing, checking the files."""


class Work:
    """Prices of a job's parts, in operations (a multiply-add is two).

    Args:
        job: At its dense weights.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parameters = sum(p.numel() for p in job.module.parameters())
        self.outputs, macs = _one_sample(job)
        known = None if job.facts is None else job.facts.macs
        self.macs = int(known or max(macs, self.parameters))
        self.calls = sum(1 for m in job.module.modules() if not any(True for _ in m.children()))

    def passes(self, samples: int, count: float) -> int:
        """So many passes of so many samples each."""
        batch = CALL * self.calls * math.ceil(samples / BATCH)
        return int(count * (2 * self.macs * samples + batch))

    def criterion(self) -> int:
        """Scoring all weights in scope once, and moving the survivors."""
        methods: list[Any] = [self.job.spec.criterion, self.job.spec.compensation]
        size = self._size()
        return sum(int(part.price(size).flops) for part in methods)

    def rest(self) -> int:
        """All that the job does beside trust and comparison, from its dense weights on."""
        job = self.job
        data, steps = job.data, job.steps
        evaluation = self.passes(data.evaluation.samples, 1) if job.metrics else 0
        each = self.passes(data.calibration.samples, 1 + GRADIENT + PRODUCT) + evaluation
        total = self.passes(data.calibration.samples, 1) + evaluation + each * len(steps)
        total += self.criterion() * scorings(steps)
        recovery = job.spec.recovery
        if isinstance(recovery, FineTune):
            epochs = recovery.epochs * sum(step.recover for step in steps)
            total += self.passes(data.training.samples, GRADIENT * epochs)
        return total

    def _size(self) -> Size:
        job = self.job
        return Size(
            weights=len(job.weights),
            parameters=self.parameters,
            samples=job.data.calibration.samples,
            outputs=self.outputs,
            macs=self.macs,
            layers=tuple(
                (p.groups, len(p.weight) // p.groups, p.weight[0].numel())
                for p in job.weights.layers
            ),
        )


@torch.no_grad()
def _one_sample(job: Job) -> tuple[int, int]:
    """Outputs of one sample, and multiply-adds of the layers in scope where modules apply them."""
    macs = 0

    def count(layer: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal macs
        weight = layer.weight
        if isinstance(output, Tensor) and isinstance(weight, Tensor):
            macs += output.numel() // max(1, len(weight)) * weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in _holders(job)]
    try:
        inputs, _ = next(iter(job.data.calibration.batches(1, device=job.device)))
        outputs = first_output(job.module(*inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs.numel(), macs


def _holders(job: Job) -> list[nn.Module]:
    """The modules in scope that hold one weight of that name."""
    names = {p.layer for p in job.weights.layers if p.param == "weight"}
    return [module for name, module in job.module.named_modules() if name in names]


def prices(work: Work, problem: Problem, samples: int, spectrum: ArrayData) -> dict[Part, int]:
    """Operations of each part of trust that the spec asks for, the most telling part first.

    Args:
        work: Of the job.
        problem: All weights in scope, with the criterion's curvature.
        samples: How many the ladder stands on.
        spectrum: What the spectrum of the Hessian is measured on.
    """
    job, options = work.job, work.job.spec.trust
    found: dict[Part, int] = {}
    if options.checks:
        # Gradient and product for one change, and the inputs of every layer.
        found["gradient_and_inputs"] = work.passes(samples, GRADIENT + PRODUCT + 1)
    rungs = len(heights(job, RUNGS)) if job.target > job.existing.removed else 0
    layers = len(job.weights.layers)
    if options.ladder and rungs:
        # Fewer survivors are solved for from rung to rung.
        solved = rungs * _solution(problem) // 3
        own = 0 if options.checks else GRADIENT  # they share one
        found["ladder"] = work.passes(samples, own + rungs * (PRODUCT + 1)) + solved
    if options.checks:
        if problem.curvature is not None:
            found["curvature_rank"] = _decomposition(problem.curvature)
        again = PRODUCT if _graph_is_kept(job, spectrum) else GRADIENT + PRODUCT
        found["negative_curvature"] = work.passes(spectrum.samples, PROBES * STEPS * again)
    if options.bootstrap != 0:
        found["bootstrap"] = _resamples(work, problem)
    if options.ladder and rungs and layers <= options.layers:
        alone = rungs * (layers * (PRODUCT + 1) - PRODUCT) if layers > 1 else 0
        found["ladder_by_layer"] = work.passes(samples, alone)
    return found


def _graph_is_kept(job: Job, data: ArrayData) -> bool:
    """Whether products share one graph; said of a network without derivatives, too."""
    try:
        return data.samples <= pass_size(job.network(), data, KEPT)
    except SecateurError as failure:
        if not lacks_derivative(failure):
            raise
        return True


def _solution(problem: Problem) -> int:
    """Scoring or compensating once with a known curvature."""
    matrix = problem.curvature
    if isinstance(matrix, Dense):
        return int(len(matrix.values) ** 3)
    if isinstance(matrix, Blocks):
        return int(matrix.values.numel() * matrix.values.shape[1])
    return 0


def _decomposition(matrix: Matrix) -> int:
    """The eigenvalues of a curvature."""
    if isinstance(matrix, Dense):
        return 9 * len(matrix.values) ** 3 if len(matrix.values) <= DECOMPOSED else 0
    if isinstance(matrix, Blocks):
        entries = min(matrix.values.numel(), BLOCK_ENTRIES)
        return int(9 * entries * matrix.values.shape[1])
    if isinstance(matrix, LowRank):
        rows, size = matrix.rows.shape
        return 9 * rows**3 + 2 * rows * rows * size if rows <= DECOMPOSED else 0
    return 0


def _resamples(work: Work, problem: Problem) -> int:
    """The batches' curvature once, and a solution each; or everything again each time."""
    if bootstrap.unavailable(work.job, problem) is not None:
        return 0
    times = bootstrap.times(work.job)
    if not bootstrap.linear(problem):
        return times * work.criterion()
    return work.criterion() + times * _solution(problem)

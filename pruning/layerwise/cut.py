"""One step of a job by `compensation: {kind: layerwise}`: which weights go, how others change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pruning.allocation import Layers
from pruning.budget import fewest
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.choice import NEAR, layers_of, quotas_of
from pruning.errors import SecateurError
from pruning.job import Job
from pruning.layerwise.collected import Collected
from pruning.layerwise.ladders import Ladders
from pruning.layerwise.padding import real_tokens
from pruning.layerwise.walk import Aim, Layer, Options, walk
from pruning.patterns.groups import groups_of, lowest_of_each
from pruning.patterns.shape import layer_pattern
from pruning.solvers import admm, greedy_rows, least_squares, masked_cg, sparsegpt
from pruning.solvers.layer import LayerProblem, LayerSolution
from pruning.solvers.layer_factor import damped
from pruning.solvers.singular import SingularError

MENDED = 8
"""Conjugate-gradient steps that mend rows in which zeros of the upload are held."""


class Saved(Protocol):
    """Solved layers that outlive an attempt."""

    def find(self, name: str) -> dict[str, Tensor] | None:
        """What was kept under a layer's name."""

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep a layer, or its counts."""


class _Nothing:
    def find(self, name: str) -> None:
        return None

    def keep(self, name: str, tensors: dict[str, Tensor]) -> None:
        return None


@dataclass(frozen=True)
class LayerwiseCut:
    """What a walk through the network did, over all W weights in scope.

    Args:
        scores: Saliency of each weight in its own layer, shape [W], float64.
        removed: True for every weight that is gone now, shape [W].
        weights: All weights as they are now, shape [W], float64.
        layers: What the walk says of each layer, in its order.
        notes: What a report should say.
    """

    scores: Tensor
    removed: Tensor
    weights: Tensor
    layers: list[Layer]
    notes: list[str]


def cut(
    job: Job,
    kept: Tensor,
    count: int,
    target: int,
    damping: float,
    chosen: Tensor | None = None,
    saved: Saved | None = None,
) -> LayerwiseCut:
    """Prune layer after layer; the module is left as it was before.

    Args:
        job: Its compensation is `Layerwise`.
        kept: False for the weights that are gone already, shape [W].
        count: How many go now.
        target: How many are gone in all afterwards.
        damping: Added to each Gram matrix' diagonal, in units of its mean.
        chosen: For a solver that does not choose the mask: which weights are gone afterwards,
            shape [W].
        saved: Layers that an earlier attempt solved, and where to put the others.

    Raises:
        SecateurError: `factorization_failed` naming the layer, or what the walk raises.
    """
    compensation: Any = job.spec.compensation
    pattern: Any = job.spec.pattern
    shape = layer_pattern(pattern)
    weights = job.weights
    numbers = {p.name: n for n, p in enumerate(weights.layers)}
    held = weights.split(job.existing.held)
    gone = weights.split(_first(job, kept))
    fixed = None if chosen is None else weights.split(chosen)
    fixed_size = None if job.facts is None else job.facts.batch
    options = Options(
        aim=_aim(compensation),
        damping=damping,
        batch=fixed_size or Options.batch,
        whole=fixed_size is not None,
        neighbours=pattern.kind != "unstructured",
    )
    real = real_tokens(job.data.calibration)
    saved = saved or _Nothing()
    earlier = [f["counts"] for p in weights.layers if (f := saved.find(p.name)) is not None]
    if earlier:
        counts = [int(k) for k in earlier[0]]
    elif fixed is not None:
        counts = [int(part.sum()) for part in fixed]
    else:
        counts = _counts(job, kept, count, target, options, real)
    removed = ~kept
    parts = weights.split(removed)
    scores = [torch.zeros(p.weight.shape, dtype=torch.float64) for p in weights.layers]

    def solve(found: Collected) -> LayerSolution:
        number = numbers[found.prunable.name]
        double = found.prunable.weight.dtype == torch.float64
        problem = found.problem(
            counts[number], shape, gone[number], torch.float64 if double else torch.float32
        )
        before = saved.find(found.prunable.name)
        if before is not None:
            scores[number] = before["scores"]
            parts[number][...] = found.as_weight(before["removed"].to(old.device))
            return LayerSolution(*(before[k].to(old.device) for k in ("weight", "removed")))
        try:
            scores[number] = found.as_weight(_saliency(found)).cpu()
            if fixed is None:
                solution = _solved(problem, compensation)
            else:
                removed = found.as_matrix(fixed[number])
                zero = removed | found.as_matrix(held[number])
                solution = LayerSolution(least_squares.fit(problem, zero), removed)
        except SingularError as failure:
            raise _refusal(found, failure) from None
        solution = _held(problem, solution, found.as_matrix(held[number]))
        parts[number][...] = found.as_weight(solution.removed)
        result = {"weight": solution.weight, "removed": solution.removed, "scores": scores[number]}
        saved.keep(found.prunable.name, {**result, "counts": torch.tensor(counts)})
        return solution

    old = weights.read()
    try:
        done = walk(
            job.module,
            weights.layers,
            job.data.calibration,
            solve,
            options,
            real=real,
            progress=lambda i, n, name: job.narrator.progress(i, n, name),
        )
        new = weights.read()
    finally:
        weights.write(old)
    flat = torch.cat([s.flatten() for s in scores]).to(old.device)
    return LayerwiseCut(flat, removed, torch.where(removed, 0.0, new), done.layers, done.notes)


def _first(job: Job, kept: Tensor) -> Tensor:
    """What goes before all else: weights that are gone, and zeros of the upload in n:m groups.

    Of such a group no more than the pattern removes count, the first by position.
    """
    gone = ~kept
    shape = layer_pattern(job.spec.pattern)
    if shape.kind != "nm" or not bool(job.existing.held.any()):
        return gone
    everything = torch.arange(len(gone), device=gone.device)
    groups = groups_of(job.weights.layers, everything, shape)
    assert groups is not None
    zero = gone | job.existing.held
    first = lowest_of_each((~zero).double(), groups, shape.columns - shape.keep)
    return gone | (first & zero)


def _held(problem: LayerProblem, solution: LayerSolution, held: Tensor) -> LayerSolution:
    """The solution with further weights at zero, which the others of their rows make up for."""
    more = held & ~solution.removed
    if not bool((solution.weight[more] != 0).any()):
        return solution
    zero = solution.removed | more
    weight = masked_cg.improve(damped(problem), problem.aim, solution.weight, zero, MENDED)
    return LayerSolution(weight, solution.removed)


def _aim(compensation: Layerwise) -> Aim:
    return compensation.aim if compensation.sequential else "weights"


def _counts(
    job: Job, kept: Tensor, count: int, target: int, options: Options, real: Tensor | None
) -> list[int]:
    """Weights of each layer that are gone afterwards."""
    spec: Any = job.spec
    layers: Layers = layers_of(job)
    if spec.allocation.kind in ("global", "search"):
        ladders = Ladders(job, options, real, dense=torch.equal(kept, ~job.existing.gone))
        layers = Layers(layers.shapes, layers.outliers, ladders.of_layers, ladders.prices)
    active = kept.nonzero()[:, 0]
    before = [int((~part).sum()) for part in job.weights.split(kept)]

    def gone(after: int) -> list[int]:
        now = quotas_of(job, active, after - (target - count), after, layers)
        return [a + b for a, b in zip(before, now, strict=True)]

    if job.budget is None:
        return gone(target)
    return _settled(job, gone, target - count, target)


def _settled(job: Job, gone: Callable[[int], list[int]], before: int, target: int) -> list[int]:
    """The fewest weights whose removal meets a step's part of the budget; see `choice.settled`."""
    budget, sizes = job.budget, job.weights.sizes
    assert budget is not None
    allowed = budget.allowed(job.way(target))

    def enough(after: int) -> bool:
        left = [n - k for n, k in zip(sizes, gone(after), strict=True)]
        return budget.of(left) <= allowed

    return gone(fewest(enough, before, sum(sizes), job.spec.pattern.unit, NEAR))


def _solved(problem: LayerProblem, compensation: Layerwise) -> LayerSolution:
    solver = compensation.resolve()
    if solver == "sparsegpt":
        return sparsegpt.solve(problem)
    if solver == "greedy":
        return greedy_rows.solve(problem)
    return admm.solve(problem, admm.THOROUGH if compensation.effort == "high" else admm.FAST)


def _saliency(found: Collected) -> Tensor:
    """w^2 / [H^-1]_qq of the aimed weights with the damped H, shape [g, o, d]."""
    problem = found.problem(0)
    factor, failed = torch.linalg.cholesky_ex(damped(problem))
    if bool(failed.any()):
        raise SingularError(torch.arange(problem.gram.shape[1]), problem.gram[0])
    inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
    return found.aim.square() / inverse[:, None, :]


def _refusal(found: Collected, failure: SingularError) -> SecateurError:
    gram = found.gram
    spectra = torch.linalg.eigvalsh(gram)
    floor = spectra[:, -1:] * gram.shape[1] * torch.finfo(torch.float64).eps
    rank = int((spectra > floor).sum(1).min())
    name = found.prunable.layer
    return SecateurError(
        "factorization_failed",
        f"The Gram matrix of the inputs of {name} ({gram.shape[1]} wide, rank {rank}) can't be "
        f"factorised at damping {found.damping:g}.",
        where=name,
        hint="Use a larger compensation.damping, more calibration samples, or exclude the layer.",
        rank=rank,
        weights=gram.shape[1],
        damping=found.damping,
    )

"""One weight at a time until something happens, as Hassibi and Stork 1992 pruned.

For small networks; biases may be among the weights.
A job does the same down to a target with `schedule: {kind: one_by_one}`; this is for those who
have a module at hand and a rule of their own for when to stop.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from pruning.catalogue.criteria.obs import OBS
from pruning.criteria.problem import Problem
from pruning.curvature import compute
from pruning.curvature.losses import Loss
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.evidence import View, gather
from pruning.layers import FlatWeights, Prunable, prunable_layers
from pruning.patterns.unstructured import smallest
from pruning.registry import method
from pruning.solvers import greedy
from pruning.solvers.damping import absolute


@dataclass(frozen=True)
class Deleted:
    """What is left: `kept` [W]; flat positions in the `order` they went, at which `costs`."""

    kept: Tensor
    order: list[int]
    costs: list[float]


def weights_and_biases(module: nn.Module) -> FlatWeights:
    """All weights and biases of the prunable layers as one vector, layer after layer."""
    found: list[Prunable] = []
    for layer in prunable_layers(module):
        found.append(layer)
        bias = module.get_submodule(layer.layer).bias
        if isinstance(bias, nn.Parameter):
            found.append(Prunable(layer.layer, layer.kind, "bias", bias))
    return FlatWeights(found)


def prune_one_by_one(
    network: Network,
    data: ArrayData,
    loss: Loss,
    criterion: Any,
    *,
    recompute: int = 1,
    count: int | None = None,
    stop: Callable[[], bool] | None = None,
    seed: int = 0,
) -> Deleted:
    """Delete weights in place, always the one that costs least then.

    Criterion obs moves the survivors after every deletion, its inverse downdated until the
    curvature is computed again; the others set the weight of lowest saliency to zero.

    Args:
        network: The module with the weights that may go, W of them; its weights are changed.
        data: Samples and targets for the curvature.
        loss: The loss of one sample.
        criterion: A declaration; a damping must be a number, in units of the mean diagonal.
        recompute: Deletions for which one computation of the curvature serves.
        count: How many go at most; all of them without it.
        stop: Asked after each deletion; once it is true, that deletion is undone and it is over.
        seed: Of curvature and evidence that are drawn.

    Raises:
        SingularError: If the damped curvature can't be factorised.
        ValueError: `damping: auto`, which needs a job's held-out data.
    """
    weights = network.weights
    kept = torch.ones(len(weights), dtype=torch.bool, device=weights.device)
    result = Deleted(kept, [], [])
    most = len(weights) if count is None else min(count, len(weights))
    while len(result.order) < most:
        active = kept.nonzero()[:, 0]
        problem = _problem(network, data, loss, criterion, active, seed)
        budget = min(recompute, most - len(result.order))
        for deletion in islice(_deletions(criterion, problem), budget):
            before = weights.read()
            after = before.clone()
            after[active] = deletion.weights
            weights.write(after)
            if stop is not None and stop():
                weights.write(before)
                return result
            position = int(active[deletion.position])
            kept[position] = False
            result.order.append(position)
            result.costs.append(deletion.cost)
    return result


def _problem(
    network: Network, data: ArrayData, loss: Loss, criterion: Any, active: Tensor, seed: int
) -> Problem:
    view = View(network, data, loss, active, seed)
    remaining = network.weights.read()[active]
    problem = Problem(remaining, evidence=gather(criterion, view), criterion=criterion)
    request = method("criteria", criterion.kind).curvature(criterion, len(network.weights))
    if request is None:
        return problem
    curvature = compute(request, network, data, loss, active, seed)
    damping = getattr(criterion, "damping", 0.0)
    if not isinstance(damping, float | int):
        raise ValueError(f"damping must be a number here, not {damping}")
    return replace(problem, curvature=curvature, damping=absolute(damping, curvature))


def _deletions(criterion: Any, problem: Problem) -> Iterator[greedy.Deletion]:
    if isinstance(criterion, OBS):
        yield from greedy.deletions(problem)
        return
    scores, weights = method("criteria", criterion.kind).score(problem), problem.weights.clone()
    gone = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    for _ in range(len(scores)):
        q = int(smallest(scores.masked_fill(gone, float("inf")), 1).nonzero()[0, 0])
        weights = weights.clone()
        weights[q], gone[q] = 0.0, True
        yield greedy.Deletion(q, float(scores[q]), weights)

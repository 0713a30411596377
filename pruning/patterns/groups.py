"""Weights that stay or go together, as places in the flat vector of all of them."""

import torch
from torch import Tensor

from pruning.curvature.layers.matrix import Form
from pruning.layers import Prunable
from pruning.solvers.layer import Pattern
from pruning.solvers.layer_patterns import into_groups


def groups_of(layers: list[Prunable], active: Tensor, pattern: Pattern) -> Tensor | None:
    """For each group that is left, the places of its weights among the active ones.

    Args:
        layers: In scope.
        active: Flat positions of the weights that are left, ascending, shape [A]. A group is left
            with all of its weights or none.
        pattern: Which weights go together.

    Returns:
        Shape [groups, rows * columns], groups in the order of the layers; None where every weight
        is a group of its own.
    """
    if pattern.kind == "unstructured":
        return None
    total = sum(p.weight.numel() for p in layers)
    place = torch.full((total,), -1, dtype=torch.long, device=active.device)
    place[active] = torch.arange(len(active), device=active.device)
    found, start = [], 0
    for layer in layers:
        size = layer.weight.numel()
        places = place[start : start + size].view(layer.weight.shape)
        form = Form(tuple(layer.weight.shape), layer.groups)
        matrix, order = form.matrix(places), form.neighbours()
        if order is not None:
            matrix = matrix[..., order.to(matrix.device)]
        found.append(into_groups(matrix, pattern).flatten(0, 2))
        start += size
    groups = torch.cat(found)
    return groups[(groups >= 0).all(1)]


def lowest_of_each(scores: Tensor, members: Tensor, count: int) -> Tensor:
    """The `count` weights of lowest score in each group, ties broken by position.

    Args:
        scores: Shape [A].
        members: Places of each group's weights, shape [groups, size].
        count: How many of each group go.

    Returns:
        True for the weights that go, shape [A].
    """
    order = scores[members].argsort(dim=1, stable=True)[:, :count]
    removed = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    removed[members.gather(1, order).flatten()] = True
    return removed

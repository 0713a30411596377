"""Weights that the outputs depend on and that no gradient reaches.

A network that runs layers under `torch.no_grad`, detaches what they put out or uses a weight's
`.data` computes with them all the same. torch takes their derivatives for zero, and a criterion
made of derivatives would remove them first, at no predicted cost.
"""

from typing import Any

import torch
from torch import Tensor

from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.network import Network
from pruning.errors import SecateurError


def cut_off(network: Network, inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the weights in scope that change the outputs and have no gradient.

    A weight that is used twice, once without a gradient, is not found.

    Args:
        network: The module with its weights in scope.
        inputs: A batch.

    Returns:
        Their names; none where torch can't differentiate the network anyway.
    """
    weights = network.parameters()
    tracked = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    try:
        with torch.enable_grad():
            output = network.outputs(tracked, inputs, once=True)
    except (RuntimeError, NotImplementedError, SecateurError) as failure:
        if not lacks_derivative(failure):
            raise
        return []
    reached = _leaves(output)
    return [
        name
        for name, weight in tracked.items()
        if id(weight) not in reached and _counts(network, weights, name, inputs)
    ]


def _leaves(output: Tensor) -> set[int]:
    """Identities of the tensors at the ends of a result's graph."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [following for following, _ in node.next_functions]
    return found


@torch.no_grad()
def _counts(
    network: Network, weights: dict[str, Tensor], name: str, inputs: tuple[Tensor, ...]
) -> bool:
    """Whether another value of one weight gives other outputs."""
    moved = {**weights, name: weights[name] + 1}
    before, after = (network.outputs(w, inputs, once=True) for w in (weights, moved))
    return not torch.equal(before, after)

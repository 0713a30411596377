"""Weights that the outputs depend on and that no gradient reaches.

A network that runs layers under `torch.no_grad`, detaches what they put out or uses a weight's
`.data` computes with them all the same. torch takes their derivatives for zero, and a criterion
made of derivatives would remove them first, at no predicted cost.
"""

import torch
from torch import Tensor

from pruning.curvature.derivatives import graph, lacks_derivative
from pruning.curvature.network import Network
from pruning.errors import SecateurError


def cut_off(network: Network, inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the weights in scope that change the outputs and have no gradient.

    A weight that is used twice, once without a gradient, is not found.

    Args:
        network: The module with its weights in scope.
        inputs: A batch.

    Returns:
        Names in the order of the scope; none where torch can't differentiate the network anyway.
    """
    weights = network.parameters()
    tracked = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    try:
        with torch.enable_grad():
            output = network.outputs(tracked, inputs, once=True)
    except (RuntimeError, NotImplementedError, SecateurError) as failure:
        if not lacks_derivative(failure):
            raise
        return []
    reached = {id(node.variable) for node in graph(output) if hasattr(node, "variable")}
    lost = [name for name, weight in tracked.items() if id(weight) not in reached]
    return [name for name in lost if _counts(network, weights, name, inputs, output.detach())]


@torch.no_grad()
def _counts(
    network: Network,
    weights: dict[str, Tensor],
    name: str,
    inputs: tuple[Tensor, ...],
    before: Tensor,
) -> bool:
    """Whether other values of one weight give other outputs.

    Each entry gets its own factor: what compares results, such as argmax or softmax, does not see
    a shift that they have in common.
    """
    weight = weights[name]
    factors = torch.linspace(-1.0, 2.0, weight.numel(), dtype=weight.dtype, device=weight.device)
    moved = {**weights, name: weight * factors.view_as(weight) + 1.0}
    return not torch.equal(before, network.outputs(moved, inputs, once=True))

"""What is known of the loss surface, one kind of curvature a file.

Each kind's module has `compute(network, data, loss, active, **parameters)`, which returns one of
the matrices of `pruning.curvature.matrix` over the active weights. All are means over samples.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Matrix
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.registry import method

__all__ = ["Request", "compute"]


@dataclass(frozen=True)
class Request:
    """Which curvature a criterion wants: a module of this package, and its parameters."""

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)


def compute(
    request: Request, network: Network, data: ArrayData, loss: Loss, active: Tensor
) -> Matrix:
    """The curvature asked for, at the network's present weights, over `active` flat positions."""
    module = method("curvature", request.kind)
    matrix: Matrix = module.compute(network, data, loss, active, **request.parameters)
    return matrix

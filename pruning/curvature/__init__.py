"""What is known of the loss surface, one kind of curvature a file.

Each kind's module has `compute(network, data, loss, active, **parameters)`, which returns one of
the matrices of `pruning.curvature.matrix` over the active weights. All are means over samples.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pruning.curvature.derivatives import differentiating
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Blocks, Dense, Matrix
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.registry import method

__all__ = ["Request", "compute"]


@dataclass(frozen=True)
class Request:
    """Which curvature a criterion wants.

    Args:
        kind: A module of this package.
        parameters: What its `compute` takes beside network, data, loss and active weights.
        seeded: Whether it draws, and so takes the job's seed as `seed`.
    """

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seeded: bool = False

    def samples(self, available: int) -> int:
        """How many of the samples it is computed from: low_rank takes a few."""
        return min(self.parameters["samples"], available) if self.kind == "low_rank" else available


def compute(
    request: Request,
    network: Network,
    data: ArrayData,
    loss: Loss,
    active: Tensor,
    seed: int = 0,
) -> Matrix:
    """The curvature asked for, at the network's present weights, over `active` flat positions.

    Every call with one seed draws the same again, so that a job that is resumed goes on as it would
    have, and the two parts of a damping sweep are estimated with the same signs.

    Raises:
        SecateurError: `loss_non_finite` naming the first layer whose curvature is not finite,
            `operator_unsupported` where torch can't differentiate the network, or what the kind's
            own `compute` raises.
    """
    parameters = request.parameters | ({"seed": seed} if request.seeded else {})
    module = method("curvature", request.kind)
    with differentiating():
        matrix: Matrix = module.compute(network, data, loss, active, **parameters)
    _check_finite(matrix, network, active)
    return matrix


def _check_finite(matrix: Matrix, network: Network, active: Tensor) -> None:
    diagonal = matrix.diagonal()
    bad = ~torch.isfinite(diagonal)
    if not bool(bad.any()) and isinstance(matrix, Dense | Blocks):
        # A sum is finite where all terms are, and takes no copy of a large matrix.
        rows = matrix.values.sum(-1)
        bad = ~torch.isfinite(rows if isinstance(matrix, Dense) else matrix.gather(rows))
    if bool(bad.any()):
        weights = network.weights
        layer = weights.layers[int(weights.group[active[bad]].min())].layer
        raise SecateurError(
            "loss_non_finite",
            f"The curvature of {int(bad.sum())} of {len(bad)} weights is not finite, at first in "
            f"layer {layer}.",
            where=layer,
            hint="The loss has no finite derivatives at some sample, as a square root has none at "
            "zero: write such an operation without one, or use a criterion without derivatives.",
        )

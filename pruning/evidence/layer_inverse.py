"""The diagonal of each layer's inverse, [H^-1]_qq, as every weight meets it.

H is the mean of u u' over the unfolded inputs u of the weight's own layer, damped; one layer's
matrix is held at a time. A weight that several layers share sees the inputs of all of them.
"""

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.evidence.view import View
from pruning.layerwise.collected import Collected
from pruning.layerwise.padding import real_tokens
from pruning.layerwise.walk import Options, walk
from pruning.solvers.layer_factor import damped


def compute(view: View, damping: float) -> Tensor:
    """[H^-1]_qq for each active weight, shape [A], in float64.

    Args:
        view: The network, its data and the active weights.
        damping: Added to H's diagonal, in units of its mean.

    Raises:
        SecateurError: `factorization_failed` naming a layer, or what the walk raises.
    """
    weights = view.network.weights
    found: dict[str, Tensor] = {}

    def look(layer: Collected) -> None:
        factor, failed = torch.linalg.cholesky_ex(damped(layer.problem(0)))
        if bool(failed.any()):
            raise SecateurError(
                "factorization_failed",
                f"The Gram matrix of the inputs of {layer.prunable.layer} can't be factorised at "
                f"damping {damping:g}.",
                where=layer.prunable.layer,
                hint="Use a larger criterion.damping, or exclude the layer from the scope.",
            )
        inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
        spread = inverse[:, None, :].expand_as(layer.aim)
        found[layer.prunable.name] = layer.as_weight(spread).flatten()

    options = Options(aim="weights", damping=damping)
    real = real_tokens(view.data)
    walk(view.network.module, weights.layers, view.data, look, options, real=real)
    return torch.cat([found[p.name] for p in weights.layers]).to(weights.device)[view.active]

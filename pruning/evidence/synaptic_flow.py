"""Synaptic flow: the gradient of R = 1' f_|.|(1), a network of absolute values fed with ones.

Every parameter of a float64 copy is replaced by its absolute value and every input by ones
(Tanaka et al. 2020, eq. 3 and algorithm 1); biases too, as in the paper's code. BatchNorm stays in
evaluation mode, with the absolute values of its factor and shift and a mean of zero, so that it
never takes flow away. ReLU lets all of the flow pass; other activations are applied as they are.
"""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.curvature.network import first_output
from pruning.errors import SecateurError
from pruning.evidence.view import View


def compute(view: View) -> Tensor:
    """The gradient dR / d|w| over the active weights, shape [A], float64; no data are used.

    Raises:
        SecateurError: `loss_non_finite` where the flow leaves the range of float64, `spec_conflict`
            for a network with inputs that are not floating-point numbers.
    """
    copy = view.copy()
    copy.check_reached()
    with torch.no_grad():
        for parameter in copy.module.parameters():
            parameter.abs_()
        for layer in copy.module.modules():
            if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
                layer.running_mean.zero_()
    inputs = []
    for name, tensor in view.data.inputs.items():
        if not tensor.is_floating_point():
            raise SecateurError(
                "spec_conflict",
                f"synflow feeds a network with ones; input {name} takes {tensor.dtype}.",
                where="spec.criterion",
                hint="Use another criterion for networks on tokens.",
            )
        device = copy.weights.device
        inputs.append(torch.ones(1, *tensor.shape[1:], dtype=torch.float64, device=device))
    with torch.enable_grad():
        wanted = [p.weight.requires_grad_() for p in copy.weights.layers]
        flow = first_output(copy.module(*inputs)).sum()
        parts = torch.autograd.grad(flow, wanted, allow_unused=True)
    pairs = zip(wanted, parts, strict=True)
    whole = torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs])
    if not bool(torch.isfinite(whole).all()):
        raise SecateurError(
            "loss_non_finite",
            "The synaptic flow of this network leaves the range of float64.",
            where="spec.criterion",
            hint="Use another criterion; products over very many layers overflow.",
        )
    return whole[view.active]

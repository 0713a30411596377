"""A Monte-Carlo estimate of the Gauss-Newton diagonal: its cost doesn't grow with the outputs.

h_q = 1/N sum_n 1/m sum_i (J_n' v_ni)_q^2 with E[v v'] = S_n S_n', so that its mean is the exact
diagonal (Dangel et al. 2020, eq. 20). For cross-entropy v = p - e_y is the gradient of the loss at
a label y drawn from the model's own softmax p; else v = S_n u with u standard normal, which for
mean squared error is the gradient at a target drawn from a Gaussian around the output.
"""

import torch
from torch import Tensor

from pruning.curvature.layer_gradients import factors
from pruning.curvature.losses import Loss
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.curvature.squared_gradients import mean_squares
from pruning.data.batches import ArrayData


def compute(
    network: Network,
    data: ArrayData,
    loss: Loss,
    active: Tensor,
    samples: int = 1,
    seed: int = 0,
) -> Diagonal:
    """The estimate over the `active` flat positions, batches summed in float64.

    Args:
        network: The module with its weights in scope.
        data: Samples; of the targets only which positions they leave out matters.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        samples: Draws a sample, m.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def columns(outputs: Tensor, target: Tensor | None) -> Tensor:
        return draw(loss, outputs, target, samples, generator) * samples**-0.5

    return Diagonal(mean_squares(network, data, active, columns))


def draw(
    loss: Loss, outputs: Tensor, target: Tensor | None, samples: int, generator: torch.Generator
) -> Tensor:
    """Derivatives of the loss in the outputs at outcomes that the model itself draws.

    Args:
        loss: The loss of one sample.
        outputs: Shape [n, ...].
        target: Which positions count, for the losses that leave some out.
        samples: Draws for each sample, m.
        generator: Where the draws come from, on the CPU whatever the device.

    Returns:
        Shape [m, n, ...], in the outputs' dtype.
    """
    if loss.name == "cross_entropy":
        p = outputs.softmax(-1)
        drawn = torch.multinomial(p.double().cpu(), samples, replacement=True, generator=generator)
        labels = torch.nn.functional.one_hot(drawn.T, outputs.shape[-1])
        return p - labels.to(p)
    s = factors(loss, outputs, target)
    normal = torch.randn(samples, len(s), s.shape[2], generator=generator, dtype=torch.float64)
    v = torch.einsum("ndc,mnc->mnd", s, normal.to(s))
    return v.reshape(-1, *outputs.shape)

"""Kronecker-factored curvature (KFAC): the Gauss-Newton block of each layer as B kron A.

Martens and Grosse 2015; for convolutions and other layers with positions Grosse and Martens 2016.
With x_nt the input of sample n at position t (a patch for convolutions) and b_nct the gradient of
column c of the output Hessian's square root in the layer's output there,
A = 1/N sum_n sum_t x_nt x_nt' and B = 1/N sum_n 1/T_n sum_t sum_c b_nct b_nct'. Of a sample's
positions only the T_n count at which some b_nct is not zero: padding is no data. No label enters.
Each group of a convolution is a block of its own; between blocks the curvature is taken as zero.
Exact for a layer whose b do not depend on x, as in a deep linear network with squared loss.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pruning.catalogue.curvature import FACTOR_LIMIT
from pruning.curvature import layer_gradients
from pruning.curvature.kronecker import Kronecker, KroneckerBlock
from pruning.curvature.losses import Loss
from pruning.curvature.network import Network
from pruning.curvature.sample_axes import sample_axes
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

Problem = tuple[str, Tensor, Tensor]
"""A layer's name, its inputs [n, g, d, T] and its output gradients [c, n, g, o, T]."""


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Kronecker:
    """The factored blocks over the `active` flat positions, in their eigenbasis, in float64.

    Raises:
        SecateurError: `operator_unsupported` for a weight that is tied, used more than once or in
            a way that is not understood; `curvature_too_large` for a factor above `FACTOR_LIMIT`.
    """
    bases = eigenbases(network, data, loss, active)
    scales = {
        name: torch.relu(spectra[0])[:, :, None] * torch.relu(spectra[1])[:, None, :]
        for name, (_, _, spectra) in bases.items()
    }
    return assemble(network, active, bases, scales)


Basis = tuple[Tensor, Tensor, tuple[Tensor, Tensor]]
"""Eigenvectors [g, o, o] of B, eigenvectors [g, d, d] of A, and the eigenvalues of both."""


def eigenbases(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> dict[str, Basis]:
    """The eigendecompositions of both factors of every layer with active weights."""
    inner: dict[str, Tensor] = {}
    outer: dict[str, Tensor] = {}
    for name, x, b in problems(network, data, loss, active):
        for side, size in ((inner, x.shape[2]), (outer, b.shape[3])):
            if name not in side:
                side[name] = x.new_zeros(x.shape[1], size, size, dtype=torch.float64)
        x, b = x.double(), b.double()
        used = positions(b)
        x = x * used[:, None, None, :]
        b = b * used.sum(1).rsqrt()[:, None, None, None]
        inner[name] += torch.einsum("ngit,ngjt->gij", x, x)
        outer[name] += torch.einsum("cngit,cngjt->gij", b, b)
    bases = {}
    for name in inner:
        low, right = torch.linalg.eigh(inner[name] / data.samples)
        high, left = torch.linalg.eigh(outer[name] / data.samples)
        bases[name] = (left, right, (high, low))
    return bases


def positions(gradients: Tensor) -> Tensor:
    """1 at the positions of a sample that are data for a layer, else 0; shape [n, T].

    Not padding, nor anything else that the loss does not depend on by this layer: the output
    gradients are zero there for every column. A sample without any other position keeps all.

    Args:
        gradients: Shape [c, n, g, o, T].
    """
    live = (gradients != 0).any(0).flatten(1, 2).any(1)
    return (live | ~live.any(1, keepdim=True)).to(gradients)


def assemble(
    network: Network, active: Tensor, bases: dict[str, Basis], scales: dict[str, Tensor]
) -> Kronecker:
    """Blocks with `scales` [g, o, d] by layer, cut to the active weights."""
    blocks = []
    start = 0
    for layer, size in zip(network.weights.layers, network.weights.sizes, strict=True):
        if layer.name in bases:
            left, right, _ = bases[layer.name]
            part = size // len(left)
            for group in range(len(left)):
                low = start + group * part
                index = ((active >= low) & (active < low + part)).nonzero()[:, 0]
                position = active[index] - low
                spread = scales[layer.name][group]
                if len(index):
                    blocks.append(
                        KroneckerBlock(left[group], right[group], spread, position, index)
                    )
        start += size
    return Kronecker(tuple(blocks), len(active))


def problems(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Iterator[Problem]:
    """Inputs and output gradients of every layer with active weights, batch by batch.

    Raises:
        SecateurError: As `compute`.
    """
    weights = network.weights
    wanted = weights.holding(active)
    names = [p.name for p in wanted]
    axes = sample_axes(network, data, names)
    for layer in wanted:
        uses = len(axes.get(layer.name, []))
        if uses != 1 or layer.aliases:
            shared = ", ".join((layer.layer, *layer.aliases))
            reason = (
                f"the weight of {shared} is used more than once"
                if uses > 1 or layer.aliases
                else f"how the weight of {layer.layer} is used is not understood"
            )
            raise SecateurError(
                "operator_unsupported",
                f"Kronecker factors need a weight of one layer, and {reason}.",
                where=layer.layer,
                hint="Exclude the layer with scope.exclude, or use inverse: full, block_fisher or "
                "low_rank.",
            )
        longest = max(layer.weight.shape[0] // layer.groups, layer.weight[0].numel())
        if longest > FACTOR_LIMIT:
            raise SecateurError(
                "curvature_too_large",
                f"A Kronecker factor of {layer.layer} is {longest} x {longest}; the limit is "
                f"{FACTOR_LIMIT}.",
                where=layer.layer,
                hint="Exclude the layer with scope.exclude, or use inverse: block_fisher.",
            )
    columns = layer_gradients.factor_columns(loss)
    size, _ = layer_gradients.room(network, data, columns)
    done = 0
    for inputs, target in data.batches(size, device=weights.device):
        count = len(inputs[0])
        outputs, found = layer_gradients.forward(network, inputs, names)
        directions = columns(outputs.detach(), target)
        # All columns of a sample together: A counts once.
        gradients = layer_gradients.backward(outputs, found, directions)
        for use, columns_of_use in zip(found, gradients, strict=True):
            problem = layer_gradients.problem(use, columns_of_use, axes[use.name][0], count)
            every = slice(None)
            yield use.name, problem.unfolded(every), torch.stack(problem.folded(every))
        done += count
        network.progress(done, data.samples)

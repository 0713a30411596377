"""Exact products of the Hessian of the mean loss with vectors, reverse over reverse.

The gradient of g(w).v in w is H v (Pearlmutter 1994). All vectors share the forward pass and the
gradient's own graph, so that each of them adds one backward pass through the two, about the time of
four forward passes, and no more memory than the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from pruning.curvature.derivatives import graph
from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network, Parameters
from pruning.curvature.per_sample import ACTIVATION_BYTES
from pruning.data.batches import ArrayData

SAMPLES = 1_024
"""Samples a pass, at most."""

KEPT = 3
"""How often what one forward pass saves is held while the gradient is differentiated."""


@dataclass(frozen=True)
class _Batch:
    """A batch's weights, as leaves of a graph, and the sum of its samples' losses."""

    weights: Parameters
    loss: Tensor

    def gradient(self, *, again: bool) -> list[Tensor]:
        """The derivative in each weight, zero where the loss does not depend on it.

        Args:
            again: Whether it is to be differentiated itself.
        """
        leaves = list(self.weights.values())
        if not self.loss.requires_grad:
            return [torch.zeros_like(w) for w in leaves]
        return list(
            torch.autograd.grad(self.loss, leaves, create_graph=again, materialize_grads=True)
        )


def gradient(network: Network, data: ArrayData, loss: Loss) -> Tensor:
    """Gradient of the mean loss in the weights in scope, shape [W], batches summed in float64."""
    total = torch.zeros(len(network.weights), dtype=torch.float64, device=network.weights.device)
    for batch in _batches(network, data, loss, copies=1):
        total += _flat(batch.gradient(again=False))
    return total / data.samples


def hessian_products(network: Network, data: ArrayData, loss: Loss, vectors: Tensor) -> Tensor:
    """H v for each row v of `vectors`; see `gradient_and_products`."""
    return gradient_and_products(network, data, loss, vectors)[1]


def gradient_and_products(
    network: Network, data: ArrayData, loss: Loss, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient g of the mean loss, and H v for each row v of `vectors`, in one pass.

    Args:
        network: The module with its weights in scope, W of them.
        data: Samples and targets.
        loss: The loss of one sample.
        vectors: Directions over all W weights in scope, shape [k, W].

    Returns:
        g [W] and H v [k, W], float64; each pass in the network's dtype, samples summed in float64.

    Raises:
        NotImplementedError: The network has a derivative written by hand, which need not have one.
    """
    slope = vectors.new_zeros(len(network.weights), dtype=torch.float64)
    total = torch.zeros_like(vectors, dtype=torch.float64)
    for number, batch in enumerate(_batches(network, data, loss, copies=KEPT)):
        if number == 0:
            _check_differentiable(batch.loss)
        first = batch.gradient(again=True)
        slope += _flat([part.detach() for part in first])
        for row, vector in zip(total, vectors, strict=True):
            row += _flat(_product(network, batch, first, vector))
    return slope / data.samples, total / data.samples


def operator(network: Network, data: ArrayData, loss: Loss) -> Callable[[Tensor], Tensor]:
    """The product v -> H v at the present weights, [W] to [W], for vectors that come in turn.

    Where all samples fit into one pass its graph is kept, and serves every product.
    """
    if data.samples > pass_size(network, data, KEPT):
        return lambda vector: hessian_products(network, data, loss, vector[None])[0]
    (batch,) = _batches(network, data, loss, copies=KEPT)
    _check_differentiable(batch.loss)
    first = batch.gradient(again=True)
    return lambda vector: _flat(_product(network, batch, first, vector)) / data.samples


def _product(network: Network, batch: _Batch, first: list[Tensor], vector: Tensor) -> list[Tensor]:
    """The gradient of first.v, where `first` is a batch's gradient with its graph."""
    leaves, along = list(batch.weights.values()), network.named(vector).values()
    # A part of the gradient that is the same for all weights has no graph.
    pairs = [(g, v) for g, v in zip(first, along, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(w) for w in leaves]
    with torch.enable_grad():
        slope = torch.stack([(g * v).sum() for g, v in pairs]).sum()
    return list(torch.autograd.grad(slope, leaves, retain_graph=True, materialize_grads=True))


def _check_differentiable(loss: Tensor) -> None:
    """Refuses functions whose derivative is the user's own.

    It may have been computed out of autograd's sight, and then its own derivative would be zero
    without a word, even where the function is marked as differentiable once.
    """
    for node in graph(loss):
        if isinstance(node, BackwardCFunction):
            raise NotImplementedError(
                f"{node.name()} is a derivative written by hand, which may have none itself"
            )


def _batches(network: Network, data: ArrayData, loss: Loss, copies: int) -> Iterator[_Batch]:
    """Batches with the graphs of their losses.

    Args:
        network: The module with its weights in scope.
        data: Samples and targets.
        loss: The loss of one sample.
        copies: How often what a forward pass saves is held at a time.
    """
    for inputs, target in data.batches(
        pass_size(network, data, copies), device=network.weights.device
    ):
        weights = {k: v.requires_grad_() for k, v in network.parameters().items()}
        with torch.enable_grad():
            outputs = network.outputs(weights, inputs)
            yield _Batch(weights, loss.samples(outputs, required(target, loss)).sum())


def pass_size(network: Network, data: ArrayData, copies: int = 1) -> int:
    """Samples a pass, such that `copies` of what it saves stay within the bounds of memory."""
    inputs, _ = next(iter(data.batches(1, device=network.weights.device)))
    saved = max(1, copies * network.saved_bytes(inputs))
    return max(1, min(SAMPLES, ACTIVATION_BYTES // saved))


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten().double() for part in parts])

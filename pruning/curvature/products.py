"""Exact products of the Hessian of the mean loss with vectors, forward over reverse."""

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network, Parameters
from pruning.curvature.per_sample import ACTIVATION_BYTES, CHUNK_BYTES
from pruning.data.batches import ArrayData

SAMPLES = 256
"""Samples a pass, at most."""


def hessian_products(network: Network, data: ArrayData, loss: Loss, vectors: Tensor) -> Tensor:
    """H v for each row v of `vectors`: the derivative of the gradient along v (Pearlmutter 1994).

    Args:
        network: The module with its weights in scope, W of them.
        data: Samples and targets.
        loss: The loss of one sample.
        vectors: Directions over all W weights in scope, shape [k, W].

    Returns:
        Shape [k, W], float64; each pass in the network's dtype, samples summed in float64.
    """
    parameters = network.parameters()
    total = torch.zeros_like(vectors, dtype=torch.float64)
    samples = max(1, min(SAMPLES, ACTIVATION_BYTES // _saved(network, data)))

    def product(inputs: tuple[Tensor, ...], target: Tensor, vector: Parameters) -> Parameters:
        def gradient(values: Parameters) -> Parameters:
            def batch_loss(p: Parameters) -> Tensor:
                return loss.samples(network.outputs(p, inputs), target).sum()

            return grad(batch_loss)(values)

        result: Parameters = jvp(gradient, (parameters,), (vector,))[1]
        return result

    width = vectors_at_once(network, data, min(samples, data.samples))
    batched = vmap(product, in_dims=(None, None, 0), randomness="error")
    with torch.no_grad():
        for inputs, target in data.batches(samples, device=network.weights.device):
            for start in range(0, len(vectors), width):
                some = vectors[start : start + width]
                rows = batched(inputs, required(target, loss), _named(network, some))
                parts = [part.flatten(1).double() for part in rows.values()]
                total[start : start + width] += torch.cat(parts, 1)
    return total / data.samples


def vectors_at_once(network: Network, data: ArrayData, samples: int) -> int:
    """Directions for which one pass over `samples` samples stays within the bounds of memory."""
    item = max(p.weight.element_size() for p in network.weights.layers)
    activations = ACTIVATION_BYTES // (samples * _saved(network, data))
    return max(1, min(CHUNK_BYTES // (item * len(network.weights)), activations))


def _saved(network: Network, data: ArrayData) -> int:
    inputs, _ = next(iter(data.batches(1, device=network.weights.device)))
    return max(1, network.saved_bytes(inputs))


def _named(network: Network, rows: Tensor) -> Parameters:
    layers, sizes = network.weights.layers, network.weights.sizes
    return {
        p.name: part.reshape(len(rows), *p.weight.shape).to(p.weight.dtype)
        for p, part in zip(layers, rows.split(sizes, dim=1), strict=True)
    }

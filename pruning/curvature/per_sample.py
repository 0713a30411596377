"""Per-sample derivatives with respect to the weights in scope, in chunks of bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import Network, Parameters
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

CHUNK_BYTES = 64 * 2**20
"""Bytes of per-sample derivatives held at a time; at least one row is always held."""

ACTIVATION_BYTES = 256 * 2**20
"""Bytes that the backward passes of the rows held at a time may need for activations."""

OUTPUT_LIMIT = 8_192
"""Outputs a sample beyond which the square root of their Hessian (0.5 GiB) is not formed."""


def gradients(
    network: Network, data: ArrayData, loss: Loss, active: Tensor | None = None
) -> Iterator[Tensor]:
    """Gradients of the loss of single samples.

    Args:
        network: The module with its weights in scope, W of them.
        data: Samples and targets.
        loss: The loss of one sample.
        active: Flat positions to keep, shape [A]; all W without it.

    Yields:
        Chunks [n, A] in the network's dtype, in the order of the samples.
    """
    parameters = network.parameters()

    def sample_loss(values: Parameters, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return loss.samples(network.output(values, inputs)[None], target[None])[0]

    per_sample = vmap(grad(sample_loss), in_dims=(None, 0, 0), randomness="error")
    with torch.no_grad():
        done = 0
        for inputs, target in data.batches(_rows(network, data), device=network.weights.device):
            yield _flat(per_sample(parameters, inputs, required(target, loss)), active)
            done += len(inputs[0])
            network.progress(done, data.samples)


def output_factors(
    network: Network, data: ArrayData, loss: Loss, active: Tensor | None = None
) -> Iterator[Tensor]:
    """Rows of S_n' J_n, whose Gram matrix is the Gauss-Newton matrix: G = 1/N sum_rows r r'.

    J_n is the Jacobian of sample n's outputs, S_n S_n' the Hessian of its loss in the outputs.

    Args:
        network: The module with its weights in scope, W of them.
        data: Samples and targets; of the targets only which positions they leave out matters.
        loss: The loss of one sample.
        active: Flat positions to keep, shape [A]; all W without it.

    Yields:
        Chunks [rows, A] in the network's dtype. One sample gives as many rows as S has columns,
        all within one chunk or, where even they do not fit, over several.
    """
    parameters = network.parameters()
    columns = _columns(network, data, loss)
    most = _rows(network, data)
    width = max(1, min(columns, most))

    def sample_rows(inputs: tuple[Tensor, ...], target: Tensor | None, start: int) -> Parameters:
        result = vjp(lambda p: network.output(p, inputs), parameters)
        output, pull_back = result[0], result[1]
        cotangents = loss.factor(output, target).T[start : start + width]
        return vmap(lambda v: pull_back(v.reshape(output.shape))[0])(cotangents)

    samples = max(1, most // columns)
    with torch.no_grad():
        done = 0
        for inputs, target in data.batches(samples, device=network.weights.device):
            dims = (0, None if target is None else 0, None)
            for start in range(0, columns, width):
                rows = vmap(sample_rows, in_dims=dims, randomness="error")(inputs, target, start)
                yield _flat({k: v.flatten(0, 1) for k, v in rows.items()}, active)
            done += len(inputs[0])
            network.progress(done, data.samples)


def _rows(network: Network, data: ArrayData) -> int:
    """Rows a chunk: few weights on large activations are bounded by these, not by the rows."""
    weights = network.weights
    item = max(p.weight.element_size() for p in weights.layers)
    inputs, _ = next(iter(data.batches(1, device=weights.device)))
    activations = ACTIVATION_BYTES // max(1, network.saved_bytes(inputs))
    return max(1, min(CHUNK_BYTES // (item * len(weights)), activations))


def check_outputs(count: int) -> None:
    """Refuse to go back from each of so many outputs a sample.

    Raises:
        SecateurError: `curvature_too_large` above `OUTPUT_LIMIT`.
    """
    if count > OUTPUT_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"One sample has {count} outputs, each a backward pass of its own; exact Gauss-Newton "
            f"curvature is formed up to {OUTPUT_LIMIT}.",
            where="spec.criterion",
            hint="Use obd with curvature: ggn_mc or empirical_fisher, obs with inverse: low_rank "
            "or block_fisher, or shorter sequences.",
        )


def _columns(network: Network, data: ArrayData, loss: Loss) -> int:
    inputs, target = next(iter(data.batches(1, device=network.weights.device)))
    output = network.outputs(network.parameters(), inputs)[0]
    check_outputs(output.numel())
    return loss.factor(output, None if target is None else target[0]).shape[1]


def _flat(parts: dict[str, Tensor], active: Tensor | None) -> Tensor:
    rows = torch.cat([part.flatten(1) for part in parts.values()], dim=1)
    return rows if active is None or len(active) == rows.shape[1] else rows[:, active]

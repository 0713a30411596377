"""Inputs and output gradients of every layer, sample by sample, from ordinary batched passes.

One forward pass of a batch records each use of the weights in scope (`pruning.curvature.layers`);
one backward pass for each column v of derivatives of the loss in the outputs gives the gradients of
the uses' outputs. No gradient of a weight is formed by autograd (as in BackPACK, Dangel et al.
2020).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from pruning.curvature import per_sample
from pruning.curvature.layers import Capture, Problem
from pruning.curvature.layers.call import Use
from pruning.curvature.losses import Loss
from pruning.curvature.network import Network, Parameters
from pruning.data.batches import ArrayData

Columns = Callable[[Tensor, Tensor | None], Tensor]
"""From outputs [n, ...] and targets to derivatives of the loss in the outputs [c, n, ...]."""

BATCH = 128
"""Samples a forward pass, where activations leave room for as many."""


def forward(
    network: Network,
    inputs: tuple[Tensor, ...],
    names: list[str],
    parameters: Parameters | None = None,
) -> tuple[Tensor, list[Use]]:
    """The outputs of a batch, and the uses of the named weights that a layer kind describes.

    Args:
        network: The module with its weights in scope.
        inputs: A batch.
        names: The weights to watch.
        parameters: Values of the weights in scope; the present ones without it.
    """
    parameters = network.parameters() if parameters is None else parameters
    with torch.enable_grad(), Capture({name: parameters[name] for name in names}) as seen:
        outputs = network.outputs(parameters, inputs, once=True)
    return outputs, [use for use in seen.uses if use.name not in seen.unknown]


def backward(outputs: Tensor, uses: list[Use], directions: Tensor) -> list[list[Tensor]]:
    """For each use its c output gradients, zero where the outputs don't depend on it.

    Args:
        outputs: Of `forward`.
        uses: Of `forward`.
        directions: The columns v, shape [c, *shape of the outputs].
    """
    edges = [use.edge for use in uses]
    columns: list[list[Tensor]] = [[] for _ in uses]
    for v in directions:
        found = torch.autograd.grad(outputs, edges, v, retain_graph=True, allow_unused=True)
        for column, use, gradient in zip(columns, uses, found, strict=True):
            column.append(v.new_zeros(use.shape) if gradient is None else gradient)
    return columns


def problem(use: Use, gradients: list[Tensor], axis: int, count: int) -> Problem:
    """One use as a matrix problem.

    Args:
        use: Of `forward`.
        gradients: Its part of what `backward` gives.
        axis: The axis of its samples.
        count: How many samples there are.
    """
    bound = use.bound
    inputs = _samples_first(bound.inputs, axis, count)
    turned = [_samples_first(gradient, axis, count) for gradient in gradients]
    return Problem(inputs, turned, bound.unfold, bound.fold, bound.copies)


def _samples_first(values: Tensor, axis: int, count: int) -> Tensor:
    """Values with the axis of the samples moved to the front."""
    values = values.movedim(axis, 0)
    # Where samples and positions share an axis, it goes sample by sample.
    return values if len(values) == count else values.unflatten(0, (count, -1))


def room(network: Network, data: ArrayData, columns: Columns) -> tuple[int, int]:
    """Samples a forward pass, and rows (samples times columns) whose gradients may be held."""
    inputs, target = next(iter(data.batches(1, device=network.weights.device)))
    with torch.no_grad():
        directions = columns(network.outputs(network.parameters(), inputs), target)
    saved = max(1, network.saved_bytes(inputs))
    held = max(1, per_sample.ACTIVATION_BYTES // saved)
    # The directions themselves are many where outputs are, as in language models.
    own = per_sample.ACTIVATION_BYTES // directions.nbytes
    return max(1, min(BATCH, held, own)), held


def factor_columns(loss: Loss) -> Columns:
    """The columns of S_n, all of them: shape [c, n, ...].

    They raise `curvature_too_large` for samples of more than `OUTPUT_LIMIT` outputs.
    """
    return partial(_factor_columns, loss)


def _factor_columns(loss: Loss, outputs: Tensor, target: Tensor | None) -> Tensor:
    per_sample.check_outputs(outputs[0].numel())
    dims = (0, None if target is None else 0)
    factors: Tensor = vmap(loss.factor, in_dims=dims)(outputs, target)
    return factors.permute(2, 0, 1).reshape(-1, *outputs.shape)

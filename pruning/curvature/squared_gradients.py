"""Sums over samples of squared derivatives, all weights at once: what every diagonal is made of.

sum_n sum_c (J_n' v_cn)^2 comes from the inputs and output gradients of the layers
(`pruning.curvature.layer_gradients`). Weights that are used in a way no layer kind describes go
through torch.func's per-sample gradients instead: exact for every module, and slower.
"""

import torch
from torch import Tensor
from torch.func import vjp, vmap

from pruning.curvature import layer_gradients, per_sample
from pruning.curvature.layer_gradients import Columns
from pruning.curvature.layers import add_squares
from pruning.curvature.network import Network
from pruning.curvature.sample_axes import sample_axes
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights


def mean_squares(network: Network, data: ArrayData, active: Tensor, columns: Columns) -> Tensor:
    """1/N sum_n sum_c (J_n' v_cn)^2 over the `active` flat positions, shape [A], in float64.

    Sums over a batch are in the network's dtype, over batches in float64. Names of weights that
    took the general path are added to `network.general`.

    Args:
        network: The module with its weights in scope.
        data: Samples, and targets where `columns` needs them.
        active: Flat positions, ascending, shape [A].
        columns: The derivatives v.
    """
    weights = network.weights
    total = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    parts = dict(zip([p.name for p in weights.layers], total.split(weights.sizes), strict=True))
    wanted = [layer.name for layer in weights.holding(active)]
    axes = sample_axes(network, data, wanted)
    rest = [name for name in wanted if name not in axes]
    if axes:
        _by_layer(network, data, columns, axes, parts, report=not rest)
    if rest:
        network.general.update(rest)
        _general(network, data, columns, rest, parts)
    return (total if len(active) == len(total) else total[active]).div_(data.samples)


def _by_layer(
    network: Network,
    data: ArrayData,
    columns: Columns,
    axes: dict[str, list[int]],
    parts: dict[str, Tensor],
    *,
    report: bool,
) -> None:
    size, held = layer_gradients.room(network, data, columns)
    sums = {}
    for layer in network.weights.layers:
        if layer.name in axes:
            outs, groups = len(layer.weight), layer.groups
            shape = groups, outs // groups, layer.weight[0].numel()
            sums[layer.name] = layer.weight.new_zeros(shape)
    done, pending = 0, 0
    for inputs, target in data.batches(size, device=network.weights.device):
        count = len(inputs[0])
        outputs, uses = layer_gradients.forward(network, inputs, list(axes))
        directions = columns(outputs.detach(), target)
        for some in directions.split(max(1, held // count)):
            gradients = layer_gradients.backward(outputs, uses, some)
            for name, places in axes.items():
                own = [i for i, use in enumerate(uses) if use.name == name]
                problems = [
                    layer_gradients.problem(uses[i], gradients[i], axis, count)
                    for i, axis in zip(own, places, strict=True)
                ]
                add_squares(sums[name], problems)
        done, pending = done + count, pending + count
        if pending >= layer_gradients.BATCH or done == data.samples:
            for name, values in sums.items():
                parts[name] += values.flatten()
                values.zero_()
            pending = 0
        if report:
            network.progress(done, data.samples)


def _general(
    network: Network,
    data: ArrayData,
    columns: Columns,
    names: list[str],
    parts: dict[str, Tensor],
) -> None:
    layers = [p for p in network.weights.layers if p.name in names]
    part = Network(network.module, FlatWeights(layers), network.progress, cut_off=network.cut_off)
    parameters = part.parameters()

    def rows(inputs: tuple[Tensor, ...], directions: Tensor) -> dict[str, Tensor]:
        pull_back = vjp(lambda p: part.output(p, inputs), parameters)[1]
        total = {k: torch.zeros_like(v) for k, v in parameters.items()}
        for direction in directions:
            for k, v in pull_back(direction)[0].items():
                total[k] = total[k] + v.square()
        return total

    done = 0
    with torch.no_grad():
        size = layer_gradients.room(part, data, columns)[0]
        size = max(1, min(size, per_sample.CHUNK_BYTES // (8 * len(part.weights))))
        for inputs, target in data.batches(size, device=network.weights.device):
            outputs = part.outputs(parameters, inputs)
            directions = columns(outputs, target)
            batched = vmap(rows, in_dims=(0, 1), randomness="error")(inputs, directions)
            for name, summed in batched.items():
                parts[name] += summed.double().sum(0).flatten()
            done += len(inputs[0])
            network.progress(done, data.samples)

"""Sums over samples of squared derivatives, all weights at once: what every diagonal is made of.

One forward pass of a batch, and one backward pass for each column v of derivatives of the loss in
the outputs, give sum_n (J_n' v_n)^2 from the inputs and output gradients of the layers
(`pruning.curvature.layers`), as in BackPACK (Dangel et al. 2020). No gradient of a weight is formed
by autograd. Weights that are used in a way no layer kind describes go through torch.func's
per-sample gradients instead: exact for every module, and slower.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vjp, vmap

from pruning.curvature import per_sample
from pruning.curvature.layers import Capture, squares, sum_of_squares
from pruning.curvature.layers.call import Use
from pruning.curvature.losses import Loss
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights

Columns = Callable[[Tensor, Tensor | None], Tensor]
"""From outputs [n, ...] and targets to derivatives of the loss in the outputs [c, n, ...]."""

BATCH = 128
"""Samples a forward pass, where activations leave room for as many."""


def mean_squares(network: Network, data: ArrayData, active: Tensor, columns: Columns) -> Tensor:
    """1/N sum_n sum_c (J_n' v_cn)^2 over the `active` flat positions, shape [A], in float64.

    Sums over a batch are in the network's dtype, over batches in float64. Names of weights that
    took the general path are added to `network.general`.

    Args:
        network: The module with its weights in scope.
        data: Samples, and targets where `columns` needs them.
        active: Flat positions, shape [A].
        columns: The derivatives v.
    """
    weights = network.weights
    total = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
    parts = dict(zip([p.name for p in weights.layers], total.split(weights.sizes), strict=True))
    groups = weights.group[active].unique().tolist()
    wanted = [weights.layers[g].name for g in groups]
    axes = _proven(network, data, wanted)
    rest = [name for name in wanted if name not in axes]
    if axes:
        _by_layer(network, data, columns, axes, parts, report=not rest)
    if rest:
        network.general.update(rest)
        _general(network, data, columns, rest, parts)
    return total[active] / data.samples


def _by_layer(
    network: Network,
    data: ArrayData,
    columns: Columns,
    axes: dict[str, list[int]],
    parts: dict[str, Tensor],
    *,
    report: bool,
) -> None:
    done = 0
    size, held = _room(network, data, columns)
    for inputs, target in data.batches(size, device=network.weights.device):
        count = len(inputs[0])
        outputs, uses = _forward(network, inputs, list(axes))
        directions = columns(outputs.detach(), target)
        width = max(1, held // count)
        for start in range(0, len(directions), width):
            gradients = _backward(outputs, uses, directions[start : start + width])
            for name, places in axes.items():
                own = [i for i, use in enumerate(uses) if use.name == name]
                seen = [
                    (
                        uses[i],
                        _samples_first(uses[i].bound.inputs, axis, count, 0),
                        _samples_first(gradients[i], axis, count, 1),
                    )
                    for i, axis in zip(own, places, strict=True)
                ]
                for part in _slices(seen, count):
                    problems = [
                        (use.bound.unfold(x[part]), use.bound.fold(g[:, part]))
                        for use, x, g in seen
                    ]
                    parts[name] += sum_of_squares(problems).flatten().double()
        done += count
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
    part = Network(network.module, FlatWeights(layers), network.progress)
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
        size = _room(part, data, columns)[0]
        size = max(1, min(size, per_sample.CHUNK_BYTES // (8 * len(part.weights))))
        for inputs, target in data.batches(size, device=network.weights.device):
            outputs = part.outputs(parameters, inputs)
            directions = columns(outputs, target)
            batched = vmap(rows, in_dims=(0, 1), randomness="error")(inputs, directions)
            for name, summed in batched.items():
                parts[name] += summed.double().sum(0).flatten()
            done += len(inputs[0])
            network.progress(done, data.samples)


def _forward(
    network: Network, inputs: tuple[Tensor, ...], names: list[str]
) -> tuple[Tensor, list[Use]]:
    parameters = network.parameters()
    with torch.enable_grad(), Capture({name: parameters[name] for name in names}) as seen:
        outputs = network.outputs(parameters, inputs)
    return outputs, [use for use in seen.uses if use.name not in seen.unknown]


def _backward(outputs: Tensor, uses: list[Use], directions: Tensor) -> list[Tensor]:
    """Gradients [c, *shape of the output] of each use, zero where outputs don't depend on it."""
    edges = [use.edge for use in uses]
    columns: list[list[Tensor]] = [[] for _ in uses]
    for v in directions:
        found = torch.autograd.grad(outputs, edges, v, retain_graph=True, allow_unused=True)
        for column, use, gradient in zip(columns, uses, found, strict=True):
            column.append(v.new_zeros(use.shape) if gradient is None else gradient)
    return [torch.stack(c) if len(c) > 1 else c[0][None] for c in columns]


def _samples_first(values: Tensor, axis: int, count: int, to: int) -> Tensor:
    """Values with the axis of the samples, counted after the first `to`, moved to the front."""
    values = values.movedim(axis + to, to)
    # Where samples and positions share an axis, it goes sample by sample.
    return values if values.shape[to] == count else values.unflatten(to, (count, -1))


def _slices(seen: list[tuple[Use, Tensor, Tensor]], count: int) -> list[slice]:
    """Samples to unfold at a time: patches are read at once or not from a cache."""
    largest = max(use.bound.copies * x[0].numel() for use, x, _ in seen)
    step = max(1, squares.CACHED // largest) if largest else count
    return [slice(start, start + step) for start in range(0, count, step)]


def _room(network: Network, data: ArrayData, columns: Columns) -> tuple[int, int]:
    """Samples a forward pass, and rows (samples times columns) whose gradients may be held."""
    inputs, target = next(iter(data.batches(1, device=network.weights.device)))
    with torch.no_grad():
        directions = columns(network.outputs(network.parameters(), inputs), target)
    saved = max(1, network.saved_bytes(inputs))
    held = max(1, per_sample.ACTIVATION_BYTES // saved)
    # The directions themselves are many where outputs are, as in language models.
    own = per_sample.ACTIVATION_BYTES // (directions.numel() * directions.element_size())
    return max(1, min(BATCH, held, own)), held


def _proven(network: Network, data: ArrayData, names: list[str]) -> dict[str, list[int]]:
    """The weights whose uses are understood, each with the axis of the samples in every use.

    Two samples go through the network; the derivatives of each one's outputs, put together from the
    uses, must be those of autograd, and leave no trace at the other sample. So a weight used where
    it can't be seen, or positions that can't be told from samples, do not pass.
    """
    first, _ = next(iter(data.batches(2, device=network.weights.device)))
    two = first if len(first[0]) == 2 else tuple(torch.cat([x, x]) for x in first)
    _, single = _forward(network, tuple(x[:1] for x in two), names)
    outputs, uses = _forward(network, two, names)
    axes = _axes(single, uses)
    names = [n for n in names if axes.get(n)]
    if not names or not outputs.requires_grad:
        return {}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    directions = torch.stack([noise, noise])
    directions[0, 1], directions[1, 0] = 0.0, 0.0
    found = _backward(outputs, uses, directions)
    parameters = {k: v.requires_grad_(k in names) for k, v in network.parameters().items()}
    with torch.enable_grad():
        plain = network.outputs(parameters, two)
    wrt = [parameters[n] for n in names]
    truth = [
        torch.autograd.grad(plain, wrt, v, retain_graph=True, allow_unused=True) for v in directions
    ]
    proven = {}
    for number, name in enumerate(names):
        own = [(u, g) for u, g in zip(uses, found, strict=True) if u.name == name]
        pairs = zip(own, axes[name], strict=True)
        problems = [
            (
                u.bound.unfold(_samples_first(u.bound.inputs, axis, 2, 0)),
                u.bound.fold(_samples_first(g, axis, 2, 1)),
            )
            for (u, g), axis in pairs
        ]
        rows = squares.per_sample(problems)
        rows = rows.flatten(1)  # sample 0 of columns 0 and 1, then sample 1 of both
        expected = torch.zeros_like(rows)
        for column in range(2):
            gradient = truth[column][number]
            if gradient is not None:
                expected[3 * column] = gradient.flatten()
        limit = 1e3 * torch.finfo(rows.dtype).eps * float(expected.abs().max())
        if bool(((rows - expected).abs() <= limit).all()):
            proven[name] = axes[name]
    return proven


def _axes(single: list[Use], double: list[Use]) -> dict[str, list[int]]:
    """For each weight the axis that doubles with the samples, use by use; none where unclear."""
    axes: dict[str, list[int]] = {}
    if [use.name for use in single] != [use.name for use in double]:
        return axes
    unclear = set()
    for one, two in zip(single, double, strict=True):
        shapes = one.bound.inputs.shape, two.bound.inputs.shape
        changed = [i for i, (a, b) in enumerate(zip(*shapes, strict=True)) if a != b]
        if len(changed) == 1 and _fits(two, changed[0], shapes[0][changed[0]]):
            axes.setdefault(two.name, []).append(changed[0])
        else:
            unclear.add(two.name)
    return {name: places for name, places in axes.items() if name not in unclear}


def _fits(use: Use, axis: int, of_one: int) -> bool:
    """Whether samples may lie along `axis`, where one sample takes `of_one` places."""
    if use.bound.inputs.shape[axis] != 2 * of_one:
        return False
    if use.bound.movable:
        return axis < use.bound.inputs.ndim - 1
    return axis == 0 and of_one == 1


def factors(loss: Loss, outputs: Tensor, target: Tensor | None) -> Tensor:
    """S_n of every sample of a batch, shape [n, numel(z), columns]."""
    dims = (0, None if target is None else 0)
    factor: Tensor = vmap(loss.factor, in_dims=dims)(outputs, target)
    return factor

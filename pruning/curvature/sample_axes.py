"""Which weights' uses are understood: proven on two samples before anything is built on them."""

import torch
from torch import Tensor

from pruning.curvature.layer_gradients import backward, forward, problem
from pruning.curvature.layers import squares
from pruning.curvature.layers.call import Use
from pruning.curvature.network import Network, Parameters
from pruning.data.batches import ArrayData

TRIES = 8
"""How often a weight without any effect on the outputs is tried again."""


def sample_axes(network: Network, data: ArrayData, names: list[str]) -> dict[str, list[int]]:
    """The weights whose uses are understood, each with the axis of the samples in every use.

    Two samples go through the network; the derivatives of each one's outputs, put together from the
    uses, must be those of autograd, and leave no trace at the other sample. So a weight used where
    it can't be seen, or positions that can't be told from samples, do not pass.

    Derivatives that are all zero prove nothing, as where a unit is dead at both samples. Such a
    weight is tried again on other samples and with noise added to all weights, on which the way
    they are used does not depend; it does not pass before something was seen.
    """
    device = network.weights.device
    first, _ = next(iter(data.batches(2, device=device)))
    found, silent = _prove(network, first, names, network.parameters())
    for attempt in range(TRIES):
        if not silent:
            break
        start = (attempt + 1) * data.samples // (TRIES + 1)
        some, _ = next(iter(data.select(slice(start, start + 2)).batches(2, device=device)))
        # Every other time the weights stay as they are: noise may saturate what was alive.
        values = network.parameters() if attempt % 2 else _noisy(network, attempt)
        more, silent = _prove(network, some, silent, values)
        found |= more
    return {name: found[name] for name in names if name in found}


def _noisy(network: Network, seed: int) -> Parameters:
    """Weights with noise of their own size, or of what fan-in would give them, and more by seed."""
    generator = torch.Generator().manual_seed(seed)
    # Of all layers: one out of scope may be what cuts the others off.
    every = {k: v.detach() for k, v in network.module.named_parameters() if v.ndim > 1}
    noisy = {}
    for name, weight in (every | network.parameters()).items():
        if not weight.is_floating_point():
            continue
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        size = max(float(weight.square().mean().sqrt()), weight[0].numel() ** -0.5)
        noisy[name] = weight + 2.0**seed * size * noise
    return noisy


def _prove(
    network: Network, first: tuple[Tensor, ...], names: list[str], values: Parameters
) -> tuple[dict[str, list[int]], list[str]]:
    """The weights that pass, and those whose derivatives were all zero."""
    two = first if len(first[0]) == 2 else tuple(torch.cat([x, x]) for x in first)
    _, single = forward(network, tuple(x[:1] for x in two), names, values)
    outputs, uses = forward(network, two, names, values)
    axes = _axes(single, uses)
    names = [n for n in names if axes.get(n)]
    if not names or not outputs.requires_grad:
        return {}, []
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
    directions = torch.stack([noise, noise])
    directions[0, 1], directions[1, 0] = 0.0, 0.0
    found = backward(outputs, uses, directions)
    parameters = {k: v.detach().requires_grad_(k in names) for k, v in values.items()}
    with torch.enable_grad():
        plain = network.outputs(parameters, two, once=True)
    wrt = [parameters[n] for n in names]
    truth = [
        torch.autograd.grad(plain, wrt, v, retain_graph=True, allow_unused=True) for v in directions
    ]
    proven, silent = {}, []
    for number, name in enumerate(names):
        own = [(u, g) for u, g in zip(uses, found, strict=True) if u.name == name]
        problems = [problem(u, g, axis, 2) for (u, g), axis in zip(own, axes[name], strict=True)]
        both = slice(0, 2)
        rows = squares.per_sample([(p.unfolded(both), p.folded(both)) for p in problems])
        rows = rows.transpose(1, 2).flatten(2)  # of a sample its own column, and the other's
        expected = torch.zeros_like(rows)
        for column in range(2):
            gradient = truth[column][number]
            if gradient is not None:
                expected[column, column] = gradient.flatten()
        limit = 1e3 * torch.finfo(rows.dtype).eps * float(expected.abs().max())
        connected = any(column[number] is not None for column in truth)
        if bool(((rows - expected).abs() <= limit).all()):
            if connected and not bool(expected.any()):
                silent.append(name)
            else:
                proven[name] = axes[name]
    return proven, silent


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

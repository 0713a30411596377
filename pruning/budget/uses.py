"""How often a sample uses each weight, counted in a pass."""

import torch
from torch import nn

from pruning.curvature.layers.matrix import part_of
from pruning.data.batches import ArrayData
from pruning.layers import Prunable
from pruning.layerwise.passes import Call, Pass
from pruning.layerwise.residence import Residence
from pruning.layerwise.walk import Options, plain_attention
from pruning.layerwise.watch import Watch

SAMPLES = 16
"""Samples that are run where the batch is free."""


def uses_of(
    module: nn.Module, weights: list[Prunable], data: ArrayData, batch: int | None
) -> list[float]:
    """Uses of an entry of each weight: 1 for a Linear on vectors, H * W for a Conv2d.

    Weights of calls that are no matrix products count as unused.

    Args:
        module: In evaluation mode.
        weights: Whose uses are counted.
        data: Its first samples are run.
        batch: How many, where the network takes no other number.
    """
    watch = Watch({p.name: p.weight for p in weights})
    found = dict.fromkeys(watch.weights, 0.0)
    inputs, _ = next(iter(data.batches(batch or min(SAMPLES, Options.batch))))
    inputs = tuple(x.to(next(module.parameters()).device) for x in inputs)

    def see(call: Call) -> bool:
        try:
            uses = watch.uses(call)
        except ValueError:
            return False
        for use in uses:
            args, kwargs = run.arguments(call)
            part = part_of(call.func, args, kwargs, use.index)
            columns = part.unfold(torch.empty_like(part.inputs, device="meta")).shape
            rows = len(watch.weights[use.name])
            share = 1.0 if use.rows is None else (use.rows[1] - use.rows[0]) / rows
            found[use.name] += share * columns[0] * columns[3]
        return False

    with plain_attention(), Pass(module, inputs, Residence(module)) as run:
        run.advance(see)
    return [found[p.name] / len(inputs[0]) for p in weights]

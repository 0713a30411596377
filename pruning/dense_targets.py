"""The dense network's own outputs as targets, for the loss that needs no labels."""

from dataclasses import replace

import torch
from torch import nn

from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData, Data

BATCH = 512


def with_dense_targets(module: nn.Module, data: Data) -> Data:
    """The data with the module's present outputs in place of every target.

    Args:
        module: The dense network, in evaluation mode.
        data: All roles; parts that are one object stay one.
    """
    made: dict[int, ArrayData] = {}
    for part in (data.calibration, data.training, data.evaluation):
        if id(part) not in made:
            made[id(part)] = _labelled(module, part)
    return replace(
        data,
        calibration=made[id(data.calibration)],
        training=made[id(data.training)],
        evaluation=made[id(data.evaluation)],
    )


@torch.no_grad()
def _labelled(module: nn.Module, data: ArrayData) -> ArrayData:
    device = next(module.parameters()).device
    batches = ArrayData(data.inputs).batches(BATCH, device=device)
    outputs = [first_output(module(*inputs)).cpu() for inputs, _ in batches]
    return ArrayData(data.inputs, torch.cat(outputs))

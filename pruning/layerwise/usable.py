"""Which weights can be solved layer by layer, found by watching a few samples go through."""

from torch import nn

from pruning.data.batches import ArrayData
from pruning.layers import Prunable
from pruning.layerwise.order import find_order
from pruning.layerwise.residence import Residence
from pruning.layerwise.walk import plain_attention
from pruning.report.scope import OutOfScope


def usable(
    module: nn.Module, weights: list[Prunable], data: ArrayData, batch: int
) -> tuple[list[Prunable], list[OutOfScope]]:
    """The weights that calls apply as matrices and as nothing else.

    A decoder that is also read as a table of embeddings is none of them, nor is a layer that is
    never called, or one whose weight is normalised before its use.

    Args:
        module: In evaluation mode.
        weights: In scope.
        data: Its first `batch` samples are run.
        batch: How many.

    Returns:
        Those that can be solved, and the others with the reason.

    Raises:
        SecateurError: `operator_unsupported` where none is left.
    """
    (inputs, _) = next(iter(data.batches(batch)))
    tensors = {p.name: p.weight for p in weights}
    with plain_attention():
        refused = find_order(module, tensors, inputs, Residence(module)).refused
    left = [p for p in weights if p.name not in refused]
    if not left:
        raise next(iter(refused.values()))
    return left, [
        OutOfScope(
            name=p.label,
            kind=p.kind,
            parameters=p.weight.numel(),
            by="method",
            reason=refused[p.name].message,
        )
        for p in weights
        if p.name in refused
    ]

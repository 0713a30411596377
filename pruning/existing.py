"""Zeros that an upload comes with: which of them stay, and what is said of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pruning.layers import FlatWeights
from pruning.patterns.groups import groups_of
from pruning.patterns.shape import layer_pattern
from pruning.spec import Spec


@dataclass(frozen=True)
class Existing:
    """The zeros of the weights in scope before anything was removed; -0 counts as zero.

    Args:
        found: How many there are in each layer.
        held: True for those that stay zero whatever happens, shape [W].
        gone: Those among them that count as removed from the start, shape [W]: with single weights
            all, with blocks those of whole blocks. Others are zeros in groups that stand, and with
            n:m in groups that have lost nothing yet; they are the first of their group to go.
        beside: Matrices out of scope that have zeros, each with a mask of its other entries, in
            its own shape: recovery leaves these zeros too. One that is zero as a whole is not among
            them, since its training has yet to begin.
    """

    found: list[int]
    held: Tensor
    gone: Tensor
    beside: tuple[tuple[nn.Parameter, Tensor], ...] = ()

    @cached_property
    def active(self) -> Tensor:
        """Flat positions of the weights that may go, ascending, shape [A]."""
        return (~self.gone).nonzero()[:, 0]

    @cached_property
    def removed(self) -> int:
        """Weights that count as removed from the start."""
        return int(self.gone.sum())


def existing_zeros(
    weights: FlatWeights, spec: Spec, parameters: Iterable[nn.Parameter] = ()
) -> Existing:
    """The zeros of the dense weights, as `scope.existing_zeros` has them.

    Args:
        weights: Weights in scope, at their dense values.
        spec: Spec of the job: its scope, and its pattern, which divides the layers in scope.
        parameters: All parameters of the network.
    """
    zero = torch.cat([(p.weight.detach() == 0).flatten() for p in weights.layers])
    found = [int(part.sum()) for part in weights.split(zero)]
    nothing = torch.zeros_like(zero)
    if spec.scope.existing_zeros == "free":
        return Existing(found, nothing, nothing)
    beside = _beside(weights, parameters)
    if not any(found):
        return Existing(found, nothing, nothing, beside)
    pattern = layer_pattern(spec.pattern)
    if pattern.kind == "unstructured":
        return Existing(found, zero, zero, beside)
    gone = nothing.clone()
    if pattern.kind == "block":
        everything = torch.arange(len(zero), device=zero.device)
        groups = groups_of(weights.layers, everything, pattern)
        assert groups is not None
        gone[groups[zero[groups].all(1)].flatten()] = True
    return Existing(found, zero, gone, beside)


def _beside(
    weights: FlatWeights, parameters: Iterable[nn.Parameter]
) -> tuple[tuple[nn.Parameter, Tensor], ...]:
    """Matrices and tables of embeddings out of scope with some zeros, and where they have none."""
    inside = {id(p.weight) for p in weights.layers}
    found = []
    for parameter in parameters:
        if id(parameter) in inside or parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        kept = parameter.detach() != 0
        if 0 < int(kept.sum()) < kept.numel():
            found.append((parameter, kept))
    return tuple(found)

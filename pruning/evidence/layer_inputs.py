"""What the layers in scope are given, batch by batch, with the places that are only padding.

Padding is where an input called `attention_mask` is zero; without one, for causal_lm, what stands
behind the last label that counts. A prompt, whose labels are ignored but followed by others, is
data: it is context.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning.curvature.losses import IGNORED, Loss
from pruning.data.batches import ArrayData
from pruning.layerwise.padding import Layout, layouts, real_tokens, tell

Hear = Callable[[int, nn.Module, Tensor], None]
"""Takes a weight's number, the layer, and its input with all padding set to zero."""

Call = tuple[nn.Module, int]
"""A layer, and which of its calls in one pass."""

BATCH = 64
"""Samples a pass."""


def listen(
    module: nn.Module,
    layers: list[tuple[int, nn.Module]],
    data: ArrayData,
    loss: Loss | None,
    hear: Hear,
    device: torch.device,
) -> set[nn.Module]:
    """Run all samples through the module, and tell every input of the layers.

    Args:
        module: In evaluation mode.
        layers: With the numbers of their weights; see `pruning.evidence.view.layers_of`.
        data: Samples.
        loss: Says what its labels leave out.
        hear: Called for each call of a layer.
        device: Where the module lies.

    Returns:
        The layers that were called.
    """
    real = counted(data, loss)
    if real is not None:
        real = None if bool(real.all()) else real.to(device)
    seen: set[nn.Module] = set()
    known: dict[Call, Layout | None] = {}
    start = 0
    for inputs, _ in data.batches(BATCH, device=device):
        mask = None if real is None else real[start : start + len(inputs[0])]
        start += len(inputs[0])
        if mask is not None and not known:
            known = _layouts(module, layers, inputs, (len(mask), mask.shape[1]))
        _run(module, layers, inputs, partial(_hear, hear, seen, known, mask))
    return seen


def _hear(
    hear: Hear,
    seen: set[nn.Module],
    known: dict[Call, Layout | None],
    real: Tensor | None,
    number: int,
    call: Call,
    x: Tensor,
) -> None:
    layer = call[0]
    seen.add(layer)
    hear(number, layer, _kept(layer, x, known.get(call), real))


def _kept(layer: nn.Module, x: Tensor, layout: Layout | None, real: Tensor | None) -> Tensor:
    """The input with padding set to zero."""
    if real is None or layout is None:
        return x
    axes = _axes(layer, x)
    kept = layout.mask(real, tuple(x.shape[a] for a in axes))
    for axis in sorted(set(range(x.ndim)) - set(axes)):
        kept = kept.unsqueeze(axis)
    return torch.where(kept, x, torch.zeros_like(x))


def counted(data: ArrayData, loss: Loss | None) -> Tensor | None:
    """Which tokens of the data are no padding, [N, T]; None where nothing says so."""
    real = real_tokens(data)
    if real is None and loss is not None and loss.name == "causal_lm":
        labelled = real_tokens(data, ignored=IGNORED)
        if labelled is not None:
            real = labelled.flip(1).cumsum(1).flip(1) > 0
    return real


def _run(
    module: nn.Module,
    layers: list[tuple[int, nn.Module]],
    inputs: tuple[Tensor, ...],
    look: Callable[[int, Call, Tensor], None],
) -> None:
    calls: dict[nn.Module, int] = defaultdict(int)

    def hook(number: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hear(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = given[0] if given else named["input"]
            look(number, (layer, calls[layer]), x.detach())
            calls[layer] += 1

        return hear

    handles = [
        layer.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in layers
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()


def _axes(layer: nn.Module, x: Tensor) -> tuple[int, ...]:
    """The axes of an input that are its places: all but that of features or channels."""
    features = x.ndim - 1 - len(getattr(layer, "kernel_size", ()))
    return tuple(a for a in range(x.ndim) if a != features)


def _layouts(
    module: nn.Module,
    layers: list[tuple[int, nn.Module]],
    inputs: tuple[Tensor, ...],
    size: tuple[int, int],
) -> dict[Call, Layout | None]:
    """Where samples and tokens lie in each call's input, None where there are no tokens."""
    found: dict[Call, Layout | None] = {}
    doubtful: dict[Call, tuple[list[Layout], Tensor]] = {}

    def look(number: int, call: Call, x: Tensor) -> None:
        axes = _axes(call[0], x)
        # A convolution has its samples first, and its channels next.
        convolved = hasattr(call[0], "kernel_size") and axes[0] == 0
        candidates = layouts(tuple(x.shape[a] for a in axes), size, ordered=convolved)
        found[call] = candidates[0] if candidates else None
        if len(candidates) > 1:
            doubtful[call] = candidates, x

    def compare(number: int, call: Call, x: Tensor) -> None:
        if call in doubtful:
            candidates, first = doubtful[call]
            found[call] = tell(candidates, first, x, size, _axes(call[0], x))

    _run(module, layers, inputs, look)
    if doubtful:
        _run(module, layers, tuple(x.roll(1, 0) for x in inputs), compare)
    return found

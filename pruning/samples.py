"""A module as the loop wants it: any number of samples in, one output with the samples first.

Exported networks are often fixed to one batch size, put their steps before their samples (scores of
CTC, states of recurrent layers), or give labels before scores. All of that concerns how they are
called and nothing in them, so only `forward` is replaced while they are pruned.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError


class Place(NamedTuple):
    """Which output is taken, and the axis of it along which the samples lie."""

    output: int
    axis: int


@contextmanager
def by_samples(module: nn.Module) -> Iterator[None]:
    """Gives the module's own `forward` back at the end; see `adapt`."""
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)


def adapt(module: nn.Module, data: ArrayData, batch: int | None) -> Place:
    """Let the module take any number of samples and give its first real-valued output.

    Nothing is changed where it does so already.

    Args:
        module: In evaluation mode.
        data: A few of its samples are run.
        batch: The only batch size that the module runs at; None for any.

    Returns:
        What of the module's own results the new ones are.

    Raises:
        SecateurError: `target_invalid` where no output has an axis of samples.
    """
    module.__dict__.pop("forward", None)
    sizes = (batch,) if batch else tuple(n for n in (2, 3) if n <= data.samples) or (1,)
    found = [_outputs(module, data, size) for size in sizes]
    real = [n for n, output in enumerate(found[0]) if output.is_floating_point()]
    for index in real:
        shapes = [tuple(outputs[index].shape) for outputs in found]
        axes = [a for a in range(len(shapes[0])) if tuple(s[a] for s in shapes) == sizes]
        if axes:
            break
    else:
        raise SecateurError(
            "target_invalid",
            "No real-valued output of the model has an axis along which the samples lie: shapes "
            f"{[list(o.shape) for o in found[0]]} for {sizes[0]} samples.",
            where="outputs",
            hint="Export the model with an output that holds one result for each sample.",
        )
    place = Place(index, axes[0])
    if batch is not None or place != (0, 0):
        module.__dict__["forward"] = _Forward(module.forward, batch, place)
    return place


class _Forward:
    def __init__(self, forward: Callable[..., Any], batch: int | None, place: Place) -> None:
        self.forward, self.batch, self.place = forward, batch, place

    def __call__(self, *inputs: Tensor) -> Tensor:
        count, size = len(inputs[0]), self.batch
        if size is None or count == size:
            return self._chosen(inputs)
        parts = []
        for start in range(0, count, size):
            chunk = tuple(_filled(x[start : start + size], size) for x in inputs)
            parts.append(self._chosen(chunk))
        return torch.cat(parts)[:count]

    def _chosen(self, inputs: tuple[Tensor, ...]) -> Tensor:
        output = _listed(self.forward(*inputs))[self.place.output]
        return output if self.place.axis == 0 else output.movedim(self.place.axis, 0)


def _filled(part: Tensor, size: int) -> Tensor:
    """A last, smaller batch filled up with its last sample."""
    missing = size - len(part)
    return part if missing == 0 else torch.cat([part, *[part[-1:]] * missing])


@torch.no_grad()
def _outputs(module: nn.Module, data: ArrayData, size: int) -> list[Tensor]:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    few = (x[:size].to(device) for x in data.inputs.values())
    return _listed(module(*(_filled(x, size) for x in few)))


def _listed(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)

"""A module as the loop wants it: any number of samples in, one output with the samples first.

Exported networks are often fixed to one batch size, put their steps before their samples (scores of
CTC, states of recurrent layers), or give labels before scores; others return a dict, or take their
inputs by name. All of that concerns how they are called and nothing in them, so only the call is
replaced while they are pruned: around the module's own `forward` and its hooks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning.calling import Calling
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.outputs import named_tensors


class Place(NamedTuple):
    """Which output is taken, and the axis of it along which the samples lie.

    `name` is the output's, and `others` those of further tensors, as `named_tensors` has them.
    """

    output: int
    axis: int
    name: str = ""
    others: tuple[str, ...] = ()


@contextmanager
def by_samples(module: nn.Module) -> Iterator[None]:
    """Gives the module's own call back at the end; see `adapt`."""
    try:
        yield
    finally:
        _restore(module)


def adapt(
    module: nn.Module, data: ArrayData, batch: int | None, calling: Calling = Calling()
) -> Place:
    """Let the module take any number of samples and give its first real-valued output.

    Nothing is changed where it does so already.

    Args:
        module: In evaluation mode.
        data: A few of its samples are run.
        batch: The only batch size that the module runs at; None for any.
        calling: How it takes its inputs.

    Returns:
        What of the module's own results the new ones are.

    Raises:
        SecateurError: `target_invalid` where no output has an axis of samples.
    """
    _restore(module)
    sizes = (batch,) if batch else tuple(n for n in (2, 3) if n <= data.samples) or (1,)
    with torch.no_grad():
        results = [calling.of(module, first_samples(module, data, size)) for size in sizes]
    found = [named_tensors(result) for result in results]
    real = [n for n, (_, output) in enumerate(found[0]) if output.is_floating_point()]
    for index in real:
        if any(len(outputs) <= index for outputs in found):
            continue
        shapes = [tuple(outputs[index][1].shape) for outputs in found]
        axes = [a for a in range(len(shapes[0])) if tuple(s[a : a + 1] for s in shapes)
                == tuple((size,) for size in sizes)]  # fmt: skip
        if axes:
            break
    else:
        raise _without_samples(results[0], sizes[0])
    names = [name for name, _ in found[0]]
    place = Place(index, axes[0], names[index], (*names[:index], *names[index + 1 :]))
    plain = isinstance(results[0], Tensor) or (
        isinstance(results[0], tuple | list) and isinstance(results[0][0], Tensor)
    )
    if batch is not None or not (calling.plain and plain) or place[:2] != (0, 0):
        _replace(module, _Call(batch, place, calling))
    return place


def _without_samples(result: Any, size: int) -> SecateurError:
    found = [f"{name} {output.dtype} {list(output.shape)}".strip().replace("torch.", "")
             for name, output in named_tensors(result)]  # fmt: skip
    seen = ", ".join(found[:8]) if found else f"{type(result).__name__} without a tensor"
    return SecateurError(
        "target_invalid",
        "No real-valued output of the model has an axis along which the samples lie. For "
        f"{size} sample{'' if size == 1 else 's'} it returned: {seen}.",
        where="outputs",
        hint="Use a model with a real-valued output that holds one result for each sample.",
    )


class _Call:
    def __init__(self, batch: int | None, place: Place, calling: Calling) -> None:
        self.batch, self.place, self.calling = batch, place, calling

    def run(self, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Tensor:
        count, size = len(inputs[0]), self.batch
        if size is None or count == size:
            return self._chosen(call, inputs)
        parts = []
        for start in range(0, count, size):
            chunk = tuple(_filled(x[start : start + size], size) for x in inputs)
            parts.append(self._chosen(call, chunk))
        return torch.cat(parts)[:count]

    def _chosen(self, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Tensor:
        output = named_tensors(self.calling.of(call, inputs))[self.place.output][1]
        return output if self.place.axis == 0 else output.movedim(self.place.axis, 0)


def _replace(module: nn.Module, call: _Call) -> None:
    """A class of its own for this one module: calls are looked up there, hooks run inside."""
    kind = type(module)

    def __call__(self: nn.Module, *inputs: Tensor) -> Tensor:  # noqa: N807
        return call.run(partial(kind.__call__, self), inputs)

    own = {"__call__": __call__, "__module__": kind.__module__, _OWN: kind}
    object.__setattr__(module, "__class__", type(kind.__name__, (kind,), own))


_OWN = "_secateur_class"
"""Where the replaced class of a module remembers the module's own."""


def _restore(module: nn.Module) -> None:
    own = vars(type(module)).get(_OWN)
    if own is not None:
        object.__setattr__(module, "__class__", own)


def _filled(part: Tensor, size: int) -> Tensor:
    """A last, smaller batch filled up with its last sample."""
    missing = size - len(part)
    return part if missing == 0 else torch.cat([part, *[part[-1:]] * missing])


def first_samples(module: nn.Module, data: ArrayData, size: int) -> tuple[Tensor, ...]:
    """A batch of the first samples, on the module's device; the last one again if they are few.

    Args:
        module: Whose device it is.
        data: The samples.
        size: How many.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return tuple(_filled(x[:size].to(device), size) for x in data.inputs.values())

"""A module as the loop wants it: any number of samples in, one output with the samples first.

Exported networks are often fixed to one batch size, put their steps before their samples (recurrent
layers, scores of CTC), take one value for all samples, or give labels before scores; others return
a dict, or take their inputs by name. All of that concerns how they are called and nothing in them,
so only the call is replaced while they are pruned: around the module's own `forward` and its hooks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning.calling import Axes, Calling, axes_of
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.influence import apart, close, orders
from pruning.outputs import named_tensors

DECLARE = (
    "Say which axis of an input holds the samples, with inputs: {{{name}: {{samples: 1}}}} in the "
    "spec; data have them first in any case."
)


OF_ONE = -1
"""In place of an axis: the network takes one sample, and its result has no axis for it."""


class Place(NamedTuple):
    """Which output is taken, and the axis of it along which the samples lie, or `OF_ONE`.

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
    module: nn.Module,
    data: ArrayData,
    batch: int | None,
    calling: Calling = Calling(),
    *,
    mixed: Callable[[str], None] | None = None,
) -> Place:
    """Let the module take any number of samples, first in every input, and give its first real one.

    Nothing is changed where it does so already. A few samples are run in several batches
    (`influence.orders`): that shows where the output holds them, and whether the result of one
    depends on the others.

    Args:
        module: In evaluation mode.
        data: A few of its samples are run; they lie along the first axis of every array.
        batch: The only batch size that the module runs at; None for any.
        calling: How it takes its inputs.
        mixed: Told, in place of an error, that samples influence each other.

    Returns:
        What of the module's own results the new ones are.

    Raises:
        SecateurError: `target_invalid` where no output has an axis of samples, `samples_mixed`
            where the result of a sample depends on the others.
    """
    _restore(module)
    few = orders(data.samples, batch)
    results = [_tried(module, data, order, calling) for order in few]
    found = [named_tensors(result) for result in results]
    index, places = _placed(found, tuple(map(len, few)))
    if index is None and batch == 1:
        index, places = _of_one(found[0])
    if index is None:
        raise _without_samples(results[0], len(few[0]), data)
    tries = [(outputs[index][1], order) for outputs, order in zip(found, few, strict=True)]
    axis = next((a for a in places if a == OF_ONE or apart(tries, a)), None)
    if axis is None:
        axis = places[0]
        again = named_tensors(_tried(module, data, few[-1], calling))[index][1]
        # A network that draws at random says nothing.
        if close(tries[-1][0], again):
            error = _mixed(data, calling.axes)
            if mixed is None:
                raise error
            mixed(error.message)
    names = [name for name, _ in found[0]]
    place = Place(index, axis, names[index], (*names[:index], *names[index + 1 :]))
    plain = isinstance(results[0], Tensor) or (
        isinstance(results[0], tuple | list) and isinstance(results[0][0], Tensor)
    )
    if batch is not None or not (calling.plain and plain) or place[:2] != (0, 0):
        _replace(module, _Call(batch, place, calling))
    return place


def fit_to(module: nn.Module, data: ArrayData, facts: ModelFacts) -> Place:
    """As `adapt`, for an uploaded model in a job whose beginning found its samples apart."""
    calling = Calling(axes=axes_of(facts))
    return adapt(module, data, facts.batch, calling, mixed=lambda message: None)


def filled(part: Tensor, size: int) -> Tensor:
    """A last, smaller batch filled up with its last sample."""
    missing = size - len(part)
    return part if missing == 0 else torch.cat([part, *[part[-1:]] * missing])


def _placed(
    found: list[list[tuple[str, Tensor]]], sizes: tuple[int, ...]
) -> tuple[int | None, list[int]]:
    """The first real-valued output with axes that have as many entries as samples were run."""
    for index, (_, first) in enumerate(found[0]):
        if not first.is_floating_point() or any(len(outputs) <= index for outputs in found):
            continue
        shapes = [tuple(outputs[index][1].shape) for outputs in found]
        axes = [
            axis
            for axis in range(len(shapes[0]))
            if all(s[axis : axis + 1] == (n,) for s, n in zip(shapes, sizes, strict=True))
        ]
        if axes:
            return index, axes
    return None, []


def _of_one(found: list[tuple[str, Tensor]]) -> tuple[int | None, list[int]]:
    """The first real-valued output of a network that takes one sample at a time."""
    real = (n for n, (_, output) in enumerate(found) if output.is_floating_point())
    index = next(real, None)
    return index, [] if index is None else [OF_ONE]


def _mixed(data: ArrayData, axes: Axes) -> SecateurError:
    name = next(iter(data.inputs))
    read = ", ".join(
        f"{key!r} along axis {axis}"
        for key, axis in zip(data.inputs, (*axes, *(0,) * len(data.inputs)), strict=False)
        if axis is not None
    )
    return SecateurError(
        "samples_mixed",
        "The network's result for one sample depends on the other samples in the batch, reading "
        f"{read}. The axis may hold something else, time steps say; or the network compares "
        "samples, or normalises over them.",
        where=name,
        hint=DECLARE.format(name=name) + " With the axis declared, the job runs and warns.",
    )


def _without_samples(result: Any, size: int, data: ArrayData) -> SecateurError:
    found = [f"{name} {output.dtype} {list(output.shape)}".strip().replace("torch.", "")
             for name, output in named_tensors(result)]  # fmt: skip
    seen = ", ".join(found[:8]) if found else f"{type(result).__name__} without a tensor"
    return SecateurError(
        "target_invalid",
        "No real-valued output of the model has an axis along which the samples lie. For "
        f"{size} sample{'' if size == 1 else 's'} it returned: {seen}.",
        where="outputs",
        hint="Use a model with a real-valued output that holds one result for each sample. "
        + DECLARE.format(name=next(iter(data.inputs))),
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
            chunk = tuple(filled(x[start : start + size], size) for x in inputs)
            parts.append(self._chosen(call, chunk))
        return torch.cat(parts)[:count]

    def _chosen(self, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Tensor:
        output = named_tensors(self.calling.of(call, inputs))[self.place.output][1]
        if self.place.axis == OF_ONE:
            return output.unsqueeze(0)
        return output if self.place.axis == 0 else output.movedim(self.place.axis, 0)


def _replace(module: nn.Module, call: _Call) -> None:
    """A class of its own for this one module: calls are looked up there, hooks run inside."""
    kind = type(module)

    def __call__(self: nn.Module, *inputs: Tensor) -> Tensor:  # noqa: N807
        return call.run(partial(kind.__call__, self), inputs)

    own = {"__call__": __call__, "__module__": kind.__module__, _OWN: kind}
    try:
        derived = type(kind.__name__, (kind,), own)
    except TypeError as error:
        raise SecateurError(
            "module_unsupported",
            f"The class {kind.__name__} can't be derived from: {error}",
            where="module",
            hint="Put the module into a plain nn.Module that takes the inputs in order and returns "
            "one tensor with the samples first.",
        ) from error
    object.__setattr__(module, "__class__", derived)


_OWN = "_secateur_class"
"""Where the replaced class of a module remembers the module's own."""


def _restore(module: nn.Module) -> None:
    own = vars(type(module)).get(_OWN)
    if own is not None:
        object.__setattr__(module, "__class__", own)


def first_samples(module: nn.Module, data: ArrayData, size: int) -> tuple[Tensor, ...]:
    """A batch of the first samples, on the module's device; the last one again if they are few.

    Args:
        module: Whose device it is.
        data: The samples.
        size: How many.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return tuple(filled(x[:size].to(device), size) for x in data.inputs.values())


@torch.no_grad()
def _tried(module: nn.Module, data: ArrayData, order: list[int], calling: Calling) -> Any:
    """What the module itself gives for the samples in that order."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return calling.of(module, tuple(x[order].to(device) for x in data.inputs.values()))

"""A module called with a few samples before anything else is done with it."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pruning.curvature.derivatives import reason
from pruning.curvature.whereabouts import named, watching
from pruning.data.batches import ArrayData
from pruning.dispatch import Watching
from pruning.errors import SecateurError
from pruning.memory_errors import out_of_memory
from pruning.outputs import named_tensors
from pruning.samples import Calling, first_samples

_SAME = 1e-4
"""Difference between two calls, over the largest output, that a GPU's sums in any order explain."""


def keywords(module: nn.Module, names: list[str]) -> tuple[str, ...]:
    """The inputs' names where the module has to be given them by name, else nothing.

    That is where all of them are parameters of `forward`, and they are not the first ones in its
    order.

    Args:
        module: Whose signature is looked at.
        names: The inputs, in the data's order.

    Raises:
        SecateurError: `data_names` where only some of the names are parameters, and not in their
            places.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    known = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if names == places[: len(names)]:
        return ()
    found = [name for name in names if name in known]
    if found == names:
        return tuple(names)
    if all(name in places and places.index(name) == names.index(name) for name in found):
        kinds = {p.kind for p in parameters}
        only_named = kinds == {inspect.Parameter.VAR_KEYWORD}
        return tuple(names) if only_named else ()
    raise SecateurError(
        "data_names",
        f"The inputs are called {', '.join(names)}; forward takes {', '.join(sorted(known))}.",
        where=next(name for name in names if name not in known),
        hint="Name every input after a parameter of forward, or none and keep their order.",
    )


def check_call(module: nn.Module, data: ArrayData, batch: int | None, calling: Calling) -> Calling:
    """Call the module with three samples twice, and with two.

    Args:
        module: In evaluation mode.
        data: Its first samples are taken.
        batch: The only batch size that it runs at; None for any.
        calling: By which names, and with the samples where.

    Returns:
        How it is to be called.

    Raises:
        SecateurError: `module_failed` with the layer and what it raised, `outputs_vary` where the
            same samples give other outputs.
    """
    size = batch or min(3, data.samples)
    before = first_samples(module, data, size)
    inputs = tuple(x.clone() for x in before)
    first = _floats(called(module, inputs, calling))
    # A module that works on its input in place would change the caller's samples.
    if any(not torch.equal(x, kept) for x, kept in zip(inputs, before, strict=True)):
        calling = replace(calling, copies=True)
    _check_equal(first, _floats(called(module, before, calling)))
    if batch is None and data.samples > 1:
        called(module, first_samples(module, data, min(2, data.samples - 1)), calling)
    return calling


def uses_of(
    module: nn.Module, others: nn.Module, inputs: tuple[Tensor, ...], calling: Calling
) -> str | None:
    """The name of a tensor of another module that a call of this one uses; None without one.

    Args:
        module: A copy.
        others: What it was copied from.
        inputs: A batch.
        calling: How it is called.
    """
    names = {
        t.untyped_storage().data_ptr(): name
        for name, t in (*others.named_parameters(), *others.named_buffers())
        if t.numel()
    }
    with _watched(names) as found:
        called(module, inputs, calling)
    return found[0] if found else None


@contextmanager
def _watched(names: dict[int, str]) -> Iterator[list[str]]:
    """Notes the tensors of certain storages that operations take."""
    found: list[str] = []

    class Watch(Watching):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor) and value.layout == torch.strided:
                    name = names.get(value.untyped_storage().data_ptr())
                    found.extend([] if name is None else [name])
            return func(*args, **(kwargs or {}))

    with Watch():
        yield found


@torch.no_grad()
def called(module: nn.Module, inputs: tuple[Tensor, ...], calling: Calling = Calling()) -> Any:
    """What the module returns for a batch.

    Args:
        module: In evaluation mode.
        inputs: A batch.
        calling: How it is called.

    Raises:
        SecateurError: `module_failed` with the layer and what it raised, or `out_of_memory`.
    """
    try:
        return calling.of(module, inputs)
    except SecateurError:
        raise
    except Exception as error:
        raise _failure(module, inputs, calling, error) from error


def _failure(
    module: nn.Module, inputs: tuple[Tensor, ...], calling: Calling, error: Exception
) -> SecateurError:
    if out_of_memory(error):
        return SecateurError("out_of_memory", f"One call of the module: {reason(error)}")
    with watching(module) as stack:
        try:
            calling.of(module, inputs)
        except Exception:
            place, words = named(stack)
        else:
            place, words = "", "the module"
    shapes = ", ".join(f"{_type(x)} {list(x.shape)}" for x in inputs)
    given = f" by the names {', '.join(calling.keywords)}" if calling.keywords else ""
    return SecateurError(
        "module_failed",
        f"Called with {shapes}{given} in evaluation mode, {words} raised "
        f"{type(error).__name__}: {reason(error)}",
        where=place or "module",
        hint="The module is called as module(*inputs) on batches of any size, or by name with a "
        "mapping of inputs by parameters of forward. Give inputs of the shapes and types that it "
        "takes (pixels and counts as floats, scaled as in training). "
        "Half types are computed in float32, so forward must not cast to them.",
    )


def _floats(result: Any) -> list[Tensor]:
    return [t for _, t in named_tensors(result) if t.is_floating_point()]


def _check_equal(first: list[Tensor], second: list[Tensor]) -> None:
    for a, b in zip(first, second, strict=False):
        if a.shape != b.shape:
            difference, largest = float("inf"), 1.0
        elif torch.allclose(a, b, rtol=0, atol=0, equal_nan=True):
            continue
        else:
            difference = float((a.double() - b.double()).abs().nan_to_num().max())
            largest = float(a.double().abs().nan_to_num().max())
        if difference <= _SAME * largest:
            continue
        raise SecateurError(
            "outputs_vary",
            "Called twice with the same samples in evaluation mode, the module's outputs differ "
            f"by up to {difference:.3g}, where the largest is {largest:.3g}.",
            where="module",
            hint="Let it draw random numbers in training mode alone (dropout(x, p, self.training)) "
            "and keep nothing from one call to the next.",
        )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

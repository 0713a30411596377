"""What of a caller's module, and of torch, is as it was afterwards."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

_TORCHS = frozenset((*vars(nn.Module()), "_flat_weights", "_flat_weight_refs"))
"""Attributes that torch's own modules keep, of recurrent layers a list of their parameters."""


@contextmanager
def whole_or_not_at_all(module: nn.Module) -> Iterator[None]:
    """A module that is pruned in place is as it was if that fails.

    Weights, buffers and modes of training come back after any exception, an interrupt too; that
    takes a copy of the module's tensors on the CPU.
    """
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    kept: list[tuple[Tensor, Tensor]] = [
        (t.data, t.detach().to("cpu", copy=True)) for t in tensors.values()
    ]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for part, own in buffers:
                part._buffers.update(own)
            for tensor, value in kept:
                tensor.copy_(value)
        for part, training in modes:
            part.training = training
        raise


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """Gradients of the parameters are put aside; which require them is as before at the end."""
    found = [(p, p.requires_grad, p.grad) for p in module.parameters()]
    for parameter, _, _ in found:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, required, gradient in found:
            parameter.requires_grad_(required)
            parameter.grad = gradient


@contextmanager
def without_traces(module: nn.Module) -> Iterator[None]:
    """What the module's own calls keep in its attributes is taken out of it at the end.

    A cache of activations would hold memory, and could be of a graph that is gone.
    """
    before = [(part, dict(vars(part)), _contents(part)) for part in module.modules()]
    try:
        yield
    finally:
        for part, own, contents in before:
            for name, value in list(vars(part).items()):
                if value is own.get(name) or not _of_a_call(name, value):
                    continue
                if name in own:
                    part.__dict__[name] = own[name]
                else:
                    del part.__dict__[name]
            for container, content in contents:
                _put_back(container, content)


def _contents(part: nn.Module) -> list[tuple[dict[Any, Any] | list[Any], Any]]:
    """Dicts and lists of one module, each with a copy of what it holds now."""
    return [
        (value, copy(value))
        for name, value in vars(part).items()
        if isinstance(value, dict | list) and name not in _TORCHS
    ]


def _put_back(container: dict[Any, Any] | list[Any], content: Any) -> None:
    """Gives a container what it held, where calls have put tensors into it."""
    held = {id(x) for x in tree_leaves(content)}
    if all(id(x) in held for x in tree_leaves(container) if isinstance(x, Tensor)):
        return
    container.clear()
    if isinstance(container, dict):
        container.update(content)
    else:
        container.extend(content)


class Buffers:
    """Those buffers that calls in evaluation mode change, such as counters.

    Args:
        module: As it came.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before = {name: (buffer, buffer.clone()) for name, buffer in module.named_buffers()}
        self.changed: list[str] = []

    def look(self) -> None:
        """After some calls: which buffers have changed, the values of the others are forgotten."""
        now = dict(self._module.named_buffers())
        self.changed = [
            name
            for name, (buffer, value) in self._before.items()
            if now.get(name) is not buffer or not same(buffer, value)
        ]
        self._before = {name: self._before[name] for name in self.changed}

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the changed ones the values that they came with."""
        for name, (buffer, value) in self._before.items():
            path, _, own = name.rpartition(".")
            self._module.get_submodule(path)._buffers[own] = buffer
            buffer.copy_(value)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN being one."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _of_a_call(name: str, value: Any) -> bool:
    return name not in _TORCHS and any(isinstance(x, Tensor) for x in tree_leaves(value))


@contextmanager
def plain_torch(module: nn.Module) -> Iterator[None]:
    """Torch as a job needs it, whatever the caller has switched on; all of it is switched back.

    Gradients are taken, automatic mixed precision and inference mode are off, new tensors lie on
    the CPU, compiled parts run uncompiled, and torch's random state is the caller's own afterwards.
    """
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices, key=str)))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in {"cpu", *(d.type for d in devices)}:
            stack.enter_context(_full_precision(kind))
        if "torch._dynamo" in sys.modules:
            stance: Any = torch.compiler.set_stance("force_eager")
            stack.enter_context(stance)
        yield


@contextmanager
def _full_precision(kind: str) -> Iterator[None]:
    """Without the caller's autocast on a kind of device, and without weights in its cache.

    Copies in half precision are kept until the outermost context ends, the caller's or one of ours:
    a forward with a context of its own would compute with the weights of before.
    """
    before, cached = torch.is_autocast_enabled(kind), torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_enabled(kind, False)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_enabled(kind, before)
        torch.set_autocast_cache_enabled(cached)

"""What of a caller's module, and of torch, is as it was afterwards."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
def plain_torch(module: nn.Module) -> Iterator[None]:
    """Torch as a job needs it, whatever the caller has switched on; all of it is switched back.

    Gradients are taken, automatic mixed precision and inference mode are off, compiled parts run
    uncompiled, and torch's random state is the caller's own afterwards.
    """
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=sorted(devices, key=str)))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", *(d.type for d in devices)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if "torch._dynamo" in sys.modules:
            stance: Any = torch.compiler.set_stance("force_eager")
            stack.enter_context(stance)
        yield

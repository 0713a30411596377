"""Which layer a forward pass is in, or failed in, so that a refusal can name it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def watching(module: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """The path and module of every layer whose forward is running, outermost first.

    A layer that raised stays on the list, so that it can be read afterwards.
    """
    stack: list[tuple[str, nn.Module]] = []
    hooks = []
    for name, part in module.named_modules():

        def enter(part: nn.Module, inputs: Any, name: str = name) -> None:
            stack.append((name, part))

        def leave(part: nn.Module, inputs: Any, output: Any) -> None:
            stack.pop()

        hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()


def raised_in(error: BaseException, module: nn.Module) -> tuple[str, nn.Module]:
    """The path and module of the innermost layer whose code an exception came through.

    Args:
        error: As caught in the module's forward pass, or further out.
        module: The whole one, whose path is empty.
    """
    paths = {id(part): name for name, part in module.named_modules()}
    found = "", module
    trace = error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            found = paths[id(owner)], owner
        trace = trace.tb_next
    return found


def named(stack: list[tuple[str, nn.Module]]) -> tuple[str, str]:
    """The innermost layer's path, and it with its type in words."""
    if not stack:
        return "", "the module"
    path, part = stack[-1]
    return path, f"layer {path} ({type(part).__name__})" if path else type(part).__name__

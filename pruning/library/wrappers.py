"""Wrappers around a network, which are taken off."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from pruning.errors import SecateurError
from pruning.report.schema import ReportWarning

_PLAIN = "_torchdynamo_orig_callable"
"""Where torch.compile keeps the function that it was given."""


def unwrapped(module: nn.Module) -> tuple[nn.Module, list[ReportWarning]]:
    """The network inside torch.compile, DataParallel and DistributedDataParallel.

    Args:
        module: As the caller gave it.

    Returns:
        The network, and what is to be said of it.

    Raises:
        SecateurError: `module_unsupported` where a wrapper has hooks of its own, which would be
            lost with it.
    """
    notes = []
    while (inner := _inside(module)) is not None:
        if module._forward_hooks or module._forward_pre_hooks:
            raise SecateurError(
                "module_unsupported",
                f"{_name(module)} around the module has forward hooks of its own, which are no "
                "part of the module inside.",
                where="module",
                hint="Register the hooks on the module itself, or remove them.",
            )
        message = (
            f"The module was given inside {_name(module)}. The {type(inner).__name__} in it was "
            "pruned, and that is what is returned; masks and layers have its names."
        )
        notes.append(ReportWarning(code="module_unwrapped", message=message, where="module"))
        module = inner
    return module, notes


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Methods that `module.forward = torch.compile(module.forward)` compiled are plain meanwhile.

    A compiled one holds the module that it was made for, whatever it is copied into.

    Args:
        module: Changed in place; copies that are made meanwhile stay uncompiled.
    """
    found = []
    for part in module.modules():
        compiled = vars(part).get("forward")
        plain = _plain(compiled)
        if plain is None or _compiled(part):
            continue
        found.append((part, compiled))
        own = getattr(plain, "__func__", None) is type(part).forward
        if own and plain.__self__ is part:
            del part.__dict__["forward"]
        else:
            part.__dict__["forward"] = plain
    try:
        yield
    finally:
        for part, compiled in found:
            part.__dict__["forward"] = compiled


def _plain(compiled: Any) -> Any:
    """What torch.compile was given; None for what it did not make."""
    plain: Any = getattr(compiled, _PLAIN, None)
    # Callables that are no functions, such as partials, it puts into a function of its own.
    home = getattr(plain, "__globals__", {}).get("__name__", "")
    return plain.__wrapped__ if home == "torch._dynamo.external_utils" else plain


def _inside(module: nn.Module) -> nn.Module | None:
    if _compiled(module):
        inner: Any = module._orig_mod
        return inner  # type: ignore[no-any-return]
    if isinstance(module, DataParallel | DistributedDataParallel):
        return module.module
    return None


def _compiled(module: nn.Module) -> bool:
    # Whoever has compiled a module has loaded this, which takes seconds.
    loaded = sys.modules.get("torch._dynamo.eval_frame")
    return loaded is not None and isinstance(module, loaded.OptimizedModule)


def _name(module: nn.Module) -> str:
    return "torch.compile" if _compiled(module) else type(module).__name__

"""Wrappers around a network, which are taken off."""

import sys
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from pruning.errors import SecateurError
from pruning.report.schema import ReportWarning


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

"""The network in what a caller hands over, and copies of it: for pruning and for export alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from pruning.calling import Calling
from pruning.curvature.derivatives import reason
from pruning.errors import SecateurError
from pruning.library.computed import check_computed
from pruning.library.kinds import check_kinds
from pruning.library.restored import plain_torch
from pruning.library.ties import storage_ties, tie
from pruning.library.trial import uses_of
from pruning.library.wrappers import uncompiled, unwrapped
from pruning.report.schema import ReportWarning


@dataclass(frozen=True)
class Plain:
    """A network that is known to hold plain tensors.

    Args:
        module: The caller's own, wrappers taken off.
        ties: Names of parameters that are the same numbers in memory, in groups.
        notes: What is to be said of it.
    """

    module: nn.Module
    ties: list[list[str]]
    notes: list[ReportWarning]

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Torch and the module as the work on them needs them; see `plain_torch`, `uncompiled`."""
        with plain_torch(self.module), uncompiled(self.module):
            yield

    def copied(self) -> nn.Module:
        """A copy, with the same ties.

        Raises:
            SecateurError: `weights_computed` or `module_unsupported` where it can't be copied.
        """
        copy = _copied(self.module)
        tie(copy, self.ties)
        return copy


def plain(module: Any) -> Plain:
    """What a caller hands over, without wrappers.

    Raises:
        SecateurError: `module_unsupported`, `no_prunable_layers`, `weights_overlap` or
            `weights_computed`.
    """
    notes: list[ReportWarning] = []
    if isinstance(module, nn.Module):
        module, notes = unwrapped(module)
    check_kinds(module)
    try:
        ties = storage_ties(module)
    except SecateurError:
        # Hooks that compute a weight may keep it in the memory of what it is computed from.
        check_computed(module)
        raise
    return Plain(module, ties, notes)


def check_copy(
    copy: nn.Module, original: nn.Module, inputs: tuple[Tensor, ...], calling: Calling = Calling()
) -> None:
    """Refuses a copy that computes with tensors of its original.

    That is where a `forward` or a hook is a function that holds the original.

    Args:
        copy: A copy, in evaluation mode.
        original: What it was copied from.
        inputs: A batch.
        calling: How it takes them.

    Raises:
        SecateurError: `module_unsupported`, or what the call raises.
    """
    used = uses_of(copy, original, inputs, calling)
    if used is not None:
        raise SecateurError(
            "module_unsupported",
            f"A copy of the module still computes with {used} of the original: its forward or a "
            "hook is a function that holds the original module.",
            where=used,
            hint="Let the function reach the module through its argument: "
            "module.forward = types.MethodType(function, module), or functools.partial with the "
            "module as an argument.",
        )


def check_copies(
    module: nn.Module, inputs: tuple[Tensor, ...], calling: Calling = Calling()
) -> None:
    """The same of copies that are made later, of a module that is itself pruned in place.

    Args:
        module: In evaluation mode.
        inputs: A batch.
        calling: How it takes them.
    """
    if _functions(module):
        check_copy(_copied(module), module, inputs, calling)


def _copied(module: nn.Module) -> nn.Module:
    try:
        return deepcopy(module)
    except Exception as error:
        check_computed(module)
        raise SecateurError(
            "module_unsupported",
            f"The module can't be copied: {type(error).__name__}: {reason(error)}",
            where="module",
            hint="Remove what can't be copied from it; pruning.prune also takes copy=False, and "
            "prunes it in place.",
        ) from error


def _functions(module: nn.Module) -> bool:
    """Whether calls of the module go through functions that may hold on to something."""
    held: list[Callable[..., Any]] = []
    for part in module.modules():
        held += [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        held += vars(part).values()
    return any(isinstance(one, FunctionType) for one in held)

"""From what a caller hands to `pruning.prune` to what the loop takes, and back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from pruning.calling import Calling
from pruning.curvature.derivatives import reason
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.library.arrays import Fitted, has_names, in_roles
from pruning.library.computed import check_computed
from pruning.library.half import HALF, InFloat32, in_float32
from pruning.library.kinds import check_in_place, check_kinds
from pruning.library.restored import plain_torch, whole_or_not_at_all, without_gradients
from pruning.library.ties import merged, storage_ties, tie
from pruning.library.trial import check_call, keywords, uses_of
from pruning.library.wrappers import uncompiled, unwrapped
from pruning.report.schema import ReportWarning


@dataclass
class Admitted:
    """A module and data that the loop can take.

    Args:
        module: The caller's own or a copy, in evaluation mode; float32 where it was of a half type,
            tied weights one parameter.
        data: In the types that the module computes in.
        calling: How the module takes its inputs.
        notes: What was changed or chosen, for the report.
        half: The module's tensors of half types.
    """

    module: nn.Module
    data: Data | ArrayData
    calling: Calling
    half: InFloat32
    notes: list[ReportWarning] = field(default_factory=list)


@contextmanager
def admitted(
    module: Any,
    data: Any,
    *,
    labelled: bool,
    batch: int | None,
    copy: bool,
    axes: Callable[[Mapping[str, Tensor]], tuple[int | None, ...]] = lambda inputs: (),
) -> Iterator[Admitted]:
    """A caller's module and data as the loop takes them.

    At the end the module has its own types, parameters and calls again. A module that is pruned in
    place is as it was if anything fails.

    Args:
        module: As the caller gave it.
        data: As `arrays.in_roles` takes it.
        labelled: Whether the objective needs labels.
        batch: The only batch size that the module runs at; None for any.
        copy: Whether to prune a copy.
        axes: Where the module wants the samples of these inputs; see `Calling`.

    Raises:
        SecateurError: `module_unsupported`, `no_prunable_layers`, `weights_computed` or
            `weights_overlap` for modules that can't be pruned; what `arrays.in_roles` and
            `Fitted.fit` raise for data; `data_names`, `module_failed` or `outputs_vary` where they
            do not go together.
    """
    given = in_roles(data, labelled=labelled)
    notes: list[ReportWarning] = []
    if isinstance(module, nn.Module):
        module, notes = unwrapped(module)
    check_kinds(module)
    check_computed(module)
    ties = storage_ties(module)
    notes += _tied(ties)
    original = module
    with ExitStack() as stack:
        stack.enter_context(plain_torch(module))
        stack.enter_context(uncompiled(module))
        if copy:
            module = _copied(module, ties)
        else:
            check_in_place(module)
            stack.enter_context(whole_or_not_at_all(module))
        stack.enter_context(without_gradients(module))
        stack.enter_context(merged(module, ties))
        half = stack.enter_context(in_float32(module))
        module.eval()
        notes += _computed(half)
        fitted = Fitted(_types(module))
        # Samples of a half type are computed in float32 as the weights are, and so no news.
        known = _widened(given) if half.types else given
        found = fitted.fit(known)
        notes += fitted.notes
        few = found.calibration if isinstance(found, Data) else found
        by_name = keywords(module, list(few.inputs)) if has_names(data) else ()
        calling = check_call(module, few, batch, Calling(by_name, axes=axes(few.inputs)))
        if by_name:
            notes.append(_by_name(by_name))
        check_faithful(module, original, few, batch, calling, copy=copy)
        yield Admitted(module, found, calling, half, notes)


def check_faithful(
    module: nn.Module,
    original: nn.Module,
    data: ArrayData,
    batch: int | None,
    calling: Calling,
    *,
    copy: bool,
) -> None:
    """Refuses a module whose copies compute with the weights of the original.

    That is where a `forward` or a hook is a function that holds the original. Also a module that
    is pruned in place is copied by some criteria and recoveries.

    Args:
        module: What is pruned.
        original: What the caller gave.
        data: Its first samples are taken.
        batch: The only batch size that it runs at; None for any.
        calling: How it is called.
        copy: Whether `module` is a copy.

    Raises:
        SecateurError: `module_unsupported`.
    """
    if copy:
        used = uses_of(module, original, data, batch, calling)
    elif _functions(module):
        used = uses_of(_copied(module, []), module, data, batch, calling)
    else:
        return
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


def _copied(module: nn.Module, ties: list[list[str]]) -> nn.Module:
    try:
        copied = deepcopy(module)
    except Exception as error:
        raise SecateurError(
            "module_unsupported",
            f"The module can't be copied: {type(error).__name__}: {reason(error)}",
            where="module",
            hint="Pass copy=False to prune it in place, or remove what can't be copied from it.",
        ) from error
    tie(copied, ties)
    return copied


def _functions(module: nn.Module) -> bool:
    """Whether calls of the module go through functions that may hold on to something."""
    for part in module.modules():
        hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        if any(isinstance(f, FunctionType) for f in (*hooks, *vars(part).values())):
            return True
    return False


def _types(module: nn.Module) -> list[torch.dtype]:
    tensors = list(module.parameters())
    return list(dict.fromkeys(t.dtype for t in tensors if t.is_floating_point()))


def _widened(data: Data | ArrayData) -> Data | ArrayData:
    if not isinstance(data, Data):
        return _wide(data)
    parts = (data.calibration, data.training, data.evaluation)
    made = {id(part): _wide(part) for part in parts}
    calibration, training, evaluation = (made[id(part)] for part in parts)
    return Data(calibration, training, evaluation, data.held_out)


def _wide(data: ArrayData) -> ArrayData:
    inputs = {k: x.float() if x.dtype in HALF else x for k, x in data.inputs.items()}
    return ArrayData(inputs, data.target)


def _tied(ties: list[list[str]]) -> list[ReportWarning]:
    if not ties:
        return []
    groups = "; ".join(" and ".join(names) for names in ties)
    message = (
        f"Parameters share their memory: {groups}. Each group is one weight with one mask, under "
        "its first name; the result shares its memory in the same way."
    )
    return [ReportWarning(code="weights_tied", message=message, where=ties[0][0])]


def _computed(half: InFloat32) -> list[ReportWarning]:
    if not half.types:
        return []
    message = (
        f"{len(half.own)} of the module's tensors are {' or '.join(half.types)}. The job computed "
        "in float32 throughout, since differences drown in the rounding of half types, and rounded "
        "the weights to their own type at the end."
    )
    return [ReportWarning(code="computed_in_float32", message=message, where="module")]


def _by_name(names: tuple[str, ...]) -> ReportWarning:
    message = f"The inputs were given to forward by name: {', '.join(names)}."
    return ReportWarning(code="inputs_by_name", message=message, where="data")

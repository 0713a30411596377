"""From what a caller hands to `pruning.prune` to what the loop takes, and back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruning.calling import Calling
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.library.arrays import Fitted, has_names, in_roles
from pruning.library.computed import check_computed
from pruning.library.half import HALF, InFloat32, in_float32
from pruning.library.kinds import check_in_place
from pruning.library.plain import check_copies, check_copy, plain
from pruning.library.restored import (
    Buffers,
    whole_or_not_at_all,
    without_gradients,
    without_traces,
)
from pruning.library.ties import merged
from pruning.library.trial import check_call, keywords
from pruning.report.schema import ReportWarning
from pruning.samples import first_samples


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
    found = plain(module)
    check_computed(found.module)
    notes = [*found.notes, *_tied(found.ties)]
    with ExitStack() as stack:
        stack.enter_context(found.settled())
        module = found.copied() if copy else found.module
        if not copy:
            check_in_place(module)
            stack.enter_context(whole_or_not_at_all(module))
        stack.enter_context(without_traces(module))
        stack.enter_context(without_gradients(module))
        stack.enter_context(merged(module, found.ties))
        half = stack.enter_context(in_float32(module))
        _evaluate(module)
        buffers = Buffers(module)
        stack.callback(buffers.put_back)
        notes += _computed(half)
        fitted = Fitted(_types(module))
        # Samples of a half type are computed in float32 as the weights are, and so no news.
        known = _widened(given) if half.types else given
        samples = fitted.fit(known)
        notes += fitted.notes
        few = samples.calibration if isinstance(samples, Data) else samples
        by_name = keywords(module, list(few.inputs)) if has_names(data) else ()
        calling = check_call(module, few, batch, Calling(by_name, axes=axes(few.inputs)))
        buffers.look()
        notes += _changing(buffers.changed)
        if by_name:
            notes.append(_by_name(by_name))
        inputs = first_samples(module, few, batch or min(2, few.samples))
        if copy:
            check_copy(module, found.module, inputs, calling)
        else:
            check_copies(module, inputs, calling)
        yield Admitted(module, samples, calling, half, notes)


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


def _evaluate(module: nn.Module) -> None:
    """Evaluation mode.

    Raises:
        SecateurError: `module_unsupported` where a module's own `train` does not follow.
    """
    module.eval()
    for path, part in module.named_modules():
        if part.training:
            raise SecateurError(
                "module_unsupported",
                f"{path or 'The module'} stays in training mode when module.eval() is called.",
                where=path or "module",
                hint="Let its train(mode) set self.training = mode.",
            )


def _changing(names: list[str]) -> list[ReportWarning]:
    if not names:
        return []
    message = (
        f"Calls in evaluation mode change buffers of the module: {', '.join(names)}. They are "
        "given back as they came."
    )
    return [ReportWarning(code="buffers_put_back", message=message, where=names[0])]


def _by_name(names: tuple[str, ...]) -> ReportWarning:
    message = f"The inputs were given to forward by name: {', '.join(names)}."
    return ReportWarning(code="inputs_by_name", message=message, where="data")

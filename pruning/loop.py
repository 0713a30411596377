"""The pruning loop: module and data in, pruned module, masks and report out."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pruning.checkpoint import threads_of
from pruning.data.batches import ArrayData, Data
from pruning.events import Event
from pruning.facts import ModelFacts
from pruning.job import prepare
from pruning.progress import Narrator
from pruning.report.schema import Report
from pruning.results import make_report
from pruning.samples import by_samples
from pruning.spec import Spec
from pruning.study.study import Study, study

__all__ = ["Outcome", "prune"]


@dataclass(frozen=True)
class Outcome:
    """A pruned module in evaluation mode, its keep masks by parameter name, and the report.

    A gate that was missed is a check `max_drop.<metric>` of status `fail` in `report.checks`.
    `study` holds the other runs, whose weights it can put into the module.
    """

    module: nn.Module
    masks: dict[str, Tensor]
    report: Report
    study: Study


def prune(
    module: nn.Module,
    data: Data | ArrayData | Tensor | tuple[Tensor, Tensor | None],
    spec: Spec | dict[str, Any] | None = None,
    *,
    facts: ModelFacts | None = None,
    emit: Callable[[Event], None] | None = None,
    checkpoints: Path | None = None,
    rewind_to: dict[str, Tensor] | None = None,
    copy: bool = True,
) -> Outcome:
    """Prune a network.

    The same call on the same machine, with the same number of threads, gives the same bytes,
    whether or not it was interrupted and resumed from `checkpoints`.

    Args:
        module: A trained network; it is called with the inputs as positional arguments, and its
            first output is the one that the loss refers to.
        data: Roles told apart, or samples of which a seeded 20 % is held out for evaluation; a
            tuple is (inputs, labels), and inputs alone do where the objective needs no labels.
        spec: What to do, as `Spec` or plain values; the defaults of `Spec` without it.
        facts: What intake learned of an uploaded model.
        emit: Receives events.
        checkpoints: Folder for one file a step; the newest valid one in it is resumed, with as
            many threads as it was written with.
        rewind_to: The state_dict of an earlier checkpoint of the same network, for schedules that
            rewind or start from it.
        copy: Whether to leave `module` as it is and prune a copy.

    Raises:
        SecateurError: With the code, the place and what to do.
    """
    narrator = Narrator(emit)
    narrator.phase("checking")
    module = deepcopy(module) if copy else module
    with by_samples(module), threads_of(checkpoints):
        job = prepare(
            module, data, spec, facts=facts, narrator=narrator, copy=False, rewind_to=rewind_to
        )
        done = study(job, checkpoints)
        narrator.phase(None)
        masks = job.masks(done.answer.state.kept)
        return Outcome(job.module.eval(), masks, make_report(job, done), done)

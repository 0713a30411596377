"""The pruning loop: module and data in, pruned module, masks and report out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pruning.calling import Calling, axes_of, declared_axes
from pruning.checkpoint import threads_of
from pruning.data.batches import ArrayData, Data
from pruning.events import Event
from pruning.facts import ModelFacts
from pruning.job import Job, prepare
from pruning.library.admission import Admitted, admitted
from pruning.library.earlier import earlier_state
from pruning.library.thread_count import own_threads
from pruning.library.unexpected import Listener
from pruning.metrics import evaluate
from pruning.progress import Narrator
from pruning.report.schema import Report
from pruning.report.words import number
from pruning.results import make_report
from pruning.samples import by_samples
from pruning.spec import Spec, parse_spec
from pruning.study.expected_work import expected_work
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
    data: Any,
    spec: Spec | dict[str, Any] | None = None,
    *,
    facts: ModelFacts | None = None,
    emit: Callable[[Event], None] | None = None,
    checkpoints: Path | str | None = None,
    rewind_to: dict[str, Tensor] | None = None,
    copy: bool = True,
) -> Outcome:
    """Prune a network.

    The same call on the same machine, with the same number of threads (torch's own, or that of
    SECATEUR_THREADS), gives the same bytes, whether or not it was interrupted and resumed from
    `checkpoints`. docs/library.md says what is taken, what is changed on the way in, and what is
    refused.

    Args:
        module: A trained network, called with the inputs as positional arguments, or by name where
            their names are parameters of its `forward` in other places. Its first real-valued
            output with one result a sample is the one that the loss refers to.
        data: `Data` where roles are told apart, else samples of which a seeded 20 % is held out
            for evaluation: `ArrayData`, (inputs, labels), or inputs alone where the objective needs
            no labels. Inputs are a tensor, a NumPy array, or a mapping of these by input name.
        spec: What to do, as `Spec` or plain values; the defaults of `Spec` without it.
        facts: What intake learned of an uploaded model.
        emit: Receives events.
        checkpoints: Folder for one file a step; the newest valid one in it is resumed, with as
            many threads as it was written with.
        rewind_to: The state_dict of an earlier checkpoint of the same network, for schedules that
            rewind or start from it.
        copy: Whether to leave `module` as it is and prune a copy. A module that is pruned in place
            is as it was if that fails.

    Raises:
        SecateurError: With the code, the place and what to do.
    """
    listener = Listener(emit)
    narrator = Narrator(listener)
    narrator.phase("checking")
    asked = spec if isinstance(spec, Spec) else parse_spec(spec)
    batch = None if facts is None else facts.batch
    labelled = asked.objective.needs_labels

    def axes(inputs: Mapping[str, Tensor]) -> tuple[int | None, ...]:
        return declared_axes(inputs, asked.declared) if facts is None else axes_of(facts)

    with (
        listener.coded(),
        own_threads(),
        admitted(module, data, labelled=labelled, batch=batch, copy=copy, axes=axes) as entry,
    ):
        outcome = prune_admitted(
            entry.module,
            entry.data,
            asked,
            facts=facts,
            narrator=narrator,
            checkpoints=None if checkpoints is None else Path(checkpoints),
            rewind_to=earlier_state(rewind_to, entry.module),
            entry=entry,
        )
    narrator.finish()
    return outcome


def prune_admitted(
    module: nn.Module,
    data: Data | ArrayData,
    spec: Spec,
    *,
    facts: ModelFacts | None,
    narrator: Narrator,
    checkpoints: Path | None,
    rewind_to: dict[str, Tensor] | None,
    entry: Admitted | None = None,
) -> Outcome:
    """Prune a module that is known to be fit, in place.

    Args:
        module: Of a format's reader, or of `library.admission`.
        data: In the types that it computes in.
        spec: What to do.
        facts: What intake learned of an uploaded model.
        narrator: Tells how it goes on.
        checkpoints: Folder for one file a step.
        rewind_to: The state_dict of an earlier checkpoint.
        entry: How the module came in by the library's door; None for files.

    Raises:
        SecateurError: With the code, the place and what to do.
    """
    with by_samples(module), threads_of(checkpoints):
        calling = Calling() if entry is None else entry.calling
        job = prepare(
            module,
            data,
            spec,
            facts=facts,
            narrator=narrator,
            rewind_to=rewind_to,
            calling=calling,
            own_types={} if entry is None else entry.half.own,
        )
        for note in () if entry is None else entry.notes:
            job.warn(note.code, note.message, note.where)
        narrator.plan(expected_work(job))
        done = study(job, checkpoints)
        if entry is not None:
            _round(job, entry)
        narrator.phase(None)
        masks = job.masks(done.answer.state.kept)
        return Outcome(job.module.eval(), masks, make_report(job, done), done)


def _round(job: Job, entry: Admitted) -> None:
    """Weights of half types as they will be given back, and what that does to the loss."""
    if not entry.half.types:
        return
    before = evaluate(job.module, job.data.calibration, job.loss).loss
    entry.half.round()
    after = evaluate(job.module, job.data.calibration, job.loss).loss
    job.warn(
        "weights_rounded",
        f"Rounding the pruned weights to {' and '.join(entry.half.types)} took the loss on the "
        f"calibration data from {number(before)} to {number(after)}; the report's other numbers "
        "are those before it.",
        "module",
    )

"""Criteria at the answer's sparsity, on the same data: whether the job's own was worth its price.

Every criterion gets the compensation that belongs to it and the same number of weights to remove.
A run without recovery goes down in one shot; one with recovery goes through the job's schedule.
"""

import hashlib
from collections.abc import Callable
from contextlib import _GeneratorContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pruning.catalogue import Declaration
from pruning.checkpoint import Checkpoints
from pruning.combinations import check_combination, check_sizes
from pruning.errors import SecateurError
from pruning.events import Phase
from pruning.job import Job, State
from pruning.memory_errors import out_of_memory
from pruning.progress import Narrator
from pruning.report.study import Compared, ComparedRun, Comparison
from pruning.schedule.step import scorings
from pruning.spec import (
    OneShot,
    SearchAllocation,
    Spec,
    Target,
)
from pruning.spec.agreement import check_agreement
from pruning.state import load_state
from pruning.study.advantage import Finding, differences
from pruning.study.labels import compared
from pruning.study.rivals import modes, names, plain, rivals, trained
from pruning.study.runs import QUIET, Run, Runs, follow

PASSED_ON = frozenset({"cancelled", "wall_limit", "stalled", "child_crashed"})
"""Codes that end the job, whichever run they meet."""

SEEDS = 2**31

Found = dict[tuple[bool, int], Finding]
"""What the runs of a criterion came to, by whether with recovery and number of the seed."""


def compare(runs: Runs, answer: Run) -> Comparison | None:
    """Run the other criteria, and the job's own where its answer is no such run.

    The module ends at any of these runs' weights.

    Args:
        runs: Of the job; there may be several.
        answer: The run that is delivered.

    Returns:
        None where there is nothing to compare with, or nothing was removed.
    """
    spec = runs.job.spec
    others = rivals(spec)
    if not others or answer.removed <= runs.job.existing.removed:
        return None
    criteria = [spec.criterion, *others]
    found: list[Found] = [{} for _ in criteria]
    for seed in range(spec.comparison.seeds):
        job = _of_seed(runs.job, seed)
        for number, criterion in enumerate(criteria):
            one = _Comparing(runs, answer, job, criterion, number, seed)
            for recovered in modes(spec):
                found[number][recovered, seed] = one.finding(recovered=recovered)
    told = [
        _compared(spec, criterion, name, of)
        for criterion, name, of in zip(criteria, names(criteria), found, strict=True)
    ]
    apart = [
        difference
        for other, of in zip(told[1:], found[1:], strict=True)
        for recovered in modes(spec)
        for difference in differences(
            told[0].criterion,
            other.criterion,
            [(found[0][key], of[key]) for key in of if key[0] == recovered],
            runs.job.metrics,
            recovered=recovered,
        )
    ]
    return Comparison(sparsity=answer.sparsity, criteria=told, differences=apart)


def _compared(spec: Spec, criterion: Declaration, name: str, found: Found) -> Compared:
    parts: Any = plain(spec, criterion)
    return Compared(
        criterion=name,
        own=criterion == spec.criterion,
        allocation=parts.allocation.kind,
        compensation=parts.compensation.kind,
        runs=[
            ComparedRun(
                seed=(spec.seed + seed) % SEEDS,
                recovered=recovered,
                loss=one.loss,
                metrics=dict(one.metrics),
                error=one.error,
            )
            for (recovered, seed), one in sorted(found.items(), key=lambda item: item[0])
        ],
    )


class _Comparing:
    """The runs of one criterion with one seed; the files of each go once it is known what it is."""

    def __init__(
        self, runs: Runs, answer: Run, job: Job, criterion: Declaration, number: int, seed: int
    ) -> None:
        self.runs, self.answer, self.job = runs, answer, job
        self.criterion, self.number, self.seed = criterion, number, seed

    def finding(self, *, recovered: bool) -> Finding:
        """What a run comes to; what has been run already is not run again."""
        own = self.seed == 0 and self.criterion == self.runs.job.spec.criterion
        once = isinstance(self.runs.job.spec.schedule, OneShot)
        if own and (recovered or once):
            return _result(self.answer.state, recovered=recovered)
        spec = self._spec(recovered=recovered)
        label = compared(self.number, self.seed, recovered=recovered)
        job = replace(self.job, spec=spec)
        if not recovered and not self.criterion.about.needs:
            return self._at_once(job, label)
        kept = _Kept(Checkpoints(self.runs.folder, job, label))
        result = kept.read()
        if result is None:
            seeds = spec.comparison.seeds
            message = f"comparison: {self.criterion.kind}, seed {self.seed + 1} of {seeds}"
            with self.runs.job.narrator.about(message, self.seed, seeds):
                result = self._run(label, spec, recovered=recovered)
            kept.write(result)
        kept.clear()
        if self.runs.memory is not None:
            self.runs.memory.pop(label, None)
        return result

    def _spec(self, *, recovered: bool) -> Spec:
        """The job's spec with this criterion, at the answer's sparsity."""
        spec = self.runs.job.spec
        if recovered:
            stopped = self.answer.state.stopped
            made = trained(spec, self.criterion, None if stopped is None else stopped.round)
        else:
            made = plain(spec, self.criterion)
        return made.model_copy(
            update={
                "target": self._target(made),
                "seed": (spec.seed + self.seed) % SEEDS,
                "trust": QUIET,
            }
        )

    def _target(self, spec: Spec) -> Target:
        """That removes as many weights as the answer lacks."""
        allocation = spec.allocation
        if isinstance(allocation, SearchAllocation) and allocation.budget != "weights":
            return self.answer.job.spec.target  # a share of that budget
        total = len(self.job.weights)
        # A sparsity of 1 is none; a quarter of a weight less is rounded to all of them.
        return Target(sparsity=min(self.answer.removed, total - 0.25) / total)

    def _at_once(self, job: Job, label: str) -> Finding:
        """Looks at the weights and at the data cost less than files to remember the run by."""

        def state() -> State:
            load_state(job.module, job.dense.load())
            return follow(job, Checkpoints(None, job, label))

        return _attempt(state, recovered=False)

    def _run(self, label: str, spec: Spec, *, recovered: bool) -> Finding:
        def state() -> State:
            self._check(spec)
            return self.runs.of(label, spec, self.job).state

        return _attempt(state, recovered=recovered)

    def _check(self, spec: Spec) -> None:
        """Refuses what a job with this spec would be refused for."""
        try:
            check_agreement(spec)
        except ValueError as disagreement:
            raise SecateurError("spec_conflict", str(disagreement)) from disagreement
        weights = self.job.weights
        check_combination(spec, len(weights), elsewhere=self.job.dense.rewind_to is not None)
        sizes = {p.layer: p.weight.numel() for p in weights.layers}
        check_sizes(spec, sizes, scorings(replace(self.job, spec=spec).steps))


class _Kept:
    """What a run came to, in place of its checkpoints: a network for each would fill the disk."""

    def __init__(self, store: Checkpoints) -> None:
        self.store = store
        folder = store.folder
        self.path: Path | None = None if folder is None else folder / f"{store.label}.safetensors"

    def read(self) -> Finding | None:
        """None where it is not known yet."""
        record = None if self.path is None else self.store.read(self.path)
        return None if record is None else Finding(each=record[0], **record[1]["finding"])

    def write(self, finding: Finding) -> None:
        """Beside the checkpoints, valid as they are for this very run alone."""
        if self.path is None:
            return
        values = {"loss": finding.loss, "metrics": finding.metrics, "error": finding.error}
        self.store.write(self.path, finding.each, {"finding": values})

    def clear(self) -> None:
        """Delete the run's checkpoints."""
        if self.path is not None:
            for file in self.path.parent.glob(f"{self.store.prefix}*"):
                file.unlink()


class _Aside(Narrator):
    """Runs beside the job's own: their phases and files are told, their numbers are not."""

    def __init__(self, told: Narrator) -> None:
        super().__init__()
        self.told, self.timings = told, told.timings

    def phase(self, phase: Phase | None) -> None:
        self.told.phase(phase)

    def part(self, name: str) -> _GeneratorContextManager[None]:
        return self.told.part(name)

    def reach(self, stage: str, *, resumed: bool = False) -> None:
        self.told.reach(stage, resumed=resumed)

    def progress(
        self, done: float, total: float, message: str = "", *, whole: bool = False
    ) -> None:
        self.told.progress(done, total, message, whole=whole)

    def checkpoint(self, path: Path) -> None:
        self.told.checkpoint(path)


def _of_seed(job: Job, seed: int) -> Job:
    """The job from the same dense weights; from the second seed on with other calibration samples.

    They are drawn again from its own, with replacement: the bootstrap's picture of what another
    sample of the same size would have been.
    """
    aside = replace(job, narrator=_Aside(job.narrator), warnings=[], general=set(), predicts=False)
    if not seed:
        return aside
    data = job.data.calibration
    digest = hashlib.sha256(f"comparison:{(job.spec.seed + seed) % SEEDS}".encode()).digest()
    draw = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    index = torch.randint(data.samples, (data.samples,), generator=draw)
    dense = replace(job.dense, measured=None, known={})
    drawn = replace(job.data, calibration=data.select(index))
    return replace(aside, data=drawn, dense=dense, digest=job.digest and f"{job.digest}+{seed}")


def _attempt(run: Callable[[], State], *, recovered: bool) -> Finding:
    """What a run comes to; why it fails, if it is the run that fails and not the job."""
    try:
        return _result(run(), recovered=recovered)
    except SecateurError as failure:
        if failure.code in PASSED_ON:
            raise
        return Finding(error=failure.message)
    except (MemoryError, RuntimeError) as failure:
        if not out_of_memory(failure):
            raise
        return Finding(error="It ran out of memory.")


def _result(state: State, *, recovered: bool) -> Finding:
    """What a run came to; without recovery, what it was before that."""
    after = recovered and state.recovered_metrics is not None
    stage = "recovered" if after else "pruned"
    metrics = (state.recovered_metrics or {}) if after else state.pruned_metrics
    each = {name: state.each[f"{stage}.{name}"] for name in metrics}
    return Finding(state.loss if after else state.rounds[-1].loss_pruned, dict(metrics), each)

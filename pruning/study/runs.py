"""Runs of the schedule from the dense network: a job has one, a search or a curve several.

A run at some sparsity is what a job with that target would do, byte for byte.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.checkpoint import Checkpoints, digest_of
from pruning.job import Job, State
from pruning.recovery.teacher import taught
from pruning.rewind import rewind
from pruning.spec import Comparison, Curve, Spec, Target, Trust
from pruning.state import load_state
from pruning.step import assessed, recover, remove
from pruning.stopping import Stopping
from pruning.study.labels import stage

QUIET = Trust(checks=False, bootstrap=0, ladder=False)


@dataclass(frozen=True)
class Run:
    """A finished run; the module holds its weights only after `Runs.show`."""

    label: str
    job: Job
    state: State

    @property
    def removed(self) -> int:
        """Weights that are gone."""
        return len(self.state.kept) - int(self.state.kept.sum())

    @property
    def sparsity(self) -> float:
        """Their share."""
        return self.removed / len(self.state.kept)


class Runs:
    """The runs of one job.

    Args:
        job: At the dense weights. Nothing of it has been done.
        folder: Of the checkpoints; a run that is complete there is not repeated.
        several: Whether there may be more than one.
    """

    def __init__(self, job: Job, folder: Path | None, *, several: bool) -> None:
        self.job, self.folder, self.several = job, folder, several
        self.memory: dict[str, Any] | None = {} if several else None
        if several or taught(job):
            job.dense.keep(job.module, folder)
        if folder is not None and not job.digest:
            job.digest = digest_of(job)

    def main(self) -> Run:
        """The only run of a job that needs no other."""
        return self._run("", self.job)

    def at(self, label: str, sparsity: float) -> Run:
        """The run that a job with this sparsity as its target would be.

        Args:
            label: Name of its checkpoints.
            sparsity: Share of the weights in scope.
        """
        return self.of(label, self.job.spec.model_copy(
            update={"target": Target(sparsity=sparsity), "trust": QUIET}
        ))  # fmt: skip

    def of(self, label: str, spec: Spec, job: Job | None = None) -> Run:
        """A run by another spec.

        Args:
            label: Name of its checkpoints.
            spec: What to do; what several runs are needed for is left out.
            job: In place of the job, where the data differ.
        """
        alone = spec.model_copy(update={"curve": Curve(), "comparison": Comparison(criteria=())})
        run = self._run(label, replace(job or self.job, spec=alone))
        # Several runs are held at once; saliencies are twice the size of a float32 network each.
        run.state.kept = run.state.kept.cpu()
        run.state.saliency = run.state.saliency.new_empty(0)
        return run

    def show(self, run: Run) -> State:
        """Put a run's final weights into the module.

        Returns:
            Its state, whole again: where several runs are held, these lack their saliencies.
        """
        state = Checkpoints(self.folder, run.job, run.label, self.memory).latest()
        assert state is not None
        return state

    def assessed(self, run: Run) -> Run:
        """The run of a search with what `spec.trust` asks for, its weights in the module.

        That is found at the dense weights, with what the first step knows of them: its weights
        are chosen once more, and stay.
        """
        spec = run.job.spec.model_copy(update={"trust": self.job.spec.trust})
        if not run.state.rounds or spec.trust == QUIET or _by_layers(spec):
            return replace(run, state=self.show(run))
        job, nowhere = replace(run.job, spec=spec), Checkpoints(None, run.job)
        # Without a folder nobody comes back for it, and the weights are in memory already.
        store = nowhere if self.folder is None else Checkpoints(
            self.folder, job, f"{run.label}-trust"
        )  # fmt: skip
        known = store.latest()
        if known is not None:
            return replace(run, state=known)
        self._to_dense()
        job.narrator.reach(stage("trust", 0))
        with _deterministic(job.device):
            trust, trust_checks = assessed(job, nowhere)
        state = self.show(run)
        state.trust, state.trust_checks = trust, trust_checks
        store.save(state)
        return replace(run, state=state)

    def _run(self, label: str, job: Job) -> Run:
        if self.several:
            self._to_dense()
        store = Checkpoints(self.folder, job, label, self.memory)
        return Run(label, job, follow(job, store))

    def _to_dense(self) -> None:
        load_state(self.job.module, self.job.dense.load())


def _by_layers(spec: Spec) -> bool:
    """Whether a solver chooses layer by layer, where there is no curvature to be assessed."""
    return isinstance(spec.compensation, Layerwise)


def follow(job: Job, store: Checkpoints) -> State:
    """The steps of a job's schedule that its newest checkpoint has not done yet."""
    with _deterministic(job.device):
        job.narrator.reach(stage(store.label, 0))
        watch = Stopping(job, store)
        state = watch.begin()
        done = len(state.rounds)
        if done:
            job.narrator.reach(stage(store.label, done), resumed=True)
        for number, step in enumerate(job.steps[done:], done + 1):
            if state.stopped is not None:
                break
            job.narrator.reach(stage(store.label, number))
            remove(job, state, step, store)
            if not step.recover:
                store.save(state)
                continue
            rewind(job, state)
            recover(job, state, store)
            state = watch.after(state)
    return state


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, only kernels that give the same bits every time; a CPU's always do."""
    if device.type != "cuda":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark

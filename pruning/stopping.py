"""Ends the rounds where a metric fell too far, at the round before."""

from pruning.allowed import allows
from pruning.checkpoint import Checkpoints, Snapshot
from pruning.job import Job, State
from pruning.report.numbers import limit, points
from pruning.report.study import Stopped
from pruning.spec import Rounds
from pruning.step import start

CODE, WHERE = "stopped_early", "spec.schedule.stop"


class Stopping:
    """Watches the rounds of a run for `schedule.stop`; does nothing where there is none.

    The network after the last good round, the dense one before the first, is held in memory; the
    checkpoints have it for a run that is resumed.

    Args:
        job: What is run.
        store: Its checkpoints.
    """

    def __init__(self, job: Job, store: Checkpoints) -> None:
        schedule = job.spec.schedule
        self.job, self.store = job, store
        self.stop = schedule.stop if isinstance(schedule, Rounds) else None
        self.good: Snapshot | None = None

    def begin(self) -> State:
        """The newest state in the checkpoints, or the one before the first step."""
        newest = self.store.newest()
        if self.stop is not None and newest is not None:
            self.good = self._good(newest)
            if self.good is None:
                newest = None  # within a round whose beginning is lost: all over again
        if newest is not None:
            return self.store.restore(newest)
        state = start(self.job, self.store)
        if self.stop is not None:
            self.store.save(state)
            self.good = self.store.snapshot(state)
        return state

    def after(self, state: State) -> State:
        """After a round: the same state, or where it is too bad, that of the round before.

        Either is in the checkpoints then, the latter under the number of the last step.
        """
        stop, job = self.stop, self.job
        if stop is None:
            self.store.save(state)
            return state
        final = state.pruned_metrics if state.recovered_metrics is None else state.recovered_metrics
        drop = state.dense_metrics[stop.metric] - final[stop.metric]
        if allows(stop.drop, drop):
            self.store.save(state)
            self.good = self.store.snapshot(state)
            return state
        assert self.good is not None
        state = self.store.restore(self.good)
        state.stopped = Stopped(
            round=self._rounds(len(state.rounds)),
            rounds=self._rounds(len(job.steps)),
            metric=stop.metric,
            drop=drop,
            allowed=stop.drop,
        )
        if not state.rounds:
            state.pruned_metrics = dict(state.dense_metrics)
            dense = {k: v for k, v in state.each.items() if k.startswith("dense.")}
            state.each |= {f"pruned.{k.removeprefix('dense.')}": v for k, v in dense.items()}
        job.narrator.warning(CODE, words(state.stopped), WHERE)
        self.store.save(state, len(job.steps))
        return state

    def _good(self, newest: Snapshot) -> Snapshot | None:
        """What was held when a checkpoint was written."""
        done = len(newest[1]["rounds"])
        ends = (i + 1 for i, step in enumerate(self.job.steps) if step.recover)
        over = max((end for end in ends if end <= done), default=0)
        return newest if over == done else self.store.found(over)

    def _rounds(self, steps: int) -> int:
        """Rounds of the schedule that so many steps are."""
        return sum(step.recover for step in self.job.steps[:steps])


def words(stopped: Stopped) -> str:
    """What the reader is told."""
    kept = (
        f"round {stopped.round} is delivered"
        if stopped.round
        else "nothing is removed: the dense network is delivered"
    )
    return (
        f"After round {stopped.round + 1} of {stopped.rounds} {stopped.metric} had fallen by "
        f"{points(stopped.metric, stopped.drop)}, more than the "
        f"{limit(stopped.metric, stopped.allowed)} allowed. That round was undone; "
        f"{kept}."
    )

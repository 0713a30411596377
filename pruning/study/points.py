"""The runs of a job as points of its trade-off curve."""

from typing import Literal, cast

from pruning.budget import Budget
from pruning.budget.of_job import counting, multiply_adds_known
from pruning.job import Job, State
from pruning.report.study import Drop, Point
from pruning.spec import Rounds, Spec
from pruning.study.probing import drop_of
from pruning.study.runs import Run
from pruning.study.study import Study


def looks(spec: Spec) -> int:
    """How often the same evaluation samples may be looked at before one network is taken."""
    schedule = spec.schedule
    rounds = schedule.rounds if isinstance(schedule, Rounds) and schedule.stop else 1
    return rounds * (1 if spec.target.max_drop is None else spec.target.max_drop.probes)


def drops(state: State, metrics: tuple[str, ...], simultaneous: int) -> dict[str, Drop]:
    """How far each metric fell from the dense to the final network, by pairs."""
    if not state.rounds:
        # The very same network: there is nothing to be uncertain about.
        samples = {name: len(state.each[f"dense.{name}"]) for name in metrics}
        return {n: Drop(value=0.0, low=0.0, high=0.0, samples=k) for n, k in samples.items()}
    return {name: drop_of(state, name, simultaneous) for name in metrics}


def curve(job: Job, done: Study) -> list[Point]:
    """Every run, by sparsity; the delivered one among them."""
    runs = in_order(done)
    count = _Counting(job, many=len(runs) > 1)
    return [_point(job, done, source, run, count) for source, run in runs]


def in_order(done: Study) -> list[tuple[str, Run]]:
    """The runs of the curve's points, each with where it comes from."""
    answer = done.answer
    found = [("target", answer), *(one for one in done.points if one[1].label != answer.label)]
    return sorted(found, key=lambda one: (one[1].sparsity, one[1] is not answer))


class _Counting:
    """What is left of a network, counted in bytes and multiply-adds.

    A pass through the network is made for the latter only where the job has several points.
    """

    def __init__(self, job: Job, *, many: bool) -> None:
        self.weights = job.weights
        self.bytes = counting(job, "bytes")
        self.flops: Budget | None = None
        if many or job.spec.target.flops is not None or multiply_adds_known(job):
            self.flops = counting(job, "flops")

    def kept(self, run: Run) -> list[int]:
        """Weights of each layer that are left."""
        return [int(part.sum()) for part in self.weights.split(run.state.kept)]


def _point(job: Job, done: Study, source: str, run: Run, count: _Counting) -> Point:
    state = run.state
    final = state.pruned_metrics if state.recovered_metrics is None else state.recovered_metrics
    probes = {r.label for s, r in done.points if s == "probe"}
    kept = count.kept(run)
    return Point(
        sparsity=run.sparsity,
        removed=run.removed,
        loss=state.loss,
        metrics=dict(final),
        drops=drops(state, job.metrics, looks(job.spec)),
        bytes=int(count.bytes.of(kept)),
        multiply_adds=None if count.flops is None else round(count.flops.of(kept)),
        source=cast(Literal["target", "probe", "curve"], source),
        allowed=run.label in done.accepted if run.label in probes else None,
        delivered=run.label == done.answer.label,
    )

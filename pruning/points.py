"""The runs of a job as points of its trade-off curve."""

from typing import Literal, cast

from pruning import intervals
from pruning.job import Job, State
from pruning.report.study import Drop, Point
from pruning.runs import Run
from pruning.spec import Spec
from pruning.study import Study


def looks(spec: Spec) -> int:
    """How often the same evaluation samples may be looked at before one run is taken."""
    return 1 if spec.target.max_drop is None else spec.target.max_drop.probes


def drops(state: State, metrics: tuple[str, ...], simultaneous: int) -> dict[str, Drop]:
    """How far each metric fell from the dense to the final network, by pairs."""
    final = "pruned" if state.recovered_metrics is None else "recovered"
    return {
        name: intervals.drop(
            state.each[f"dense.{name}"], state.each[f"{final}.{name}"], simultaneous
        )
        for name in metrics
    }


def curve(job: Job, done: Study) -> list[Point]:
    """Every run, by sparsity; the delivered one among them."""
    others = [run for run in done.points if run[1].label != done.answer.label]
    found = [_point(job, done, "target", done.answer)]
    found += [_point(job, done, source, run) for source, run in others]
    return sorted(found, key=lambda point: (point.sparsity, not point.delivered))


def _point(job: Job, done: Study, source: str, run: Run) -> Point:
    state = run.state
    final = state.pruned_metrics if state.recovered_metrics is None else state.recovered_metrics
    probes = {r.label for s, r in done.points if s == "probe"}
    return Point(
        sparsity=run.sparsity,
        removed=run.removed,
        loss=state.loss,
        metrics=dict(final),
        drops=drops(state, job.metrics, looks(job.spec)),
        source=cast(Literal["target", "probe", "curve"], source),
        allowed=run.label in done.accepted if run.label in probes else None,
        delivered=run.label == done.answer.label,
    )

"""The damping whose pruned network has the lowest loss on a held-out share of the calibration data.

The sweep itself is `pruning.solvers.damping`; here it prunes, measures and is recorded.
"""

from collections.abc import Callable

from torch import Tensor

from pruning.curvature.derivatives import lacks_derivative
from pruning.curvature.quadratic import predict
from pruning.errors import SecateurError
from pruning.job import Job, State
from pruning.metrics import evaluate
from pruning.report.schema import DampingTrial
from pruning.solvers import damping as dampings

MENDED_BY_DAMPING = ("loss_non_finite", "factorization_failed")
"""Errors of one damping that another one may not have; all others end the sweep."""


def best_damping(
    job: Job, state: State, prune: Callable[[float], Tensor], *, predicted: bool = True
) -> float:
    """Try dampings, record all of them in the state, and answer the best.

    Args:
        job: The module is left at its present weights.
        state: Its sweep grows; the damping of the step before is where the search starts.
        prune: Prunes the module with a relative damping, on the part of the calibration data that
            is not held out; answers the change of all weights, shape [W].
        predicted: Whether the quadratic model's prediction on the held-out part breaks ties.

    Raises:
        SecateurError: Of the last damping tried, where all of them failed.
    """
    old, (_, held) = job.weights.read(), job.held_out
    before = evaluate(job.module, held, job.loss).loss
    failures: list[SecateurError] = []

    def measure(damping: float) -> dampings.Trial:
        job.narrator.progress(0, 1, f"damping {damping:g}")
        try:
            change = prune(damping)
            loss = evaluate(job.module, held, job.loss).loss
        except SecateurError as failure:
            if failure.code not in MENDED_BY_DAMPING:
                raise
            failures.append(failure)
            return dampings.Trial(damping, error=failure.message)
        finally:
            job.weights.write(old)
        return dampings.Trial(damping, loss, predicted_for(change), loss - before)

    def predicted_for(change: Tensor) -> float | None:
        if not predicted:
            return None
        try:
            return predict(job.network(), held, job.loss, change).total
        except SecateurError as failure:
            if not lacks_derivative(failure):
                raise
            return None

    near = state.rounds[-1].damping if state.rounds else None
    trials = dampings.sweep(measure, near)
    chosen = dampings.best(trials)
    state.sweep += [
        DampingTrial(
            round=len(state.rounds) + 1,
            damping=trial.damping,
            loss=trial.loss,
            predicted_increase=trial.predicted,
            measured_increase=trial.measured,
            error=trial.error,
            chosen=i == chosen,
        )
        for i, trial in enumerate(trials)
    ]
    if chosen is None:
        raise failures[-1]
    return trials[chosen].damping

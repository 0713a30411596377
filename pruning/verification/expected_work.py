"""What follows the pruning of a file: writing, reading again, running, timing."""

from pruning.formats.contract import Imported
from pruning.spec import Spec
from pruning.verification.effort import effort_of
from pruning.workload import Price, times

READ, WRITE = 50e6, 30e6
"""Bytes a second, with all that is done to them: a guess, since what is guessed is short."""

STARTED = 0.3
"""Seconds that a half takes whatever the model is."""

MEASURED = 0.5
"""Of the most time for the latency, what is used, about."""


def expected_work(
    spec: Spec, imported: Imported, evaluation: int, *, exports: int
) -> dict[str, list[Price]]:
    """Visits of the phases `verifying` and `exporting`.

    Args:
        spec: The job's.
        imported: The upload.
        evaluation: Samples of the evaluation data.
        exports: 2 before the pruning's files are written, 1 after.
    """
    size, points = 4.0 * imported.facts.parameters, len(spec.curve.points)
    ran = evaluation * (2 if spec.gates.max_drop or not spec.objective.needs_labels else 1)
    return {
        "exporting": times(exports, seconds=STARTED + (1 + points) * size / WRITE),
        "verifying": times(1, seconds=STARTED + (2 + points) * size / READ),
        "verifying.outputs": times(1, passes=ran),
        "verifying.latency": times(1, seconds=MEASURED * effort_of(spec).seconds),
    }

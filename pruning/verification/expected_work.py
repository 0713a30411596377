"""What follows the pruning of a file: writing, reading again, running, timing."""

from pruning.formats.contract import Imported
from pruning.spec import Spec
from pruning.verification.effort import effort_of
from pruning.visits import Price, times
from pruning.workload import Stage

READ, WRITE = 50e6, 30e6
"""Bytes a second, with all that is done to them: a guess, since what is guessed is short."""

STARTED = 0.3
"""Seconds that a half takes whatever the model is."""

MEASURED = 0.5
"""Of the most time for the latency, what is used, about."""


WRITING, VERIFYING = "writing", "verifying"
"""Names of the stages."""


def written(spec: Spec, imported: Imported) -> Stage:
    """Writing the model's files and what is asked for beside them."""
    files = 1 + len(spec.curve.points)
    took = STARTED + files * _bytes(imported) / WRITE
    return Stage(WRITING, {"exporting": [Price(seconds=took)]})


def verified(spec: Spec, imported: Imported, evaluation: int, *, begun: bool = False) -> Stage:
    """What the second process does, the reports included.

    Args:
        spec: The job's.
        imported: The upload.
        evaluation: Samples of the evaluation data.
        begun: Whether it has read the files already, so that its first visit is not to come.
    """
    files = 2 + len(spec.curve.points)
    ran = evaluation * (2 if spec.gates.max_drop or not spec.objective.needs_labels else 1)
    return Stage(
        VERIFYING,
        {
            "verifying": times(int(not begun), seconds=STARTED + files * _bytes(imported) / READ),
            "verifying.outputs": times(1, passes=ran),
            "verifying.latency": times(1, seconds=MEASURED * effort_of(spec).seconds),
            "exporting": times(1, seconds=STARTED),
        },
    )


def _bytes(imported: Imported) -> float:
    return 4.0 * imported.facts.parameters

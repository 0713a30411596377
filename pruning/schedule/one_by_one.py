"""One weight at a time, for small networks. Torch-free."""

from pruning.errors import SecateurError
from pruning.schedule.step import Step
from pruning.spec import OneByOne

WEIGHTS = 2_048
"""Weights in scope beyond which it is refused: each deletion touches the whole inverse."""

STEPS = 1_000
"""Computations of the curvature beyond which it is refused: each is a step of the report."""


def steps(schedule: OneByOne, total: int, target: int) -> list[Step]:
    """A step ends where the curvature is computed again; the last one ends at `target` exactly.

    Raises:
        SecateurError: `curvature_too_large` for too many weights, `spec_conflict` for too many
            steps.
    """
    if total > WEIGHTS:
        raise SecateurError(
            "curvature_too_large",
            f"schedule one_by_one is for small networks: {total} weights are in scope, and the "
            f"limit is {WEIGHTS}.",
            where="spec.schedule",
            hint="Use schedule: {kind: one_shot}, or exclude layers with scope.exclude.",
        )
    ends = [*range(schedule.recompute, target, schedule.recompute), target]
    if len(ends) > STEPS:
        raise SecateurError(
            "spec_conflict",
            f"{target} deletions with the curvature computed every {schedule.recompute} are "
            f"{len(ends)} steps; the limit is {STEPS}.",
            where="spec.schedule.recompute",
            hint=f"Set it to {-(-target // STEPS)} or more.",
        )
    return [Step(k, recover=k == target) for k in ends]

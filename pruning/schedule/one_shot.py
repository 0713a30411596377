"""Down to the target without recovery in between, with the curvature recomputed on the way."""

from pruning.report.schema import Substitution
from pruning.schedule.step import Step, between
from pruning.spec import OneShot, Spec
from pruning.spec.recomputations import by_itself


def steps(schedule: OneShot, total: int, target: int) -> list[Step]:
    """The same share of the survivors goes in every step: k_i = N (1 - (1 - s)^(i / R)).

    Steps that would remove nothing are left out; the last one ends at `target` exactly.

    Args:
        schedule: In full, its recomputations a number.
        total: Weights in scope, N.
        target: Weights that are gone at the end.
    """
    if schedule.recomputations == "auto":
        raise ValueError("what recomputations: auto stands for follows from the spec")
    grown = between(0, target, schedule.recomputations, total)
    return [*(Step(k, recover=False) for k in grown), Step(target, recover=True)]


def substitution(spec: Spec) -> list[Substitution]:
    """What stands for `recomputations: auto`, if that was asked for."""
    schedule = spec.schedule
    if not isinstance(schedule, OneShot) or schedule.recomputations != "auto":
        return []
    count, reason = by_itself(spec)
    where = "spec.schedule.recomputations"
    return [Substitution(where=where, asked="auto", used=str(count), reason=reason)]

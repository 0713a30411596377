"""Down to the target without recovery in between, with the curvature recomputed on the way."""

from pruning.schedule.step import Step, between
from pruning.spec import OneShot


def steps(schedule: OneShot, total: int, target: int) -> list[Step]:
    """The same share of the survivors goes in every step: k_i = N (1 - (1 - s)^(i / R)).

    Steps that would remove nothing are left out; the last one ends at `target` exactly.
    """
    grown = between(0, target, schedule.recomputations, total)
    return [*(Step(k, recover=False) for k in grown), Step(target, recover=True)]

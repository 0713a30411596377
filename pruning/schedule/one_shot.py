"""Down to the target without recovery in between, with the curvature recomputed on the way."""

from pruning.schedule.step import Step, removal_count
from pruning.spec import OneShot


def steps(schedule: OneShot, total: int, target: int) -> list[Step]:
    """The same share of the survivors goes in every step: k_i = N (1 - (1 - s)^(i / R)).

    Steps that would remove nothing are left out; the last one ends at `target` exactly.
    """
    keep = 1.0 - target / total
    count = schedule.recomputations
    counts = [removal_count(1.0 - keep ** ((i + 1) / count), total) for i in range(count - 1)]
    grown = sorted({k for k in counts if 0 < k < target}) if keep > 0 else []
    return [*(Step(k, recover=False) for k in grown), Step(target, recover=True)]

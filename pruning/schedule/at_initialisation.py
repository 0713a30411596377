"""Pruning before training: one removal at the first weights, then training. Torch-free."""

from pruning.schedule.step import Step, between
from pruning.spec import AtInitialisation


def steps(schedule: AtInitialisation, total: int, target: int) -> list[Step]:
    """One step; the same share of the survivors goes in each of its iterations.

    k_i = N (1 - (1 - s)^(i / n)), as Tanaka et al. 2020, algorithm 1. Iterations that would
    remove nothing are left out.
    """
    via = between(0, target, schedule.iterations, total)
    return [Step(target, recover=True, via=tuple(via))]

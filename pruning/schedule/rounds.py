"""Rounds of prune and recover."""

from collections.abc import Callable

from pruning.schedule.step import Step, between, removal_count
from pruning.spec import Rounds

# Sparsity after the share t of the rounds, for a final sparsity s.
CURVES: dict[str, Callable[[float, float], float]] = {
    # Zhu and Gupta 2017, eq. 1, from dense: fast at first, slow near the end.
    "cubic": lambda s, t: s * (1.0 - (1.0 - t) ** 3),
    "linear": lambda s, t: s * t,
    # The same share of the survivors every time.
    "geometric": lambda s, t: 1.0 - (1.0 - s) ** t,
}


def steps(schedule: Rounds, total: int, target: int) -> list[Step]:
    """The ends of the rounds by `curve`, each with recovery; the last one is `target` exactly.

    With `recomputations`, steps without recovery lie inside a round; those that would remove
    nothing are left out.
    """
    curve, count = CURVES[schedule.curve], schedule.rounds
    final = target / total
    counts = [
        min(target, removal_count(curve(final, (i + 1) / count), total)) for i in range(count)
    ]
    found: list[Step] = []
    gone = 0
    for end in [*counts[:-1], target]:
        within = between(gone, end, schedule.recomputations, total)
        found += [*(Step(k, recover=False) for k in within), Step(end, recover=True)]
        gone = end
    return found

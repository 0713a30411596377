"""Chooses the damping by the loss that the pruned network has on held-out samples.

The damped closed form can't choose: its prediction falls with the damping whatever the network
does, and agreement of predicted and measured alone picks far too much of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pruning.curvature.matrix import Matrix

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative dampings tried at first, in units of the mean diagonal of the curvature."""

EXTENSIONS = 3
"""How many times the grid may grow by another decade where its best value lies on its edge."""

HELD_OUT = 0.2
"""Share of the calibration data on which candidates are measured."""

TIE = 1e-3
"""Losses within this relative distance of the lowest count as equal."""

ROUNDING = 1e-7
"""Losses within this relative distance differ by rounding only."""


@dataclass(frozen=True)
class Trial:
    """One relative damping and what came of it; where it failed `error` says why."""

    damping: float
    loss: float | None = None
    predicted: float | None = None
    measured: float | None = None
    error: str | None = None

    @property
    def disagreement(self) -> float:
        """Distance of predicted and measured increase."""
        if self.predicted is None or self.measured is None:
            return float("inf")
        return abs(self.predicted - self.measured)


def absolute(damping: float, curvature: Matrix) -> float:
    """A relative damping in the curvature's own units: times the mean size of its diagonal."""
    return damping * float(curvature.diagonal().abs().mean())


def sweep(measure: Callable[[float], Trial], near: float | None = None) -> list[Trial]:
    """Try dampings a decade apart until the best one has a worse neighbour on each side.

    Args:
        measure: Prunes with one relative damping and measures.
        near: The damping chosen in the step before; if it lies within the grid, the sweep starts
            from that value and its two neighbours instead of from the whole grid. Outside it may
            have been chosen among equals, and would be too far from what this step needs.

    Returns:
        All trials, by ascending damping.
    """
    inside = near is not None and GRID[0] <= near <= GRID[-1]
    start = (near / 10.0, near, near * 10.0) if near is not None and inside else GRID
    trials = [measure(_decade(d)) for d in start]
    for _ in range(EXTENSIONS):
        choice = best(trials)
        if choice is not None and all(_equal(t, trials[choice]) for t in trials):
            # Damping makes no difference, as where all that goes is dead: further out neither.
            break
        if choice is None or choice == len(trials) - 1:
            # Where everything failed, only more damping can help.
            trials.append(measure(_decade(trials[-1].damping * 10.0)))
        elif choice == 0:
            trials.insert(0, measure(_decade(trials[0].damping / 10.0)))
        else:
            break
    return trials


def best(trials: list[Trial]) -> int | None:
    """The trial of lowest loss, among ties the one that agrees best; None if all failed."""
    losses = [t.loss for t in trials if t.loss is not None]
    if not losses:
        return None
    limit = min(losses) + TIE * abs(min(losses))
    tied = [i for i, t in enumerate(trials) if t.loss is not None and t.loss <= limit]
    return min(tied, key=lambda i: (trials[i].disagreement, i))


def _equal(first: Trial, second: Trial) -> bool:
    """Whether two trials left the network with the same loss, but for rounding."""
    if first.loss is None or second.loss is None:
        return False
    return math.isclose(first.loss, second.loss, rel_tol=ROUNDING)


def _decade(damping: float) -> float:
    """The same number however a sweep got there."""
    return float(f"{damping:.6e}")

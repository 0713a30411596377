"""One step of a schedule, and the rounding of sparsities to whole weights. Torch-free."""

from dataclasses import dataclass, replace
from typing import Any

from pruning.registry import method


@dataclass(frozen=True)
class Step:
    """Remove until `removed` weights are gone in all; then recover, if the spec has a recovery."""

    removed: int
    recover: bool


def removal_count(sparsity: float, total: int, unit: int = 1) -> int:
    """Weights that a sparsity stands for: sparsity * total, rounded half up.

    Args:
        sparsity: A share.
        total: Weights in scope.
        unit: How many go at once; the result is a multiple of it.
    """
    groups = total // unit
    return unit * min(groups, int(sparsity * total / unit + 0.5))


def planned_steps(schedule: Any, total: int, target: int, unit: int = 1) -> list[Step]:
    """The steps of a spec's schedule from nothing removed to `target`.

    Args:
        schedule: The spec's part.
        total: Weights in scope.
        target: Weights that are gone at the end, a multiple of `unit`.
        unit: How many go at once; every step removes a multiple of it.
    """
    found: list[Step] = method("schedule", schedule.kind).steps(
        schedule, total // unit, target // unit
    )
    return [replace(step, removed=unit * step.removed) for step in found]

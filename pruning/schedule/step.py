"""One step of a schedule, and the rounding of sparsities to whole weights. Torch-free."""

from dataclasses import dataclass, replace
from typing import Any

from pruning.registry import method

MOST = 0.999
"""The largest sparsity that a search tries."""


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


def removal_target(spec: Any, total: int) -> int:
    """Weights that are gone at the end; for bytes and flops as if layers were pruned alike.

    Args:
        spec: Its target; max_drop has none of its own, and stands for the spec's most.
        total: Weights in scope.
    """
    target, unit = spec.target, spec.pattern.unit
    if target.kind == "max_drop":
        return removal_count(MOST, total, unit)
    if target.kind == "sparsity":
        return removal_count(target.sparsity, total, unit)
    asked = getattr(target, target.kind)
    if asked >= 1 and target.kind == "weights":
        groups = -(-max(0, total - asked) // unit)  # at most so many stay
        return unit * min(groups, total // unit)
    return removal_count(1.0 - asked if asked < 1 else 0.5, total, unit)


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

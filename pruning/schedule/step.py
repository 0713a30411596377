"""One step of a schedule, and the rounding of sparsities to whole weights. Torch-free."""

from dataclasses import dataclass, replace
from typing import Any

from pruning.registry import method
from pruning.spec.amount import limit_of

MOST = 0.999
"""The largest sparsity that a search tries."""


@dataclass(frozen=True)
class Step:
    """Remove until `removed` weights are gone in all; then recover, if the spec has a recovery.

    `via`: counts on the way there, ascending, at each of which the rest is scored anew. All of it
    is one step of the report.
    """

    removed: int
    recover: bool
    via: tuple[int, ...] = ()


def removal_count(sparsity: float, total: int, unit: int = 1) -> int:
    """Weights that a sparsity stands for: sparsity * total, rounded half up.

    Args:
        sparsity: A share.
        total: Weights in scope.
        unit: How many go at once; the result is a multiple of it.
    """
    groups = total // unit
    return unit * min(groups, int(sparsity * total / unit + 0.5))


def between(first: int, last: int, count: int, total: int) -> list[int]:
    """Counts on the way from `first` to `last`, both left out, in `count` equal shares.

    The same share of the survivors S = N - k goes every time: S_i = S_0 (S_n / S_0)^(i / n), with
    k_i rounded half up; what would remove nothing is left out.

    Args:
        first: Weights that are gone, k_0.
        last: Weights that are gone at the end, k_n.
        count: Shares, n.
        total: Weights in scope, N.
    """
    kept, left = 1.0 - first / total, 1.0 - last / total
    if left <= 0:
        return []
    ways = [1.0 - kept * (left / kept) ** ((i + 1) / count) for i in range(count - 1)]
    return sorted({k for k in (removal_count(s, total) for s in ways) if first < k < last})


def scorings(steps: list[Step]) -> int:
    """How often weights are scored in all."""
    return sum(1 + len(step.via) for step in steps)


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
    if target.kind == "weights":
        stay = limit_of(asked, total)
        return unit * min(-(-max(0, total - stay) // unit), total // unit)
    return removal_count(1.0 - asked if isinstance(asked, float) else 0.5, total, unit)


def planned_steps(
    schedule: Any, total: int, target: int, unit: int = 1, gone: int = 0
) -> list[Step]:
    """The steps of a spec's schedule from the weights there are to `target`.

    Args:
        schedule: The spec's part.
        total: Weights in scope.
        target: Weights that are gone at the end, a multiple of `unit`.
        unit: How many go at once; every step removes a multiple of it.
        gone: Weights that count as removed before the first step, a multiple of `unit`.
    """
    if gone >= total:
        return [Step(gone, recover=True)]
    found: list[Step] = method("schedule", schedule.kind).steps(
        schedule, (total - gone) // unit, max(0, target - gone) // unit
    )
    return [
        replace(
            step,
            removed=gone + unit * step.removed,
            via=tuple(gone + unit * k for k in step.via),
        )
        for step in found
    ]

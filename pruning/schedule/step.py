"""One step of a schedule, and the rounding of sparsities to whole weights. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Remove until `removed` weights are gone in all; then recover, if the spec has a recovery."""

    removed: int
    recover: bool


def removal_count(sparsity: float, total: int) -> int:
    """Weights that a sparsity stands for: sparsity * total, rounded half up."""
    return min(total, int(sparsity * total + 0.5))

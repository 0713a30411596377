"""What a layer costs at every sparsity, and the cheapest sparsities of all layers together."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Ladder:
    """The increase of the loss, piecewise linear in the number of weights removed.

    Args:
        removed: Rungs: weights removed, ascending from 0 to all of the layer's.
        increase: The increase of the loss at each rung, ascending from 0.
    """

    removed: tuple[int, ...]
    increase: tuple[float, ...]

    def __post_init__(self) -> None:
        climbs = all(a < b for a, b in pairwise(self.removed))
        rises = all(a <= b for a, b in pairwise(self.increase))
        if len(self.removed) != len(self.increase) or not (climbs and rises) or self.removed[0]:
            raise ValueError("a ladder starts at 0, and neither weights nor increase ever fall")

    def at(self, count: float) -> float:
        """The increase with `count` weights removed, between rungs interpolated."""
        for (k, low), (after, high) in pairwise(zip(self.removed, self.increase, strict=True)):
            if count <= after:
                return low + (high - low) * (count - k) / (after - k)
        return self.increase[-1]

    def hull(self) -> list[tuple[int, float]]:
        """Rungs of the largest convex curve below the ladder."""
        kept: list[tuple[int, float]] = []
        for point in zip(self.removed, self.increase, strict=True):
            while len(kept) > 1 and _slope(kept[-2], kept[-1]) >= _slope(kept[-1], point):
                kept.pop()
            kept.append(point)
        return kept


def by_marginal(ladders: list[Ladder], target: int) -> list[float]:
    """The counts that add up to `target` at which one more weight costs the same in every layer.

    On convex ladders this is the cheapest there is; others are replaced by their convex hull.
    """
    segments = [
        (_slope(a, b), number, b[0] - a[0])
        for number, ladder in enumerate(ladders)
        for a, b in pairwise(ladder.hull())
    ]
    counts = [0.0] * len(ladders)
    left = target
    for _, number, width in sorted(segments):
        taken = min(width, left)
        counts[number] += taken
        left -= taken
    return counts


def _slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])

"""Targets other than a number of weights: what the weights that stay may cost. Torch-free.

The module of a kind has `cost(part, kept)`: what a weight costs with so many non-zero entries,
never less for more of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from pruning.errors import SecateurError


@dataclass(frozen=True)
class Part:
    """One weight in scope.

    Args:
        name: Its path.
        shape: In torch's layout.
        itemsize: Bytes an entry in the file.
        uses: How often a sample uses each entry; 0 where nothing asks.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    uses: float = 0.0

    @property
    def size(self) -> int:
        """Entries."""
        return prod(self.shape)


@dataclass(frozen=True)
class Budget:
    """What may remain, and what it is counted in.

    Args:
        kind: `bytes` or `flops`.
        limit: The most that may remain.
        rest: Bytes or multiply-adds that remain when all weights in scope are gone.
        parts: The weights in scope.
        cost: Function of a part and its number of non-zero entries, in bytes or multiply-adds.
        start: Entries of each weight that are left before anything goes; all without it.
        bound: How what remains was found: `about` by measuring, `at least` or `up to` as a bound;
            empty where it is exact.
    """

    kind: str
    limit: float
    rest: int
    parts: list[Part]
    cost: Callable[[Part, int], float]
    start: Sequence[int] | None = None
    bound: str = ""

    def of(self, kept: Sequence[int]) -> float:
        """What remains with so many non-zero entries in each weight."""
        return self.rest + sum(self.cost(p, k) for p, k in zip(self.parts, kept, strict=True))

    @cached_property
    def dense(self) -> float:
        """What there would be without any zeros."""
        return self.of([p.size for p in self.parts])

    @cached_property
    def first(self) -> float:
        """What there is before anything goes."""
        return self.dense if self.start is None else self.of(self.start)

    def allowed(self, share: float) -> float:
        """What may remain after a share of the way from what there is to the limit."""
        if share >= 1.0 or self.first <= self.limit:
            return self.limit
        return self.first - share * (self.first - self.limit)

    def check(self) -> None:
        """Refuses a limit that can't be met, whatever goes.

        Raises:
            SecateurError: `spec_conflict`.
        """
        least = self.of([0] * len(self.parts))
        if least > self.limit:
            raise too_little(self.kind, self.limit, least, self.bound)

    def uniform(self, unit: int = 1) -> int:
        """The fewest weights that meet the limit where all layers are pruned alike.

        Args:
            unit: How many go at once.

        Returns:
            How many are gone in all, those that count as gone from the start included.
        """
        sizes = [p.size for p in self.parts] if self.start is None else list(self.start)
        total = sum(sizes)

        def enough(gone: int) -> bool:
            return self.of([n - gone * n // total for n in sizes]) <= self.limit

        found = sum(p.size for p in self.parts) - total
        return found + fewest(enough, 0, total, unit)


def fewest(
    enough: Callable[[int], bool], least: int, most: int, unit: int = 1, near: int = 0
) -> int:
    """The smallest count that is enough, by bisection.

    Args:
        enough: Whether a count is; true from some count on, or nearly so.
        least: Where the search begins, itself allowed.
        most: Where it ends; taken without being asked for.
        unit: Counts are `least` and multiples of it more.
        near: How many counts below the one found are asked for too.
    """
    low, high = 0, (most - least) // unit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(least + unit * middle) else (middle + 1, high)
    for lower in range(max(0, high - near), high):
        if enough(least + unit * lower):
            return least + unit * lower
    return least + unit * high


def too_little(kind: str, limit: float, least: float, bound: str = "") -> SecateurError:
    """The error for a budget below what remains whatever goes."""
    amount = f"{bound} {least:,.0f}".strip()
    what = {
        "bytes": f"the sparse file takes {amount} without any of the weights in scope",
        "flops": f"the layers take {amount} without any of their weights",
    }[kind]
    hint = "Ask for more, or take more layers into the scope."
    if bound == "up to":
        hint = (
            "A model of this size is not packed beforehand, and a limit below this bound is not "
            "tried: prune to a sparsity first, whose sparse file tells what the rest takes, or ask "
            "for more."
        )
    return SecateurError(
        "spec_conflict",
        f"At most {limit:,.0f} {kind} shall remain, and {what}.",
        where=f"spec.target.{kind}",
        hint=hint,
        limit=float(limit),
        least=float(least),
    )

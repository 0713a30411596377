"""How far the greedy path of every row of a layer is followed, a chunk of rows at a time.

The layer's path takes at each step the row whose next step is cheapest. Where a step is cheaper
than one before it in its row, it follows at once, so a row's steps are ranked by the highest cost
up to them. A row is followed no farther than the layer's path may go: a sample of rows tells about
how far that is, and rows that turn out to have stopped too early go again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers.elimination import CUT, PANELS, Elimination, ImpreciseError
from pruning.solvers.layer import LayerProblem
from pruning.solvers.layer_factor import cholesky, damped, dead_inputs
from pruning.solvers.singular import SingularError

MARGIN = 1.15
"""How far beyond the estimate of the layer's highest cost a row is followed."""

CHECK = 8
"""Steps between two looks at which rows have gone far enough."""


@dataclass(frozen=True)
class Paths:
    """Greedy paths of strips of rows; entries beyond a path's end are -1, inf and inf.

    Args:
        groups: Column group removed at each step, int32, shape [strips, steps].
        costs: Increase of the damped error by each step, shape [strips, steps].
        changes: |A - W|^2 after each step, shape [strips, steps]; [strips, 0] if not asked for.
    """

    groups: Tensor
    costs: Tensor
    changes: Tensor


def follow(problem: LayerProblem, memory: int, *, distances: bool) -> Paths:
    """Paths in the layer's precision, in double precision where that does not last."""
    values = damped(problem)
    for dtype in dict.fromkeys((problem.aim.dtype, torch.float64)):
        try:
            return _Layer(problem, dtype, memory, distances).paths()
        except ImpreciseError:
            continue
    everything = torch.arange(values.shape[-1], device=values.device)
    raise SingularError(everything, values[0].double())


def forced_groups(problem: LayerProblem) -> Tensor:
    """Column groups of each strip that are gone, shape [g, o / rows, d / width]."""
    gone = patterns.already_gone(problem)
    width = 1 if problem.pattern.kind == "nm" else problem.pattern.columns
    return gone[:, :: problem.pattern.rows, ::width]


def _empty(strips: int, like: Tensor, steps: int, distances: bool) -> Paths:
    shape = (strips, steps)
    groups = torch.full(shape, -1, dtype=torch.int32, device=like.device)
    costs = torch.full(shape, torch.inf, dtype=like.dtype, device=like.device)
    return Paths(groups, costs, costs.clone() if distances else costs[:, :0])


def _joined(parts: list[Paths]) -> Paths:
    return Paths(
        torch.cat([p.groups for p in parts], 1),
        torch.cat([p.costs for p in parts], 1),
        torch.cat([p.changes for p in parts], 1),
    )


def ranks_of(costs: Tensor, forced: Tensor) -> Tensor:
    """Highest cost up to each step; -inf for the steps that were forced, which are the first."""
    steps = torch.arange(costs.shape[1], device=costs.device)
    return costs.masked_fill(steps < forced[:, None], -torch.inf).cummax(1).values


class _Layer:
    """A layer cut into strips, and the chunks of strips that are followed together."""

    def __init__(
        self, problem: LayerProblem, dtype: torch.dtype, memory: int, distances: bool
    ) -> None:
        pattern = problem.pattern
        self.of_each = (
            (pattern.columns, pattern.columns - pattern.keep) if pattern.kind == "nm" else None
        )
        self.width = 1 if self.of_each else pattern.columns
        forced = forced_groups(problem)
        self.forced = forced.flatten(0, 1)
        self.strips, self.groups = self.forced.shape
        self.steps = problem.count // (pattern.rows * self.width)
        values = damped(problem)
        self.diagonal = values.diagonal(dim1=1, dim2=2).to(dtype)
        factor = cholesky(values.double())
        del values
        self.inverse = torch.cholesky_inverse(factor).to(dtype)
        del factor
        each = torch.arange(len(forced), device=forced.device)
        self.own = each.repeat_interleave(forced.shape[1])
        aim = problem.aim.to(dtype).masked_fill(dead_inputs(problem)[:, None, :], 0.0)
        self.aim = aim.view(self.strips, pattern.rows, -1)
        self.memory, self.distances = memory, distances
        self.totals = torch.full_like(self.own, self.groups)
        if self.of_each is not None:
            size, count = self.of_each
            self.totals = self.forced.unflatten(1, (-1, size)).sum(2).clamp(min=count).sum(1)

    def paths(self) -> Paths:
        """Every strip as far as the layer's path may need it."""
        if self.steps == 0:
            return _empty(self.strips, self.aim, 0, self.distances)
        everything = torch.arange(self.strips, device=self.own.device)
        if self.of_each is not None:
            chunks = everything[self.totals.argsort(stable=True)].split(self._many(self.totals))
            return self._merge([(c, self.follow(c, torch.inf)) for c in chunks])
        first = self._first_counts()
        order = first.argsort(stable=True)
        many = self._many(first)
        count = -(-self.strips // many)
        sample = order[count // 2 :: count]
        rest = order[~torch.isin(order, sample)]
        share = -(-self.steps * len(sample) // self.strips)
        found = [(sample, self.follow(sample, torch.inf, share))]
        limits = [self._limit(found)]
        start = 0
        while start < len(rest):
            many = self._many(first[rest[start:]][:many])
            chunk = rest[start : start + many]
            limits.append(self._limit(found))
            found.append((chunk, self.follow(chunk, limits[-1])))
            start += many
        return self._merge(self._again(found, limits))

    def _again(
        self, found: list[tuple[Tensor, Paths]], limits: list[float]
    ) -> list[tuple[Tensor, Paths]]:
        """Follow the chunks that stopped below the layer's highest cost once more."""
        while True:
            known = self._known(found)
            if len(known) >= self.steps:
                top = float(known.kthvalue(self.steps).values)
            else:
                top = 2.0 * max(limits) if max(limits) > 0 else torch.inf
            short = [i for i, limit in enumerate(limits) if limit < top]
            if not short:
                return found
            for i in short:
                found[i] = (found[i][0], self.follow(found[i][0], top))
                limits[i] = top

    def follow(self, strips: Tensor, limit: float, share: int | None = None) -> Paths:
        """Paths of some strips to where their cost exceeds `limit`, or that of `share` steps.

        Raises:
            ImpreciseError: If rounding has used up an inverse.
        """
        run = self._start(strips)
        alive = torch.arange(len(strips), device=strips.device)
        totals = self.totals[strips]
        ends = set(totals.unique().tolist())
        parts: list[Paths] = []
        pending: list[tuple[Tensor, Tensor, Tensor]] = []
        ranks = torch.empty(len(strips), 0, dtype=self.aim.dtype, device=strips.device)
        forced = self.forced[strips].sum(1)
        taken = 0
        while len(alive):
            pending.append(run.step())
            taken += 1
            if taken % CHECK and taken not in ends:
                continue
            run.check()
            groups, costs, changes = (torch.stack(x, 1) for x in zip(*pending, strict=True))
            pending = []
            part = _empty(len(strips), self.aim, groups.shape[1], self.distances)
            part.groups[alive], part.costs[alive] = groups.int(), costs
            if self.distances:
                part.changes[alive] = changes
            parts.append(part)
            ranks = ranks_of(_joined(parts).costs, forced)
            if share is not None and int((ranks < torch.inf).sum()) >= share:
                limit = MARGIN * float(ranks.flatten().kthvalue(share).values)
            stay = (ranks[alive, -1] <= limit) & (taken < totals[alive])
            if not bool(stay.all()):
                alive = alive[stay]
                run.keep(stay.nonzero()[:, 0])
            if len(alive):
                run.cut()
        return _joined(parts)

    def _limit(self, found: list[tuple[Tensor, Paths]]) -> float:
        """A little more than the highest cost if all strips were like those followed so far."""
        done = sum(len(strips) for strips, _ in found)
        known = self._known(found)
        share = -(-self.steps * done // self.strips)
        if share > len(known):
            return torch.inf
        return MARGIN * float(known.kthvalue(share).values)

    def _known(self, found: list[tuple[Tensor, Paths]]) -> Tensor:
        """Ranks of all steps that were followed, in no order."""
        ranks = [ranks_of(p.costs, self.forced[strips].sum(1)).flatten() for strips, p in found]
        known = torch.cat(ranks)
        return known[known < torch.inf]

    def _first_counts(self) -> Tensor:
        """Steps each strip would take if no step changed what the others cost, shape [strips]."""
        chunks = torch.arange(self.strips, device=self.own.device).split(self._many(self.totals))
        costs = torch.cat([self._start(strips).costs() for strips in chunks])
        return patterns.smallest(costs, self.steps).sum(1)

    def _start(self, strips: Tensor) -> Elimination:
        return Elimination(
            self.inverse, self.diagonal, self.own[strips], self.aim[strips],
            self.forced[strips], self.width, self.of_each, self.distances,
        )  # fmt: skip

    def _many(self, steps: Tensor) -> int:
        """How many strips fit in the memory if they take about so many steps."""
        expected = min(float(steps.double().mean()) + 2 * CHECK, self.groups / 2)
        # Rows of U, the last panel not full, over the columns that are left, cut out with a lag.
        stored = expected * self.width + PANELS[1] / 2
        numbers = stored * (self.groups - expected) * self.width / CUT
        # Weights, aim, diagonal blocks and what their elimination takes.
        numbers += self.aim.shape[2] * (4 * self.width + 5 * self.aim.shape[1])
        return max(int(self.memory / (numbers * self.aim.element_size())), 1)

    def _merge(self, found: list[tuple[Tensor, Paths]]) -> Paths:
        steps = max(p.groups.shape[1] for _, p in found)
        whole = _empty(self.strips, self.aim, steps, self.distances)
        for strips, p in found:
            here = slice(p.groups.shape[1])
            whole.groups[strips, here], whole.costs[strips, here] = p.groups, p.costs
            if self.distances:
                whole.changes[strips, here] = p.changes
        return whole

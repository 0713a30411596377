"""SparseGPT (Frantar and Alistarh 2023): columns from left to right, each mended by those after it.

Removing weight c of a row whose columns before c are settled costs w_c^2 / U_cc^2, where
H^-1 = U' U, and moves the columns after it by -w_c / U_cc U_c: (their algorithm 1). With R = U^-1,
upper too and H = R R', all of that can be written without the inverse: if D = A - W is what the
columns before c have been changed by, column c stands at A_c + sum_{j<c} D_j R_jc / R_cc when its
turn comes, and removing it costs (w_c R_cc)^2. So one Cholesky factor of H suffices, the lazy
update of a block of columns is one product with the columns before it, and D_c is either A_c
(removed) or minus that sum (kept). What columns C would stand at if all of them were kept, which
decides who goes, is A_C + D R_:C (R_CC)^-1.

For a group B of columns that go together the cost is |w_B R_BB|^2, summed over the rows of a block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers.layer import LayerProblem, LayerSolution, Pattern
from pruning.solvers.layer_factor import damped, dead_inputs, upper

INNER = 16
"""Columns settled one by one before the others of their block are brought up to date."""


@dataclass(frozen=True)
class SparseGPT:
    """What there is to choose.

    Args:
        block: Columns whose weights are compared when the ones to remove are chosen, rounded to a
            whole number of the pattern's groups.
    """

    block: int = 128


def solve(problem: LayerProblem, options: SparseGPT | None = None) -> LayerSolution:
    """Prune a layer; each block of columns loses its share, all of them together exactly `count`.

    Raises:
        SecateurError: If the pattern does not fit the layer, or a saliency is not a number.
        SingularError: If the damped Gram matrix can't be factorised.
    """
    patterns.check(problem)
    pattern = problem.pattern
    factor = upper(damped(problem))
    # Columns of the layer are rows here, so that each is contiguous.
    aim = problem.aim.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    live = ~dead_inputs(problem)[..., None]
    forced = _forced(problem)
    width = max((options or SparseGPT()).block // pattern.columns, 1) * pattern.columns
    edges = [*range(0, aim.shape[1], width), aim.shape[1]]
    quotas = _quotas(forced, problem.count, edges, pattern)
    forced = forced.transpose(1, 2)
    roots = factor.diagonal(dim1=1, dim2=2).clone()
    factor /= roots[:, None, :]
    change, removed = torch.empty_like(aim), torch.zeros_like(forced)
    for start, stop, quota in zip(edges[:-1], edges[1:], quotas, strict=True):
        here = slice(start, stop)
        # Minus the pull of the columns before, which is also the change of what stays.
        pull = -(factor[:, :start, here].transpose(1, 2) @ change[:, :start])
        block = _Block(
            factor[:, here, here], roots[:, here], aim[:, here], aim[:, here] * live[:, here], pull,
            forced[:, here], change[:, here], removed[:, here], pattern,
        )  # fmt: skip
        if pattern.kind == "nm":
            block.settle_by_group()
        else:
            block.settle(quota)
    weight = aim.sub_(change)
    del change
    return LayerSolution(weight.transpose(1, 2).contiguous(), removed.transpose(1, 2).contiguous())


@dataclass
class _Block:
    """Columns [b] of a block as rows, over the outputs [o] of each group [g].

    `change` and `removed` are views of the whole layer's and are filled in.
    """

    factor: Tensor
    roots: Tensor
    aim: Tensor
    scored: Tensor
    pull: Tensor
    forced: Tensor
    change: Tensor
    removed: Tensor
    pattern: Pattern

    def settle(self, quota: int) -> None:
        """Choose `quota` weights of the block by what they cost now, then settle its columns."""
        pattern = self.pattern
        costs = self._costs()
        size = pattern.rows * pattern.columns
        forced = self.forced[:, :: pattern.columns, :: pattern.rows]
        chosen = patterns.smallest(
            costs.masked_fill(forced, -torch.inf).transpose(1, 2), quota // size
        )
        self.removed.copy_(patterns.from_groups(chosen, pattern).transpose(1, 2))
        self._columns(INNER)

    def settle_by_group(self) -> None:
        """Choose the weights of each N:M group when its turn comes (section 3.4 of the paper)."""
        width, count = self.pattern.columns, self.pattern.columns - self.pattern.keep
        for start in range(0, self.aim.shape[1], width):
            here = slice(start, start + width)
            weights = self._weights(here)
            costs = (weights * self.roots[:, here, None]).square()
            self.removed[:, here] = patterns.smallest_of_each(
                costs, count, self.forced[:, here], dim=1
            )
            self._group(start, start + width)

    def _columns(self, width: int) -> None:
        for start in range(0, self.aim.shape[1], width):
            self._group(start, min(start + width, self.aim.shape[1]))

    def _group(self, start: int, stop: int) -> None:
        """Settle columns start ... stop one by one, then bring the rest of the block up to date."""
        for c in range(start, stop):
            at = self.pull[:, c : c + 1]
            if c > start:
                before = self.factor[:, start:c, c : c + 1].transpose(1, 2)
                at.baddbmm_(before, self.change[:, start:c], alpha=-1.0)
            torch.where(self.removed[:, c], self.aim[:, c], at[:, 0], out=self.change[:, c])
        if stop < self.aim.shape[1]:
            ahead = self.factor[:, start:stop, stop:].transpose(1, 2)
            self.pull[:, stop:].baddbmm_(ahead, self.change[:, start:stop], alpha=-1.0)

    def _weights(self, here: slice) -> Tensor:
        """What the columns stand at before any of them is removed."""
        own = self.factor[:, here, here].transpose(1, 2)
        return self.scored[:, here] - torch.linalg.solve_triangular(
            own, self.pull[:, here], upper=False, unitriangular=True
        )

    def _costs(self) -> Tensor:
        """Cost of each group of the pattern, shape [g, b / columns, o / rows]."""
        width, height = self.pattern.columns, self.pattern.rows
        weights = self._weights(slice(None))
        if width == 1:
            costs = (weights * self.roots[..., None]).square()
        else:
            g, b, o = weights.shape
            # The factor's columns were divided by their roots.
            whole = self.factor * self.roots[:, None, :]
            tiles = whole.view(g, b // width, width, b // width, width)
            own = tiles.diagonal(dim1=1, dim2=3).movedim(-1, 1)
            parts = own.transpose(2, 3) @ weights.view(g, b // width, width, o)
            costs = parts.square().sum(2)
        return costs if height == 1 else costs.unflatten(2, (-1, height)).sum(-1)


def _forced(problem: LayerProblem) -> Tensor:
    """What goes whatever it costs: weights gone, then those on dead inputs, shape [g, o, d]."""
    gone = patterns.already_gone(problem)
    if problem.pattern.kind == "nm":
        return gone
    dead = dead_inputs(problem)[:, None, :].expand_as(gone) & ~gone
    whole = patterns.into_groups(dead, problem.pattern).all(-1)
    left = (problem.count - int(gone.sum())) // (problem.pattern.rows * problem.pattern.columns)
    first = whole & (whole.flatten().cumsum(0).view(whole.shape) <= left)
    return gone | patterns.from_groups(first, problem.pattern)


def _quotas(forced: Tensor, count: int, edges: list[int], pattern: Pattern) -> list[int]:
    """How many weights each block of columns loses: those forced, and its share of the others."""
    size = pattern.rows * pattern.columns
    by_column = forced.sum((0, 1)).cumsum(0).tolist()
    height = forced.shape[0] * forced.shape[1]
    free = (count - by_column[-1]) // size
    total = height * forced.shape[2] - by_column[-1]
    taken, quotas, before = 0, [], 0
    for edge in edges[1:]:
        upto = free * (height * edge - by_column[edge - 1]) // total if total else 0
        quotas.append((upto - taken) * size + by_column[edge - 1] - before)
        taken, before = upto, by_column[edge - 1]
    return quotas

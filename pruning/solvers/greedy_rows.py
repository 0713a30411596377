"""Greedy exact OBS in a layer: Optimal Brain Compression (Frantar and Alistarh 2022).

Rows of a layer don't share weights, so each has a greedy path of its own (`elimination`), followed
as far as the layer's path needs it (`row_paths`). The path chooses; the weights on the support that
it ends with are solved for exactly (`supports`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.solvers import layer_patterns as patterns
from pruning.solvers import supports
from pruning.solvers.layer import LayerProblem, LayerSolution
from pruning.solvers.layer_factor import damped
from pruning.solvers.row_paths import Paths, follow, forced_groups, ranks_of

SHARE = 2
"""Default memory of a chunk of rows in units of the layer and its Gram matrix."""

LEAST = 6 * 2**20
"""Default memory of a chunk where that would be less."""


@dataclass(frozen=True)
class GreedyRows:
    """What there is to choose.

    Args:
        memory: Bytes for the rows that are followed at one time; by default twice the layer and
            its Gram matrix or 6 MiB, on a GPU a quarter of what is free if that is more.
    """

    memory: int | None = None


@dataclass(frozen=True)
class Ladder:
    """What removing 0, 1, 2 ... groups of a layer costs, and which go, from one run.

    Args:
        problem: The layer; its `count` is how far the ladder reaches.
        paths: Of every strip, that is of every `pattern.rows` neighbouring rows.
        damping: What was added to the diagonal of each group's H, shape [g].
        memory: Bytes that the last solve may take at one time.
    """

    problem: LayerProblem
    paths: Paths
    damping: Tensor
    memory: int

    @property
    def size(self) -> int:
        """Weights that go with one step."""
        return self.problem.pattern.rows * self.problem.pattern.columns

    def row_errors(self) -> Tensor:
        """tr((W - A) H (W - A)') of each strip after 0, 1, ... steps, shape [strips, steps + 1].

        H is undamped, and W what OBS has made of the weights by then; inf beyond a path's end.
        """
        each = self.damping.repeat_interleave(len(self.paths.costs) // len(self.damping))
        errors = self.paths.costs.double().cumsum(1) - each[:, None] * self.paths.changes.double()
        errors = errors.masked_fill(self.paths.groups < 0, torch.inf).clamp(min=0.0)
        return torch.nn.functional.pad(errors, (1, 0))

    def errors(self) -> Tensor:
        """The same of the whole layer after 0 ... count / size steps of its greedy path."""
        rows = self.row_errors()
        steps = torch.where(self.paths.groups >= 0, rows.diff(dim=1), 0.0).flatten()
        order = self._rank().flatten().argsort(stable=True)[: self.problem.count // self.size]
        return torch.nn.functional.pad(steps[order].cumsum(0), (1, 0))

    def removed(self, count: int) -> Tensor:
        """The first `count` weights of the layer's greedy path, shape [g, o, d].

        Raises:
            ValueError: If the ladder does not reach so far, or groups would be split.
        """
        if not 0 <= count <= self.problem.count or count % self.size:
            raise ValueError(f"no step of this ladder removes {count} weights")
        steps = patterns.smallest(self._rank(), count // self.size)
        return _mask(self.problem, self.paths.groups, steps)

    def solve(self, count: int) -> LayerSolution:
        """The layer with the first `count` weights removed and the others at their best."""
        removed = self.removed(count)
        return _solution(self.problem, removed, self.memory)

    def _rank(self) -> Tensor:
        """Highest cost up to each step, shape [strips, steps]; what was gone before goes first."""
        return ranks_of(self.paths.costs, forced_groups(self.problem).flatten(0, 1).sum(1))


def solve(problem: LayerProblem, options: GreedyRows | None = None) -> LayerSolution:
    """Prune a layer along its greedy path, N:M groups each to their own number.

    Raises:
        SecateurError: If the pattern does not fit the layer.
        SingularError: If the damped Gram matrix can't be factorised.
    """
    if problem.pattern.kind != "nm":
        return ladder(problem, options).solve(problem.count)
    patterns.check(problem)
    memory = _memory(problem, options)
    found = follow(problem, memory, distances=False)
    removed = _mask(problem, found.groups, found.groups >= 0)
    return _solution(problem, removed, memory)


def ladder(problem: LayerProblem, options: GreedyRows | None = None) -> Ladder:
    """The layer's greedy path up to `problem.count` weights, of single weights or blocks.

    Raises:
        SecateurError: If the pattern does not fit the layer.
        SingularError: If the damped Gram matrix can't be factorised.
    """
    patterns.check(problem)
    if problem.pattern.kind == "nm":
        raise ValueError("an N:M pattern has one sparsity, no ladder")
    memory = _memory(problem, options)
    added = (damped(problem) - problem.gram).diagonal(dim1=1, dim2=2).amin(1)
    return Ladder(problem, follow(problem, memory, distances=True), added, memory)


def _solution(problem: LayerProblem, removed: Tensor, memory: int) -> LayerSolution:
    weight = supports.solve(problem, removed, problem.pattern.rows, memory)
    return LayerSolution(weight, removed)


def _memory(problem: LayerProblem, options: GreedyRows | None) -> int:
    if options is not None and options.memory is not None:
        return options.memory
    size = (problem.aim.numel() + problem.gram.numel()) * problem.aim.element_size()
    if problem.aim.is_cuda:
        return max(SHARE * size, torch.cuda.mem_get_info(problem.aim.device)[0] // 4)
    return max(SHARE * size, LEAST)


def _mask(problem: LayerProblem, groups: Tensor, steps: Tensor) -> Tensor:
    """The weights that `steps` of the paths remove, shape [g, o, d]."""
    forced = forced_groups(problem)
    flat = torch.zeros_like(forced.flatten(0, 1), dtype=torch.uint8)
    flat.scatter_add_(1, groups.long().clamp(min=0), steps.to(torch.uint8))
    removed = flat.bool().view(forced.shape)
    if problem.pattern.kind == "nm":
        return removed
    return patterns.from_groups(removed, problem.pattern)

"""Small layers for the layer-wise solvers, and what is slow but plainly right to compare with."""

import torch
from torch import Tensor

from pruning.solvers.layer import LayerProblem, Pattern

NM = Pattern("nm", 1, 4, 2)
PATTERNS = {
    "unstructured": Pattern(),
    "2:4": NM,
    "1x4": Pattern("block", 1, 4),
    "4x1": Pattern("block", 4, 1),
    "4x4": Pattern("block", 4, 4),
}


def problem(
    pattern: Pattern = Pattern(),
    share: float = 0.5,
    shape: tuple[int, int, int] = (2, 8, 24),
    *,
    seed: int = 0,
    samples: int = 60,
    damping: float = 0.01,
    dtype: torch.dtype = torch.float64,
    gone: Tensor | None = None,
) -> LayerProblem:
    """A layer with correlated inputs; `share` is rounded to whole groups."""
    g, o, d = shape
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(g, d, d, generator=generator, dtype=torch.float64)
    inputs = torch.randn(g, samples, d, generator=generator, dtype=torch.float64) @ mixed
    gram = inputs.transpose(1, 2) @ inputs / samples
    aim = torch.randn(g, o, d, generator=generator, dtype=torch.float64)
    size = pattern.rows * pattern.columns
    count = int(g * o * d * share) // size * size
    if pattern.kind == "nm":
        count = g * o * d * (pattern.columns - pattern.keep) // pattern.columns
    return LayerProblem(aim.to(dtype), gram.to(dtype), damping, count, pattern, gone)


def curvature(p: LayerProblem) -> Tensor:
    """H + damping in float64, [g, d, d]."""
    gram = p.gram.double()
    scale = gram.diagonal(dim1=1, dim2=2).mean(1) * p.damping
    return gram + scale[:, None, None] * torch.eye(gram.shape[1], dtype=torch.float64)


def best_on(p: LayerProblem, removed: Tensor) -> Tensor:
    """Minimum of the damped error on a support, row by row, [g, o, d]."""
    h, weight = curvature(p), p.aim.double().clone()
    for g, o in torch.cartesian_prod(*map(torch.arange, weight.shape[:2])).tolist():
        s, q = ~removed[g, o], removed[g, o]
        pull = h[g][s][:, q] @ weight[g, o, q]
        weight[g, o, s] += torch.linalg.solve(h[g][s][:, s], pull)
        weight[g, o, q] = 0.0
    return weight

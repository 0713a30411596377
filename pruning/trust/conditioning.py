"""Rank and condition of the criterion's curvature: how much of its inverse is knowledge.

Every layout that a curvature comes in has its way to eigenvalues. A dense matrix beyond
`DECOMPOSED` weights is not decomposed, and the checks say so; its largest eigenvalue by Lanczos'
method still bounds the condition number, as such curvature has no negative eigenvalues.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.criteria import Problem
from pruning.curvature.kronecker import Kronecker
from pruning.curvature.matrix import Blocks, Dense, Diagonal, LowRank, Matrix
from pruning.report.numbers import count, number
from pruning.report.trust import Check
from pruning.trust.check import check
from pruning.trust.lanczos import lanczos

CONDITION = 1e10
"""Condition number beyond which float64 leaves fewer than six digits of an inverse."""

DECOMPOSED = 4_096
"""A dense matrix over more weights is not decomposed: it takes as long as an inversion."""

BLOCK_ENTRIES = 2**23
"""Of blocks with more entries together, so many are decomposed, evenly spread."""

STEPS = 20
"""Products with a matrix that is not decomposed."""


@dataclass(frozen=True)
class _Spectra:
    """Eigenvalues, one vector a block; `part` says which blocks, where not all of them."""

    blocks: list[Tensor]
    part: str = ""


def rank_and_condition(problem: Problem) -> list[Check]:
    """Rank of the curvature, and condition number with the damping it is used with.

    Args:
        problem: All weights in scope; no checks for a criterion without curvature.
    """
    matrix = problem.curvature
    if matrix is None:
        return []
    if isinstance(matrix, Dense) and len(matrix.values) > DECOMPOSED:
        return _bounded(matrix, problem.damping)
    if isinstance(matrix, LowRank) and len(matrix.rows) > DECOMPOSED:
        return [_no_rank(f"of {count(len(matrix.rows))} gradients")]
    spectra = _spectra(matrix)
    rank, high, worst = 0, 0.0, 1.0
    for values in spectra.blocks:
        top, bottom = float(values.max()), float(values.min())
        floor = max(top, 0.0) * len(values) * torch.finfo(torch.float64).eps
        rank += int((values > floor).sum())
        high = max(high, top)
        damped = bottom + problem.damping
        worst = max(worst, (top + problem.damping) / damped if damped > floor else math.inf)
    size = sum(len(values) for values in spectra.blocks)
    checks = [_rank(rank, size, spectra.part, _approximation(matrix))]
    # Nothing is solved with a diagonal.
    return checks if isinstance(matrix, Diagonal) else [*checks, _condition(worst, problem.damping)]


def _spectra(matrix: Matrix) -> _Spectra:
    if isinstance(matrix, Diagonal):
        return _Spectra([matrix.values])
    if isinstance(matrix, Dense):
        return _Spectra([torch.linalg.eigvalsh(matrix.values)])
    if isinstance(matrix, LowRank):
        return _Spectra([_of_low_rank(matrix)])
    if isinstance(matrix, Kronecker):
        # The blocks are kept in their eigenbasis; at the dense weights all of them are whole.
        return _Spectra([block.scales.flatten() for block in matrix.blocks])
    return _of_blocks(matrix)


def _of_low_rank(matrix: LowRank) -> Tensor:
    """Those of V V', which V' V shares, and zeros."""
    rows, size = matrix.rows.shape
    values = torch.linalg.eigvalsh(matrix.rows @ matrix.rows.T)
    spectrum = values.new_zeros(size)
    most = min(rows, size)
    spectrum[size - most :] = values[rows - most :].clamp(min=0.0)
    return spectrum


def _of_blocks(matrix: Blocks) -> _Spectra:
    blocks, side, _ = matrix.values.shape
    most = max(1, BLOCK_ENTRIES // (side * side))
    some = torch.arange(blocks, device=matrix.values.device)
    part = ""
    if blocks > most:
        spread = torch.linspace(0, blocks - 1, most, dtype=torch.float64).long()
        some, part = (
            spread.to(some.device),
            f"{count(most)} of the {count(blocks)} blocks, evenly spread, hold ",
        )
    sizes = (matrix.index[some] >= 0).sum(1).tolist()
    values = torch.linalg.eigvalsh(matrix.values[some])
    # Padding adds eigenvalues that are exactly zero, of which as many are left out.
    return _Spectra([_largest(v, n) for v, n in zip(values, sizes, strict=True)], part)


def _largest(spectrum: Tensor, size: int) -> Tensor:
    return spectrum[spectrum.abs().argsort(descending=True)[:size]]


def _approximation(matrix: Matrix) -> str:
    """What stands for the curvature, where it is not the matrix itself."""
    if isinstance(matrix, Diagonal):
        return "diagonal"
    if isinstance(matrix, Blocks):
        return "block-diagonal"
    return "Kronecker-factored" if isinstance(matrix, Kronecker) else ""


def _rank(rank: int, size: int, part: str, approximation: str) -> Check:
    full = rank == size
    what = f"{approximation} approximation of the curvature" if approximation else "curvature"
    subject = (
        f"The {what} over {count(size)} weights has"
        if not part
        else f"Of the {what} {part}{count(size)} weights and have together"
    )
    known = (
        f"The {approximation} approximation has full rank, which says nothing of the matrix that "
        "it approximates: see samples against weights."
        if approximation
        else "That is full rank."
    )
    message = f"{subject} numerical rank {count(rank)}. " + (
        known
        if full
        else f"In the other {count(size - rank)} directions it is zero: removal there looks "
        f"free, and "
        "only the damping decides. More calibration samples would help, unless inputs or units "
        "are dead."
    )
    return check("curvature_rank", full, rank / size, 1.0, message)


def _condition(value: float, damping: float, bound: bool = False) -> Check:
    known = "infinite" if math.isinf(value) else f"{'at most ' if bound else ''}{number(value)}"
    enough = value <= CONDITION
    message = f"With damping {number(damping)}, its condition number is {known}" + (
        ": small enough for an accurate inverse."
        if enough
        else ": its inverse has few correct digits. A larger criterion.damping would help."
    )
    return check("curvature_condition", enough, value, CONDITION, message)


def _no_rank(what: str) -> Check:
    message = (
        f"Not measured: the rank of the curvature {what} takes a decomposition of that size, which "
        f"is done up to {DECOMPOSED}. The check of samples against weights bounds it."
    )
    return check("curvature_rank", False, None, 1.0, message)


def _bounded(matrix: Dense, damping: float) -> list[Check]:
    """Without a decomposition: (largest eigenvalue + damping) / damping is a bound."""
    size = len(matrix.values)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = lanczos(lambda v: matrix.values @ v, start.to(matrix.values.device), STEPS)
    top = float(spectrum.values.max())
    worst = (top + damping) / damping if damping > 0 else math.inf
    return [_no_rank(f"over {count(size)} weights"), _condition(worst, damping, bound=True)]

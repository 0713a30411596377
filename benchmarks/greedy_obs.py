"""Greedy OBS by row beside the reference code of Optimal Brain Compression (Frantar et al. 2022).

One layer of 128 outputs and 64 x 3 x 3 inputs: random weights, and the Gram matrix of patches of
smooth random images, with 1 % damping. One run of each yields 50, 60 and 70 %; 2:4 is another.
Ours runs before and after theirs, and the slower of the two counts.

`SECATEUR_REFERENCES=folder python -m benchmarks greedy_obs`, or the folder as an argument of
`python -m benchmarks.greedy_obs`; it holds a clone of `IST-DASLab/OBC` as `OBC`.

The figures: the error is at most 1.001 times theirs, in at most a tenth of the time.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import Skipped, save, table
from benchmarks.references import VARIABLE, _layer, _load, _quiet, folder
from pruning.solvers import greedy_rows
from pruning.solvers.layer import LayerProblem, Pattern

OUTPUTS, CHANNELS, KERNEL = 128, 64, 3
SPARSITIES = (0.5, 0.6, 0.7)
DAMPING = 0.01
ERROR, FASTER = 1.001, 10.0


def layer() -> tuple[Tensor, Tensor]:
    """Weights [OUTPUTS, 576] and the Gram matrix of their unfolded inputs, [576, 576]."""
    generator = torch.Generator().manual_seed(0)
    inputs = CHANNELS * KERNEL**2
    weight = torch.randn(OUTPUTS, inputs, generator=generator) / inputs**0.5
    images = torch.randn(32, CHANNELS, 24, 24, generator=generator)
    mixing = torch.randn(CHANNELS, CHANNELS, generator=generator) / CHANNELS**0.5
    smooth = nn.functional.avg_pool2d(images, 3, 1)
    mixed = torch.einsum("nchw,kc->nkhw", smooth, mixing).relu()
    patches = nn.functional.unfold(mixed, KERNEL).transpose(1, 2).flatten(0, 1).double()
    return weight, (patches.T @ patches / len(patches)).float()


def problem(weight: Tensor, gram: Tensor, sparsity: float, pattern: Pattern) -> LayerProblem:
    """The layer as a problem; the count is rounded up, as in the reference."""
    count = -(-round(weight.numel() * sparsity * 1000) // 1000)
    return LayerProblem(weight[None], gram[None], DAMPING, count, pattern)


def ours(weight: Tensor, gram: Tensor, pattern: Pattern) -> tuple[list[Tensor], float]:
    """Pruned weights at SPARSITIES (or of the N:M pattern alone), and seconds."""
    start = time.perf_counter()
    if pattern.kind == "nm":
        solved = [greedy_rows.solve(problem(weight, gram, 0.5, pattern))]
    else:
        counts = [problem(weight, gram, s, pattern).count for s in SPARSITIES]
        ladder = greedy_rows.ladder(problem(weight, gram, max(SPARSITIES), pattern))
        solved = [ladder.solve(count) for count in counts]
    return [s.weight[0] for s in solved], time.perf_counter() - start


def theirs(root: Path) -> Callable[[Tensor, Tensor, Pattern], tuple[list[Tensor], float]]:
    """The same by the reference; its greedy path always runs to the end."""
    device = torch.device("cpu")
    module = _load(root / "OBC" / "trueobs.py", device)

    def run(weight: Tensor, gram: Tensor, pattern: Pattern) -> tuple[list[Tensor], float]:
        job = module.TrueOBS(_layer(weight), rel_damp=DAMPING)
        job.H = gram.double()
        start = time.perf_counter()
        with _quiet(device), torch.no_grad():
            if pattern.kind == "nm":
                job.nmprune(pattern.columns - pattern.keep, pattern.columns)
                pruned = [job.layer.weight.data]
            else:
                job.prepare_unstr()
                pruned = job.prune_unstr(list(SPARSITIES))
        return pruned, time.perf_counter() - start

    return run


def compare(root: Path) -> list[dict[str, Any]]:
    """A row for every pattern and sparsity."""
    weight, gram = layer()
    reference = theirs(root)
    rows = []
    for name, pattern in (("unstructured", Pattern()), ("2:4", Pattern("nm", 1, 4, 2))):
        first, before = ours(weight, gram, pattern)
        other, seconds = reference(weight, gram, pattern)
        _, after = ours(weight, gram, pattern)
        sparsities = (0.5,) if pattern.kind == "nm" else SPARSITIES
        for sparsity, mine, their in zip(sparsities, first, other, strict=True):
            p = problem(weight, gram, sparsity, pattern)
            rows.append(
                {
                    "pattern": name,
                    "sparsity": sparsity,
                    "zeros": int((mine == 0).sum()),
                    "reference_zeros": int((their == 0).sum()),
                    "error": p.error(mine[None]) / p.size(),
                    "reference_error": p.error(their[None]) / p.size(),
                    "seconds": max(before, after),
                    "reference_seconds": seconds,
                }
            )
    return rows


def figures(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """What must hold, and whether it does."""
    return {
        f"error at most {ERROR} x that of OBC": all(
            r["error"] <= ERROR * r["reference_error"] for r in rows
        ),
        "as many weights removed as by OBC": all(r["zeros"] == r["reference_zeros"] for r in rows),
        f"at least {FASTER:g} times faster than OBC": all(
            r["reference_seconds"] >= FASTER * r["seconds"] for r in rows
        ),
    }


def run(root: Path | None = None) -> bool:
    """Measure, print, save; whether the figures hold."""
    root = root or folder()
    if root is None or not (root / "OBC" / "trueobs.py").is_file():
        raise Skipped(f"{VARIABLE} must name a folder with a clone of IST-DASLab/OBC as OBC")
    rows = compare(root)
    table(
        [
            [r["pattern"], r["sparsity"], r["zeros"], r["error"], r["reference_error"],
             r["error"] / r["reference_error"], r["seconds"], r["reference_seconds"],
             r["reference_seconds"] / r["seconds"]]
            for r in rows
        ],
        ["pattern", "sparsity", "zeros", "error", "OBC", "ratio", "seconds", "OBC", "times faster"],
    )  # fmt: skip
    held = figures(rows)
    for name, holds in held.items():
        print(f"{'held  ' if holds else 'MISSED'}  {name}")
    shape = [OUTPUTS, CHANNELS * KERNEL**2]
    save("greedy_obs", {"shape": shape, "damping": DAMPING, "rows": rows, "held": held})
    return all(held.values())


if __name__ == "__main__":
    try:
        sys.exit(not run(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
    except Skipped as reason:
        sys.exit(f"skipped: {reason}")

"""Large layers on a GPU beside the reference code of SparseGPT.

Layers of 4096 x 4096 and 11008 x 4096 (outputs x inputs) with random weights and the Gram matrix of
correlated inputs, 1 % damping, half of the weights gone as single weights and as 2:4. Methods run
one after the other, and times are medians. The operations of a solver are counted as it runs
(products by shape, factorisations and triangular solves by their leading terms); what it achieves a
second stands beside what float32 products of 8192 x 8192 matrices achieve on the same card.

`SECATEUR_REFERENCES=folder python -m benchmarks layerwise_gpu`. Without CUDA it is skipped;
`python -m benchmarks.layerwise_gpu --tiny` goes through all of it on small layers, on whatever
device there is, and judges and saves nothing.

The figures: the SparseGPT solver in at most 0.7 x the reference's time with at most 1.01 x its
error, the best solver (admm, normal effort) in at most 3 x with no larger error.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import references
from benchmarks.common import Skipped, save, table
from pruning.solvers import admm, sparsegpt
from pruning.solvers.layer import LayerProblem, Pattern

LAYERS = ((4096, 4096), (11008, 4096))
TINY = ((32, 16), (24, 48))
SPARSITY, DAMPING, REPEATS = 0.5, 0.01, 5
PATTERNS = {"50 %": Pattern(), "2:4": Pattern("nm", 1, 4, 2)}
REFERENCE = "SparseGPT (reference)"
LIMITS = {"SparseGPT": {"time": 0.7, "error": 1.01}, "admm": {"time": 3.0, "error": 1.0}}
"""Of our solvers, at most this many times the reference's."""

Solve = Callable[[], Tensor]
"""Answers the pruned weight, [o, d]."""


def layer(outputs: int, inputs: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Weights [o, d], and the Gram matrix [d, d] of inputs with a falling spectrum and outliers."""
    generator = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    mixing = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    spectrum = torch.arange(1, inputs + 1) ** -0.5
    own = torch.randn(2 * inputs, inputs, generator=generator)
    own, mixing = own.to(device), (spectrum[:, None] * mixing).to(device)
    x = own @ mixing
    x[:, :: max(1, inputs // 8)] *= 10.0
    return weight.to(device), x.T @ x / len(x)


def cubic(share: float) -> Callable[..., int]:
    """Operations of a factorisation of n x n matrices: share n^3 for each of them."""

    def count(shape: torch.Size, *others: Any, **named: Any) -> int:
        return int(share * shape[:-2].numel() * shape[-1] ** 3)

    return count


def triangular(factor: torch.Size, right: torch.Size, *others: Any, **named: Any) -> int:
    """n^2 for each of the right sides, of which there are as many as it has entries by n."""
    return right.numel() * factor[-1]


COUNTED = {
    torch.ops.aten.linalg_cholesky_ex: cubic(1 / 3),
    torch.ops.aten.cholesky_inverse: cubic(2 / 3),
    torch.ops.aten.linalg_solve_triangular: triangular,
}
"""What torch's own counter, which knows products and convolutions, leaves out."""


def operations(solve: Callable[[], Any]) -> int:
    """Floating-point operations, two for a multiplication with an addition."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        solve()
    return counter.get_total_flops()


def seconds(device: torch.device, solve: Callable[[], Any]) -> float:
    """Until the device is done."""
    _wait(device)
    start = time.perf_counter()
    solve()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a float32 product, in full precision."""
    a = torch.randn(size, size, device=device)
    a @ a
    times = [seconds(device, lambda: a @ a) for _ in range(REPEATS)]
    return 2 * size**3 / statistics.median(times)


def solvers(
    weight: Tensor, gram: Tensor, pattern: Pattern, root: Path | None
) -> tuple[LayerProblem, dict[str, Solve]]:
    """The problem, and every method on it in the order in which they run."""
    count = round(SPARSITY * weight.numel())
    problem = LayerProblem(weight[None], gram[None], DAMPING, count, pattern)
    methods: dict[str, Solve] = {
        "SparseGPT": lambda: sparsegpt.solve(problem).weight[0],
        "admm": lambda: admm.solve(problem).weight[0],
        "admm, high effort": lambda: admm.solve(problem, admm.THOROUGH).weight[0],
    }
    if root is None:
        return problem, methods
    run = references.sparsegpt(root, weight.device)
    n, m = (pattern.keep, pattern.columns) if pattern.kind == "nm" else (0, 0)
    return problem, {REFERENCE: lambda: run(weight, gram, SPARSITY, n, m)[0], **methods}


def compare(problem: LayerProblem, methods: dict[str, Solve]) -> dict[str, dict[str, float]]:
    """Relative error, median seconds and operations of each method."""
    device, rows = problem.aim.device, {}
    for name, solve in methods.items():
        # The first run also warms up kernels and caches.
        weight = solve()
        if name != REFERENCE and int((weight == 0).sum()) != problem.count:
            raise AssertionError(f"{name}: not exactly the zeros that were asked for")
        rows[name] = {
            "error": problem.error(weight[None]) / problem.size(),
            "operations": float(operations(solve)),
        }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(REPEATS):
        for name, solve in methods.items():
            times[name].append(seconds(device, solve))
    for name, row in rows.items():
        row["seconds"] = statistics.median(times[name])
    return rows


def figures(cases: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Each figure with what was measured, the limit, and whether it held; none without theirs."""
    found = {}
    for case, rows in cases.items():
        if REFERENCE not in rows:
            continue
        for name, limits in LIMITS.items():
            for what, most in limits.items():
                field = "seconds" if what == "time" else what
                ratio = rows[name][field] / rows[REFERENCE][field]
                figure = {"measured": ratio, "limit": most, "held": ratio <= most}
                found[f"{case}, {name}: {what} / reference"] = figure
    return found


def measure(
    device: torch.device, layers: tuple[tuple[int, int], ...], root: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Rows of every layer and pattern."""
    cases = {}
    for outputs, inputs in layers:
        weight, gram = layer(outputs, inputs, device)
        for name, pattern in PATTERNS.items():
            problem, methods = solvers(weight, gram, pattern, root)
            cases[f"{outputs} x {inputs}, {name}"] = compare(problem, methods)
    return cases


def show(cases: dict[str, dict[str, dict[str, float]]], rate: float) -> None:
    """Print a table of each case."""
    print(f"float32 products: {rate / 1e12:.4g} TFLOP/s")
    for case, rows in cases.items():
        print(f"\n{case}")
        table(
            [
                [name, r["error"], r["seconds"], r["operations"] / r["seconds"] / 1e12,
                 r["operations"] / r["seconds"] / rate]
                for name, r in rows.items()
            ],
            ["", "error", "seconds", "TFLOP/s", "of the products' rate"],
        )  # fmt: skip


def run() -> bool:
    """Measure, print, save; whether the figures hold.

    Raises:
        Skipped: Without CUDA, or where no figure could be measured for lack of the references.
    """
    if not torch.cuda.is_available():
        raise Skipped("it needs a GPU that torch can use by CUDA")
    root, device = references.folder(), torch.device("cuda", torch.cuda.current_device())
    rate, cases = matrix_rate(device), measure(device, LAYERS, root)
    show(cases, rate)
    found = figures(cases)
    print()
    for name, f in found.items():
        held = "held  " if f["held"] else "MISSED"
        print(f"{held}  {name}: {f['measured']:.3g}, limit {f['limit']}")
    save(
        "layerwise_gpu",
        {
            "device": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "matrix_rate": rate,
            "cases": cases,
            "figures": found,
        },
    )
    if root is None:
        raise Skipped(f"{references.VARIABLE} is not set: no figure against the reference")
    return all(f["held"] for f in found.values())


def tiny() -> None:
    """All of it on small layers."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = measure(device, TINY, references.folder())
    show(cases, matrix_rate(device, 256))
    print(figures(cases))


if __name__ == "__main__":
    if sys.argv[1:] == ["--tiny"]:
        tiny()
    else:
        sys.exit(not run())

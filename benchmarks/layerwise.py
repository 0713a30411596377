"""Layer-wise pruning of a real sentence encoder beside the reference code of SparseGPT and ALPS.

The 36 linear layers of all-MiniLM-L6-v2, each by itself on the Gram matrix of its inputs in the
dense model, at 50 and 70 % of single weights, damping 1 %. The error of a layer is |X(W - W')|^2 /
|XW|^2 on the calibration data, averaged over layers. Methods run one after the other on each layer,
so that the load of the machine falls on all; times are medians over repetitions (ALPS runs once),
summed over layers.

`SECATEUR_REFERENCES=folder python -m benchmarks layerwise`; without the folder the references and
the figures against them are left out, and the run counts as skipped unless another was missed.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import minilm, references
from benchmarks.common import Skipped, save, table
from pruning.solvers import admm, least_squares, sparsegpt
from pruning.solvers.layer import LayerProblem

SPARSITIES = (0.5, 0.7)
TEXTS = 134
REPEATS = 3
ONCE = ("ALPS (reference)",)
MEMORY_SHAPES = ((1536, 384), (384, 1536))
"""Outputs x inputs of the layers whose peak memory is measured."""

Timed = Callable[[LayerProblem], tuple[Tensor, float]]


def own(solve: Callable[[LayerProblem], Any]) -> Timed:
    """A solver of this project as weight [o, d] and seconds."""

    def run(problem: LayerProblem) -> tuple[Tensor, float]:
        start = time.perf_counter()
        solution = solve(problem)
        seconds = time.perf_counter() - start
        if int(solution.removed.sum()) != problem.count or solution.weight[solution.removed].any():
            raise AssertionError("not exactly the zeros that were asked for")
        return solution.weight[0], seconds

    return run


def masked(criterion: str) -> Timed:
    """A criterion's mask without any compensation."""

    def run(problem: LayerProblem) -> tuple[Tensor, float]:
        start = time.perf_counter()
        removed = least_squares.projection.support(
            least_squares.scores(problem, criterion), problem
        )
        weight = problem.aim.masked_fill(removed, 0.0)
        return weight[0], time.perf_counter() - start

    return run


def reference(run: references.Run) -> Timed:
    """A reference as weight and seconds."""

    def timed(problem: LayerProblem) -> tuple[Tensor, float]:
        share = problem.count / problem.aim.numel()
        return run(problem.aim[0], problem.gram[0], share)

    return timed


def methods(root: Path | None) -> dict[str, Timed]:
    """Everything that is compared, in the order in which it runs on each layer."""
    cpu = torch.device("cpu")
    theirs: dict[str, Timed] = {}
    if root is not None:
        theirs = {
            "SparseGPT (reference)": reference(references.sparsegpt(root, cpu)),
            "ALPS (reference)": reference(references.alps(root, cpu)),
        }
    return {
        "magnitude": masked("magnitude"),
        "Wanda": masked("wanda"),
        "Wanda, least squares": own(
            lambda p: least_squares.solve(p, least_squares.LeastSquares(steps=20))
        ),
        **theirs,
        "SparseGPT": own(sparsegpt.solve),
        "fast": own(admm.solve),
        "thorough": own(lambda p: admm.solve(p, admm.THOROUGH)),
    }


def problems(
    sparsity: float, network: minilm.MiniLM, grams: dict[str, Tensor]
) -> list[LayerProblem]:
    layers = minilm.linears(network)
    return [
        LayerProblem(w[None], grams[name][None], 0.01, round(sparsity * w.numel()))
        for name, w in ((n, m.weight.detach()) for n, m in layers.items())
    ]


def compare(layers: list[LayerProblem], runs: dict[str, Timed]) -> dict[str, dict[str, float]]:
    """Mean relative error and seconds of every method over the layers."""
    errors: dict[str, list[float]] = {name: [] for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for problem in layers:
        times: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(REPEATS):
            for name, run in runs.items():
                if repeat == 0 or name not in ONCE:
                    weight, taken = run(problem)
                    times[name].append(taken)
                    if repeat == 0:
                        errors[name].append(problem.error(weight[None]) / problem.size())
        for name, taken_ in times.items():
            seconds[name].append(statistics.median(taken_))
    return {
        name: {"error": statistics.fmean(errors[name]), "seconds": sum(seconds[name])}
        for name in runs
    }


def peak(solve: Callable[[], Any]) -> int:
    """Most bytes that torch's allocator held at one time beyond what it held before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        solve()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = most = 0
    for _, change in sorted(changes):
        held += change
        most = max(most, held)
    return most


def memory() -> list[dict[str, Any]]:
    """Peak of both efforts on random layers, in units of the layer and its Gram matrix."""
    rows = []
    for outputs, inputs in MEMORY_SHAPES:
        x = torch.randn(2 * inputs, inputs)
        gram = (x.T @ x / len(x))[None]
        problem = LayerProblem(torch.randn(1, outputs, inputs), gram, 0.01, outputs * inputs // 2)
        base = problem.aim.nbytes + gram.nbytes
        for name, options in (("fast", admm.FAST), ("thorough", admm.THOROUGH)):
            most = peak(lambda p=problem, o=options: admm.solve(p, o))  # type: ignore[misc]
            rows.append({"layer": f"{outputs} x {inputs}", "effort": name, "ratio": most / base})
    return rows


def figures(
    results: dict[str, dict[str, dict[str, float]]], peaks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Each figure with what was measured, the limit, and whether it held."""
    found: dict[str, Any] = {}

    def limit(name: str, value: float, most: float) -> None:
        found[name] = {"measured": value, "limit": most, "held": value <= most}

    for sparsity, rows in results.items():
        if "ALPS (reference)" not in rows:
            continue
        alps, greedy = rows["ALPS (reference)"], rows["SparseGPT (reference)"]
        for name, error, (clock, times) in (
            ("fast", 1.0, (greedy, 3.0)),
            ("thorough", 0.98, (alps, 1.0)),
        ):
            row = rows[name]
            limit(f"{name} at {sparsity}: error / ALPS", row["error"] / alps["error"], error)
            of = "SparseGPT" if clock is greedy else "ALPS"
            limit(f"{name} at {sparsity}: time / {of}", row["seconds"] / clock["seconds"], times)
        row = rows["SparseGPT"]
        limit(f"SparseGPT at {sparsity}: error / reference", row["error"] / greedy["error"], 1.01)
        limit(f"SparseGPT at {sparsity}: time / reference", row["seconds"] / greedy["seconds"], 0.8)
    for row in peaks:
        limit(f"memory of {row['layer']}, {row['effort']}", row["ratio"], 6.0)
    return found


def run() -> bool:
    """Measure, print, save; True if every figure held.

    Raises:
        Skipped: If all that was measured held, and the references are not here.
    """
    root = references.folder()
    if root is None:
        print(f"{references.VARIABLE} is not set: the references are left out")
    network = minilm.model()
    grams = minilm.grams(network, minilm.tokens(TEXTS))
    runs, results = methods(root), {}
    for sparsity in SPARSITIES:
        rows = compare(problems(sparsity, network, grams), runs)
        results[f"{sparsity:.0%}"] = rows
        print(f"\n{sparsity:.0%} of the weights removed")
        table([[n, r["error"], r["seconds"]] for n, r in rows.items()], ["", "error", "seconds"])
    peaks = memory()
    found = figures(results, peaks)
    print()
    table(
        [
            [n, f["measured"], f["limit"], "held" if f["held"] else "MISSED"]
            for n, f in found.items()
        ],
        ["figure", "measured", "limit", ""],
    )
    threads = torch.get_num_threads()
    save("layerwise", {"threads": threads, "results": results, "figures": found})
    held = all(f["held"] for f in found.values())
    if held and root is None:
        raise Skipped(f"{references.VARIABLE} is not set: no figure against the references")
    return held

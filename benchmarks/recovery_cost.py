"""What the mask costs a training: time of a step and peak memory, beside a plain torch loop.

The figures: with Adam and 90 % of the weights removed, a step of recovery takes at most 1.05 times
as long as that of the same training without pruning, which is the same trainer without a mask,
and recovery's peak memory is at most 1.1 times that of a plain loop. That loop is written out below
and timed too, with the optimizer that recovery uses (`fused`, in one pass over the weights) and
with torch's default, so that what the trainer costs beside the mask is seen as well. Recovery is
the whole of it: loading, checks of loss and masks, moments made anew. Trainings take turns, on one
thread; a ratio is the median of the ratios to the other training of the same round.

Memory is that of processes of their own, from the first forward pass on: how far the resident set
grows above what it was before the network was made. The job's recovery is that of a job by
magnitude, with all that the job holds meanwhile.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.common import save, table, turns
from pruning.checkpoint import Checkpoints
from pruning.curvature.losses import LOSSES, required
from pruning.data.batches import ArrayData, Data
from pruning.job import prepare
from pruning.layers import FlatWeights, find_prunable
from pruning.progress import Narrator
from pruning.recovery.fine_tune import recover
from pruning.recovery.masking import Masking
from pruning.recovery.setting import Setting
from pruning.spec import Adam, FineTune, Scope, parse_spec
from pruning.step import recover as recover_job
from pruning.step import remove, start

BATCH, SAMPLES, EPOCHS, ROUNDS = 64, 2048, 2, 9
SPARSITY = 0.9
TIME, MEMORY, PROCESSES = 1.05, 1.1, 3
UNPRUNED = "the same without a mask"
WIDTH = 4500
"""Of the network whose memory is measured: 24 million weights."""


def lenet_300_100() -> nn.Module:
    """LeNet-300-100 with ReLU."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 300), nn.ReLU()),
        *(nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def cnn() -> nn.Module:
    """Three convolutions with BatchNorm and a head; 0.1 million weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
        nn.Linear(64 * 49, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


def wide() -> nn.Module:
    """A network of which the weights are almost all."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, WIDTH), nn.ReLU()),
        *(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)),
    )


def images(count: int) -> ArrayData:
    """Random images of 28 x 28 with labels."""
    return ArrayData({"x": torch.randn(count, 1, 28, 28)}, torch.randint(10, (count,)))


def plain(module: nn.Module, data: ArrayData, *, fused: bool) -> Callable[[], None]:
    """A training as one writes it."""
    target = required(data.target, LOSSES["cross_entropy"])

    def training() -> None:
        optimizer = torch.optim.Adam(module.parameters(), 1e-3, fused=fused)
        module.train()
        for _ in range(EPOCHS):
            for index in torch.randperm(data.samples).split(BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(module(data.inputs["x"][index]), target[index]).backward()
                optimizer.step()

    return training


def recovered(module: nn.Module, data: ArrayData, *, pruned: bool = True) -> Callable[[], None]:
    """Recovery under the mask, or without any."""
    weights = FlatWeights(find_prunable(module, Scope()))
    kept = torch.rand(len(weights)) >= SPARSITY
    options = FineTune(epochs=EPOCHS, batch_size=BATCH, optimizer=Adam())

    def training() -> None:
        masks = weights.by_layer(kept) if pruned else ()
        masking = Masking((p.weight, part) for p, part in masks)
        recover(Setting(module, data, LOSSES["cross_entropy"], masking, 0), options)

    return training


def times(make: Callable[[], nn.Module]) -> dict[str, float]:
    """Milliseconds of a step, and the ratios of recovery to the other trainings."""
    data = images(SAMPLES)
    runs = {
        "plain": plain(make(), data, fused=True),
        "plain, torch's default": plain(make(), data, fused=False),
        UNPRUNED: recovered(make(), data, pruned=False),
        "recovery": recovered(make(), data),
    }
    seconds = turns(runs, ROUNDS)
    steps = EPOCHS * SAMPLES / BATCH
    found = {name: 1000 * statistics.median(values) / steps for name, values in seconds.items()}
    for name in [name for name in runs if name != "recovery"]:
        pairs = zip(seconds["recovery"], seconds[name], strict=True)
        found[f"ratio to {name}"] = statistics.median(a / b for a, b in pairs)
    return found


def resident(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise ValueError(field)


def peak(module: nn.Module, run: Callable[[], None]) -> int:
    """The resident set's highest point from the first forward pass to the end, in bytes."""

    def forget(*_: object) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        hook.remove()

    hook = module.register_forward_pre_hook(forget)
    run()
    return resident("VmHWM")


def of_job(module: nn.Module, data: ArrayData) -> Callable[[], None]:
    """The recovery of a job whose weights have been removed."""
    spec = {
        "criterion": {"kind": "magnitude"},
        "target": {"sparsity": SPARSITY},
        "schedule": {"kind": "one_shot", "recomputations": 1},
        "recovery": {"kind": "fine_tune", "epochs": EPOCHS, "optimizer": {"kind": "adam"}},
        "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    }
    roles = Data(data, data, data)
    job = prepare(module, roles, parse_spec(spec), facts=None, narrator=Narrator())
    store = Checkpoints(None, job)
    state = start(job, store)
    remove(job, state, job.steps[-1], store)
    return lambda: recover_job(job, state)


WAYS: dict[str, Callable[[nn.Module, ArrayData], Callable[[], None]]] = {
    "plain": lambda module, data: plain(module, data, fused=True),
    "recovery": recovered,
    "job": of_job,
}


def measured(way: str) -> int:
    """Bytes by which a process grows: network, data, gradients, moments, and the way's own."""
    for make in WAYS.values():
        make(lenet_300_100(), images(BATCH))()  # code that is loaded at first use belongs to none
    before = resident("VmRSS")
    data, module = images(BATCH * 2), wide()
    return peak(module, WAYS[way](module, data)) - before


def memory() -> dict[str, float]:
    """MiB by way, the median of processes of their own, and the ratios to the plain loop."""
    grown: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in list(WAYS) * PROCESSES:
        command = [sys.executable, "-m", "benchmarks.recovery_cost", way]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        grown[way].append(json.loads(text) / 2**20)
    found = {way: statistics.median(values) for way, values in grown.items()}
    for way in ("recovery", "job"):
        found[f"ratio of {way}"] = found[way] / found["plain"]
    return found


def run() -> bool:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    results = {"LeNet-300-100": times(lenet_300_100), "CNN": times(cnn)}
    for name, found in results.items():
        table([[k, v] for k, v in found.items()], [name, "ms, ratio"])
    grown = memory()
    table([[k, v] for k, v in grown.items()], ["memory", "MiB, ratio"])
    slowest = max(found[f"ratio to {UNPRUNED}"] for found in results.values())
    most = max(grown["ratio of recovery"], grown["ratio of job"])
    figures = {
        "time of a step": {"value": slowest, "limit": TIME},
        "peak memory": {"value": most, "limit": MEMORY},
    }
    save(
        "recovery_cost",
        {"threads": torch.get_num_threads(), "milliseconds": results, "MiB": grown,
         "figures": figures},
    )  # fmt: skip
    return slowest <= TIME and most <= MEMORY


if __name__ == "__main__":
    torch.manual_seed(0)
    print(measured(sys.argv[1]))

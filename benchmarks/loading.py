"""Loading beside computing: a training over shuffled batches against one that has nothing to load.

The figure: a step with real loading takes at most 1.05 times as long as the same step over batches
that were gathered, and lie on the device, before the clock starts. They are as many as an epoch
has: one batch over and over would stay in the processor's cache, which no training's data do.
Images of 3 x 96 x 96, gathered from an array of them in a random order that is drawn anew each
epoch, through a small convolutional network. The loops are written out below and differ in where
batches come from alone; they take turns, epoch by epoch, and the ratio is the median of the ratios
of a round. What gathering alone takes is told beside it, and what a thread that gathers ahead makes
of it, which on a CPU is only used where a core is free.
"""

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from benchmarks.common import save, table, turns
from pruning.data.batches import ArrayData, Batch
from pruning.data.prefetch import prefetched

BATCH, SAMPLES, SIDE, ROUNDS = 64, 1024, 96, 9
LIMIT = 1.05
BEFORE = "gathered before"


def network() -> nn.Module:
    """Four convolutions and a head."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def training(device: torch.device, batches: Callable[[], Iterator[Batch]]) -> Callable[[], None]:
    """An epoch over what `batches` gives."""
    torch.manual_seed(0)
    module = network().to(device)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)

    def epoch() -> None:
        for inputs, target in batches():
            assert target is not None
            optimizer.zero_grad()
            functional.cross_entropy(module(*inputs), target).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return epoch


def run() -> bool:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    g = torch.Generator().manual_seed(0)
    images = torch.randn(SAMPLES, 3, SIDE, SIDE, generator=g)
    data = ArrayData({"x": images}, torch.randint(10, (SAMPLES,), generator=g))
    order = torch.randperm(SAMPLES, generator=g)
    gathered = list(prefetched(data, order, BATCH, device, ahead=False))

    def loaded(ahead: bool | None) -> Callable[[], Iterator[Batch]]:
        return lambda: prefetched(
            data, torch.randperm(SAMPLES, generator=g), BATCH, device, ahead=ahead
        )

    def before() -> Iterator[Batch]:
        return iter(gathered)

    def one() -> Iterator[Batch]:
        return (gathered[0] for _ in gathered)

    def alone() -> None:
        for _ in loaded(False)():
            pass

    runs = {
        BEFORE: training(device, before),
        "one batch again and again": training(device, one),
        "loaded": training(device, loaded(None)),
        "loaded by a thread": training(device, loaded(True)),
        "loaded without": training(device, loaded(False)),
        "gathering alone": alone,
    }
    seconds = turns(runs, ROUNDS)
    steps = SAMPLES / BATCH
    found = {name: 1000 * statistics.median(values) / steps for name, values in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds[BEFORE], strict=True))
        for name in runs
    }
    table([[name, found[name], ratios[name]] for name in runs], ["batches", "ms a step", "ratio"])
    save(
        "loading",
        {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "milliseconds": found,
            "ratios": ratios,
            "figures": {"time of a step": {"value": ratios["loaded"], "limit": LIMIT}},
        },
    )
    return ratios["loaded"] <= LIMIT

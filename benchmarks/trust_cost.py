"""What trust takes beside the rest of a job, by the clock and as counted.

The count (`pruning.trust.work`) decides what trust leaves out, since no clock may decide what is in
a report. The figures: with `trust: {budget: auto}` trust takes at most LIMIT times as much CPU time
as the rest of the job, or less than SECONDS; and where all of it takes longer than that, a counted
operation takes about as long in trust as in the rest, within a factor of FACTOR. One thread, CPU
time; a job before the first one counted does the imports.
"""

import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import save, table
from pruning import prune
from pruning.data.batches import ArrayData, Data

LIMIT, SECONDS, FACTOR = 1.5, 1.0, 4.0
CRITERIA = {
    "64-32-10": ("magnitude", "obd", "obs"),
    "LeNet-5": ("magnitude", "obd"),
    "encoder": ("magnitude", "obd"),
}
NOTHING = {"checks": False, "bootstrap": 0, "ladder": False}


class _Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, width] to [N, width]."""
        return x.mean(1)


def _networks() -> dict[str, tuple[nn.Module, Tensor, int]]:
    torch.manual_seed(0)
    digits = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 10)),
    )
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    sequences = nn.Sequential(nn.TransformerEncoder(layer, 2), _Mean(), nn.Linear(64, 10))
    return {
        "64-32-10": (digits, torch.randn(1_347, 64), 10),
        "LeNet-5": (images, torch.randn(200, 1, 28, 28), 10),
        "encoder": (sequences, torch.randn(100, 16, 64), 10),
    }


def _job(module: nn.Module, data: Data, criterion: str, trust: dict[str, Any]) -> tuple[float, Any]:
    spec = {
        "criterion": {"kind": criterion},
        "target": {"sparsity": 0.8},
        "comparison": {"criteria": []},
        "trust": trust,
    }
    began = time.process_time()
    report = prune(module, data, spec).report
    return time.process_time() - began, report


def run() -> bool:
    """Whether all figures hold."""
    torch.set_num_threads(1)
    rows, results, held = [], [], True
    for name, (module, x, classes) in _networks().items():
        arrays = ArrayData({"x": x}, torch.randint(classes, (len(x),)))
        data = Data(arrays, arrays, arrays)
        if not rows:
            _job(module.eval(), data, "obs", {"budget": "all"})
        for criterion in CRITERIA[name]:
            rest, _ = _job(module.eval(), data, criterion, NOTHING)
            whole, report = _job(module.eval(), data, criterion, {"budget": "auto"})
            everything, full = _job(module.eval(), data, criterion, {"budget": "all"})
            took, counted = whole - rest, full.trust.operations / report.trust.rest
            clock = (everything - rest) / rest
            within = took <= max(SECONDS, LIMIT * rest)
            tells = max(counted / clock, clock / counted) <= FACTOR or everything - rest < SECONDS
            held &= within and tells
            left = [found.part for found in report.trust.left_out]
            results.append({
                "network": name, "criterion": criterion, "rest_seconds": rest,
                "trust_seconds": took, "all_seconds": everything - rest,
                "all_counted_by_rest": counted, "all_timed_by_rest": clock, "left_out": left,
            })  # fmt: skip
            rows.append([name, criterion, rest, took, everything - rest, counted, clock, len(left)])
    header = ["network", "criterion", "rest s", "trust s", "all s", "all/rest counted", "timed",
              "left out"]  # fmt: skip
    table(rows, header)
    save("trust_cost", {"jobs": results})
    return held

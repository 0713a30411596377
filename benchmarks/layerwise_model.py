"""A real sentence encoder pruned layer by layer without labels: how much of its meaning stays.

all-MiniLM-L6-v2, its 36 encoder layers calibrated on 134 texts of up to 128 tokens; the figure is
the mean cosine of the pruned and the dense model's embeddings of other texts: at least .965 with
half of the weights gone and .88 with 70 %.
"""

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import minilm
from benchmarks.common import save, table
from pruning import prune
from pruning.data.batches import ArrayData, Data

CALIBRATION, HELD_OUT = 134, 200
FIGURES = {0.5: 0.965, 0.7: 0.88}
WAYS: dict[str, dict[str, Any]] = {
    "uniform": {"allocation": {"kind": "uniform"}},
    "global": {"allocation": {"kind": "global"}},
}


class Encoder(nn.Module):
    """The encoder as it is served: token ids and attention mask to an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.net = minilm.model()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[n, t] twice to [n, 384]."""
        return self.net(input_ids * attention_mask)  # type: ignore[no-any-return]


def texts(count: int, *, held_out: bool = False) -> ArrayData:
    """Token ids and attention mask of so many texts."""
    ids = minilm.tokens(count, held_out=held_out)
    return ArrayData({"input_ids": ids, "attention_mask": (ids != 0).long()})


@torch.no_grad()
def cosine(dense: nn.Module, pruned: nn.Module, data: ArrayData) -> float:
    """Mean cosine of both models' embeddings, which have length 1."""
    sums = [(dense(*inputs) * pruned(*inputs)).sum(1).double() for inputs, _ in data.batches(32)]
    return float(torch.cat(sums).mean())


def measure(dense: nn.Module, sparsity: float, parts: dict[str, Any]) -> dict[str, Any]:
    """Prune as a job does, and compare embeddings of held-out texts."""
    calibration, held = texts(CALIBRATION), texts(HELD_OUT, held_out=True)
    compensation = {"kind": "layerwise", **parts.get("compensation", {})}
    spec = {
        "objective": {"loss": "match_dense"},
        "target": {"sparsity": sparsity},
        "trust": {"checks": False},
        **parts,
        "compensation": compensation,
    }
    begin = time.perf_counter()
    outcome = prune(dense, Data(calibration, calibration, held), spec)
    seconds = time.perf_counter() - begin
    errors = [o.relative_error for o in outcome.report.layer_outputs]
    return {
        "sparsity": outcome.report.sparsity.achieved,
        "cosine": cosine(dense, outcome.module, held),
        "seconds": seconds,
        "mean_layer_error": statistics.fmean(e for e in errors if e is not None),
        "timings": outcome.report.timings,
    }


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    dense, rows, results = Encoder().eval(), [], []
    held = True
    for sparsity, least in FIGURES.items():
        for name, parts in WAYS.items():
            found = measure(dense, sparsity, parts)
            results.append({"way": name, **found})
            rows.append([name, sparsity, found["cosine"], found["mean_layer_error"],
                         found["seconds"]])  # fmt: skip
        best = max(r["cosine"] for r in results if abs(r["sparsity"] - sparsity) < 1e-3)
        held &= best >= least
        print(f"{sparsity:.0%}: best cosine {best:.4f}, figure {least}", flush=True)
    table(rows, ["allocation", "sparsity", "mean cosine", "mean layer error", "seconds"])
    print(f"figure {'held' if held else 'MISSED'}")
    save("layerwise_model", {"results": results, "held": held})
    return held

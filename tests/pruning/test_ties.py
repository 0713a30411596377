"""All weights equal: exactly k go for any k, over several steps, by every kind of second order."""

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.data.batches import ArrayData, Data

torch.set_num_threads(1)

DATA = ArrayData({"x": torch.ones(12, 4)}, torch.arange(12) % 3)
WITHOUT_CURVATURE = [
    {"kind": "magnitude"},
    {"kind": "wanda"},
    {"kind": "obd"},
    {"kind": "obd", "curvature": "hessian_diagonal"},
    {"kind": "obd", "curvature": "empirical_fisher"},
]
INVERSES = [
    {"kind": "obs", "inverse": "kfac"},
    *(
        {"kind": "obs", "inverse": i, "damping": 0.1}
        for i in ("full", "block_fisher", "low_rank", "kfac", "ekfac")
    ),
]
SCHEDULES = {
    "one_shot": {"kind": "one_shot", "recomputations": 3},
    "rounds": {"kind": "rounds", "rounds": 2},
}


def run(criterion, schedule, sparsity, allocation="global"):
    """35 weights of 0.4; a hidden unit dies as soon as the head's weights for it are gone."""
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    for p in module.parameters():
        p.data.fill_(0.4)
    asked = {
        "criterion": criterion,
        "schedule": schedule,
        "target": {"sparsity": sparsity},
        "allocation": {"kind": allocation},
        "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    }
    return prune(module, Data(DATA, DATA, DATA), asked)


def exact(outcome, count):
    parameters = dict(outcome.module.named_parameters())
    gone = sum(int((~m).sum()) for m in outcome.masks.values())
    zeros = sum(int((parameters[k][~m] == 0).sum()) for k, m in outcome.masks.items())
    assert gone == zeros == outcome.report.sparsity.removed == count
    assert sum(r.removed for r in outcome.report.rounds) == count


@pytest.mark.parametrize("sparsity", [0.5, 0.97])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_exactly_k_of_equal_weights_go_without_an_inverse(allocation, schedule, sparsity):
    for criterion in WITHOUT_CURVATURE:
        outcome = run(criterion, SCHEDULES[schedule], sparsity, allocation)
        exact(outcome, int(35 * sparsity + 0.5))
        assert not any(r.without_curvature for r in outcome.report.rounds)


@pytest.mark.parametrize("criterion", INVERSES, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("sparsity", [0.8, 0.97])
def test_exactly_k_of_equal_weights_go_with_every_inverse(criterion, sparsity):
    for schedule, allocation in (("one_shot", "global"), ("rounds", "uniform")):
        outcome = run(criterion, SCHEDULES[schedule], sparsity, allocation)
        exact(outcome, int(35 * sparsity + 0.5))
        told = [w for w in outcome.report.warnings if w.code == "without_curvature"]
        assert bool(told) == any(r.without_curvature for r in outcome.report.rounds)


def test_exactly_k_of_equal_weights_go_one_by_one():
    outcome = run({"kind": "obs"}, {"kind": "one_by_one", "recompute": 5}, 0.97)
    exact(outcome, 34)

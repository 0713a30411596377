"""Curvature that draws takes its draws from the spec's seed, in every step and after a resume."""

import shutil

import pytest
import torch

from pruning import prune
from pruning.catalogue import criteria
from pruning.criteria import Problem, obs
from pruning.curvature import ggn_mc, hutchinson, low_rank
from pruning.data.batches import Data
from pruning.report.schema import results_json
from tests.oracle import cases

torch.set_num_threads(1)

DRAWN = {
    "ggn_mc": {"kind": "obd", "curvature": "ggn_mc", "samples": 2},
    "hutchinson": {"kind": "obd", "curvature": "hutchinson", "probes": 3},
    "low_rank": {"kind": "obs", "inverse": "low_rank", "gradients": 6, "damping": 0.1},
}
MODULES = {"ggn_mc": ggn_mc, "hutchinson": hutchinson, "low_rank": low_rank}
PARAMETERS = {"ggn_mc": {"samples": 2}, "hutchinson": {"probes": 3}, "low_rank": {"samples": 6}}


def run(case, kind, seed, recomputations=1, **parts):
    asked = {
        "objective": {"loss": case.loss.name},
        "criterion": DRAWN[kind],
        "schedule": {"kind": "one_shot", "recomputations": recomputations},
        "seed": seed,
    }
    return prune(case.module, Data(case.data, case.data, case.data), asked, **parts)


def expected_scores(case, kind, seed):
    active = torch.arange(len(case.weights))
    curvature = MODULES[kind].compute(
        case.network, case.data, case.loss, active, seed=seed, **PARAMETERS[kind]
    )
    if kind != "low_rank":
        return 0.5 * curvature.values * case.weights.read().square()
    damping = 0.1 * float(curvature.diagonal().mean())
    declared = criteria()["obs"].model_validate(DRAWN[kind])
    return obs.score(Problem(case.weights.read(), curvature, damping, criterion=declared))


@pytest.mark.parametrize("kind", DRAWN)
def test_the_seed_of_the_spec_decides_what_is_drawn(kind):
    case = cases.make("mlp-cross_entropy", samples=30)
    found = set()
    for seed in (0, 1, 2):
        outcome = run(case, kind, seed)
        kept = torch.cat([m.flatten() for m in outcome.masks.values()])
        scores = expected_scores(case, kind, seed)
        removed = scores.argsort(stable=True)[: outcome.report.sparsity.removed]
        assert not kept[removed].any()
        found.add(tuple(kept.tolist()))
    assert len(found) > 1


@pytest.mark.parametrize("kind", DRAWN)
def test_a_resumed_job_draws_what_it_would_have_drawn(kind, tmp_path):
    case = cases.make("mlp-cross_entropy", samples=30)
    whole = run(case, kind, 3, 3, checkpoints=tmp_path / "all")
    for kept in (1, 2, 3):
        folder = tmp_path / f"after-{kept}"
        folder.mkdir()
        shutil.copy(tmp_path / "all" / f"round-{kept}.safetensors", folder)
        again = run(case, kind, 3, 3, checkpoints=folder)
        assert results_json(again.report) == results_json(whole.report)
        assert all(torch.equal(again.masks[k], m) for k, m in whole.masks.items())


@pytest.mark.parametrize("kind", ["ggn_mc", "hutchinson"])
def test_the_bootstrap_draws_by_the_seed_too(kind):
    case = cases.make("mlp-cross_entropy", samples=30)
    first, again, other = (run(case, kind, seed).report.trust.bootstrap for seed in (4, 4, 5))
    assert first.resamples > 0
    assert first == again
    assert first.layers != other.layers

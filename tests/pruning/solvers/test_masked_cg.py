"""Conjugate gradients on a support against solving each row."""

import pytest
import torch

from pruning.solvers import masked_cg
from tests.pruning.solvers.layer_cases import best_on, curvature, problem

torch.set_num_threads(1)


def start(seed, dtype=torch.float64):
    p = problem(seed=seed, dtype=dtype)
    removed = torch.rand(p.aim.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    return p, curvature(p).to(dtype), removed


@pytest.mark.parametrize("seed", range(3))
def test_as_many_steps_as_it_takes_give_the_best_weights_on_the_support(seed):
    p, h, removed = start(seed)
    weight = masked_cg.improve(h, p.aim, p.aim, removed, 80)
    torch.testing.assert_close(weight, best_on(p, removed), rtol=1e-8, atol=1e-8)
    assert not weight[removed].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_step_raises_the_error_of_a_row(dtype):
    p, h, removed = start(0, dtype)

    def errors(steps):
        change = (masked_cg.improve(h, p.aim, p.aim, removed, steps) - p.aim).double()
        return ((change @ h.double()) * change).sum(-1)

    last = errors(0)
    for steps in range(1, 40):
        now = errors(steps)
        assert (now <= last * (1 + 1e-5 if dtype == torch.float32 else 1 + 1e-12)).all()
        last = now


def test_rows_that_lost_nothing_or_everything_stand_still():
    p, h, removed = start(1)
    removed[:, 0], removed[:, 1] = False, True
    weight = masked_cg.improve(h, p.aim, p.aim, removed, 50)
    assert torch.equal(weight[:, 0], p.aim[:, 0])
    assert not weight[:, 1].any()
    assert weight.isfinite().all()


def test_the_start_is_left_as_it_was():
    p, h, removed = start(2)
    before = p.aim.clone()
    masked_cg.improve(h, p.aim, p.aim, removed, 3)
    assert torch.equal(p.aim, before)

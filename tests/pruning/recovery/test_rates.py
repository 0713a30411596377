"""Rates against torch's schedulers and closed forms."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from pruning.recovery.rates import factor
from pruning.spec.recovery import Constant, Cosine, OneCycle


def by_torch(total, make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def ours(rates, total):
    return [factor(rates, step, total) for step in range(total)]


@pytest.mark.parametrize("total", [2, 7, 100])
@pytest.mark.parametrize("final", [0.0, 0.3])
def test_cosine_is_that_of_torch(total, final):
    theirs = by_torch(total, lambda o: lr_scheduler.CosineAnnealingLR(o, total, eta_min=final))
    assert ours(Cosine(final=final), total) == pytest.approx(theirs, abs=1e-12)


def test_warm_up_then_cosine_is_that_of_torch():
    def make(o):
        rise = lr_scheduler.LambdaLR(o, lambda t: (t + 1) / 20)
        return lr_scheduler.SequentialLR(o, [rise, lr_scheduler.CosineAnnealingLR(o, 80)], [20])

    assert ours(Cosine(warmup=0.2), 100) == pytest.approx(by_torch(100, make), abs=1e-12)


@pytest.mark.parametrize("total", [10, 77, 1000])
@pytest.mark.parametrize("warmup", [0.3, 0.55])
@pytest.mark.parametrize("final", [1e-4, 0.2])
def test_one_cycle_is_that_of_torch(total, warmup, final):
    def make(o):
        return lr_scheduler.OneCycleLR(
            o, 1.0, total, pct_start=warmup, cycle_momentum=False,
            div_factor=25.0, final_div_factor=1 / (25 * final),
        )  # fmt: skip

    theirs = by_torch(total, make)
    assert ours(OneCycle(warmup=warmup, final=final), total) == pytest.approx(theirs, abs=1e-12)


def test_one_cycle_begins_and_ends_where_it_says():
    found = ours(OneCycle(final=0.0), 50)
    assert (found[0], max(found), found[14], found[-1]) == pytest.approx((1 / 25, 1, 1, 0))


def test_constant_rises_over_its_warm_up_and_stays():
    found = ours(Constant(warmup=0.25), 16)
    assert found == [0.25, 0.5, 0.75, 1.0, *[1.0] * 12]
    assert ours(Constant(), 3) == [1.0] * 3


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize(
    "rates", [Constant(warmup=0.9), Cosine(warmup=0.9), OneCycle(), OneCycle(warmup=0.9)]
)
def test_trainings_of_few_steps_have_rates_between_zero_and_one(rates, total):
    found = ours(rates, total)
    assert all(math.isfinite(v) and 0.0 < v <= 1.0 for v in found[:1])
    assert all(0.0 <= v <= 1.0 for v in found)

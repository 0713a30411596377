"""Influence between samples shows in a few batches, however small it is beside the results."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from pruning.influence import apart, close, orders

SIZES = [(5, None), (4, None), (3, None), (2, None), (6, 2), (9, 3), (8, 4)]


def tries(function: Callable[[Tensor], Tensor], x: Tensor, batch: int | None):
    return [(function(x[order]), order) for order in orders(len(x), batch)]


@pytest.mark.parametrize(("samples", "batch"), SIZES)
def test_what_goes_by_samples_is_apart(samples, batch):
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(0))
    assert apart(tries(lambda x: x @ x.new_ones(6, 3), x, batch), 0)


@pytest.mark.parametrize(("samples", "batch"), SIZES)
@pytest.mark.parametrize("reduced", ["amax", "amin", "mean", "std"])
def test_what_the_batch_decides_is_seen_whichever_sample_decides_it(reduced, samples, batch):
    plain = torch.randn(samples, 6, generator=torch.Generator().manual_seed(0))
    few = min(samples, 4)
    for order in permutations(range(few)):
        sized = plain.clone()
        sized[:few] = (plain[:few] * torch.tensor([1.0, 2, 3, 4])[:few, None])[list(order)]
        mixed = tries(lambda x: x / (getattr(x, reduced)() + 9), sized, batch)
        assert not apart(mixed, 0), order


@pytest.mark.parametrize(("size", "shift"), [(1e-9, 0.0), (1.0, 1000.0), (1e-3, 1.0)])
def test_an_influence_is_held_against_how_far_samples_lie_apart(size, shift):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert apart(tries(lambda x: x * size + shift, x, None), 0)
    assert not apart(tries(lambda x: (x - x.mean(0)) * size + shift, x, None), 0)


def test_rounding_is_no_influence():
    x = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    w = torch.randn(512, 512, generator=torch.Generator().manual_seed(1))

    def deep(x: Tensor) -> Tensor:
        for _ in range(8):
            x = torch.tanh(x @ w / 16)
        return x

    assert apart(tries(deep, x, None), 0)


def test_results_that_are_not_finite_in_the_same_places_are_the_same():
    a = torch.tensor([1.0, float("nan"), float("inf")])
    assert close(a, a.clone())
    assert not close(a, torch.tensor([1.0, 2.0, float("inf")]))
    assert not close(torch.tensor([1, 2]), torch.tensor([1, 3]))

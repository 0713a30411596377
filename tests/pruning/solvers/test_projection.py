"""Which entries go: those of least squares, exactly so many, or about so many in between."""

import pytest
import torch

from pruning.solvers import layer_patterns as patterns
from pruning.solvers import projection
from pruning.solvers.layer import LayerProblem, Pattern
from tests.pruning.solvers.layer_cases import PATTERNS, problem

torch.set_num_threads(1)


@pytest.mark.parametrize("name", PATTERNS)
def test_what_goes_is_worth_no_more_than_what_stays(name):
    p = problem(PATTERNS[name])
    squares = p.aim.square()
    removed = projection.support(squares, p)
    assert int(removed.sum()) == p.count
    worth = patterns.into_groups(squares, p.pattern)
    gone = patterns.into_groups(removed, p.pattern)
    if p.pattern.kind == "nm":
        assert (worth.masked_fill(~gone, 0).amax(-1) <= worth.masked_fill(gone, 9e9).amin(-1)).all()
    else:
        assert worth.sum(-1)[gone[..., 0]].max() <= worth.sum(-1)[~gone[..., 0]].min()


@pytest.mark.parametrize("name", PATTERNS)
def test_of_small_layers_the_estimate_is_exact(name):
    gone = torch.zeros(2, 8, 24, dtype=torch.bool)
    gone[:, :4, :4] = name != "2:4"
    p = problem(PATTERNS[name], gone=gone)
    squares = p.aim.square()
    assert torch.equal(projection.nearly(squares, p), projection.support(squares, p))


@pytest.mark.parametrize("width", [4, 32])
def test_ties_within_groups_go_by_position(width):
    pattern = Pattern("nm", 1, width, width // 2)
    aim = torch.ones(1, 3, 64)
    p = LayerProblem(aim, torch.eye(64)[None], 0.01, 96, pattern)
    expected = (torch.arange(64) % width < width // 2).expand(1, 3, 64)
    assert torch.equal(projection.nearly(aim, p), expected)
    assert torch.equal(projection.support(aim, p), expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_large_layers_the_estimate_is_off_by_little(share):
    aim = torch.randn(1, 300, 1536, generator=torch.Generator().manual_seed(0))
    p = LayerProblem(aim, torch.eye(1)[None], 0.01, int(aim.numel() * share))
    squares = aim.square()
    assert int(projection.support(squares, p).sum()) == p.count
    off = int(projection.nearly(squares, p).sum()) - p.count
    assert abs(off) < 0.01 * aim.numel()

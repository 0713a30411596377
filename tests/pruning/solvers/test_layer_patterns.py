"""Which combinations of pattern, layer and count are refused, and exact choices."""

import pytest
import torch

from pruning.errors import SecateurError
from pruning.solvers import greedy_rows, sparsegpt
from pruning.solvers import layer_patterns as patterns
from pruning.solvers.layer import LayerProblem, Pattern


def layer(pattern, count, shape=(1, 8, 24), gone=None):
    eye = torch.eye(shape[2]).expand(shape[0], -1, -1)
    return LayerProblem(torch.ones(shape), eye, 0.01, count, pattern, gone)


def half_gone():
    gone = torch.zeros(1, 8, 24, dtype=torch.bool)
    gone[0, 0, :2] = True
    return gone


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (layer(Pattern("rings"), 8), "spec_invalid"),
        (layer(Pattern("unstructured", 1, 4), 8), "spec_invalid"),
        (layer(Pattern("nm", 1, 4, 4), 0), "spec_invalid"),
        (layer(Pattern("nm", 1, 4, 0), 192), "spec_invalid"),
        (layer(Pattern("nm", 2, 4, 2), 96), "spec_invalid"),
        (layer(Pattern("block", 1, 4, 2), 96), "spec_invalid"),
        (layer(Pattern("nm", 1, 5, 2), 96), "spec_conflict"),
        (layer(Pattern("block", 16, 16), 96), "spec_conflict"),
        (layer(Pattern("block", 3, 1), 96), "spec_conflict"),
        (layer(Pattern("block", 1, 4), 96, gone=half_gone()), "spec_conflict"),
        (layer(Pattern("nm", 1, 4, 2), 95), "target_unreachable"),
        (layer(Pattern("block", 1, 4), 95), "target_unreachable"),
        (layer(Pattern(), 193), "target_unreachable"),
        (layer(Pattern(), -1), "target_unreachable"),
        (layer(Pattern(), 1, gone=half_gone()), "target_unreachable"),
    ],
    ids=lambda v: f"{v.pattern.kind}-{v.count}" if isinstance(v, LayerProblem) else v,
)
def test_what_does_not_fit_is_refused_with_advice(problem, code):
    for solver in (sparsegpt, greedy_rows):
        with pytest.raises(SecateurError) as caught:
            solver.solve(problem)
        assert caught.value.code == code
        assert caught.value.hint
        assert caught.value.where


@pytest.mark.parametrize("count", [0, 1, 3, 7, 12])
def test_smallest_are_exactly_so_many_by_value_then_position(count):
    scores = torch.tensor([2.0, 1.0, 1.0, 3.0, 1.0, -torch.inf, 2.0, 1.0, 5.0, 1.0, 2.0, 0.0])
    for shaped in (scores, scores.view(3, 4), scores.view(4, 3).T.contiguous().T):
        gone = patterns.smallest(shaped, count)
        expected = shaped.flatten().argsort(stable=True)[:count]
        assert gone.flatten().nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_scores_that_are_no_numbers_have_no_rank():
    for call in (
        lambda s: patterns.smallest(s, 1),
        lambda s: patterns.smallest_of_each(s, 1, torch.zeros_like(s, dtype=torch.bool), 0),
    ):
        with pytest.raises(SecateurError) as caught:
            call(torch.tensor([0.0, torch.nan]))
        assert caught.value.code == "loss_non_finite"


def test_groups_hold_the_entries_of_a_block():
    values = torch.arange(2 * 4 * 6).view(2, 4, 6)
    groups = patterns.into_groups(values, Pattern("block", 2, 3))
    assert groups.shape == (2, 2, 2, 6)
    assert groups[0, 0, 1].tolist() == [3, 4, 5, 9, 10, 11]
    assert groups[1, 1, 0].tolist() == [36, 37, 38, 42, 43, 44]
    back = patterns.from_groups(groups.amin(3), Pattern("block", 2, 3))
    assert back.shape == values.shape
    assert back[0, 1].tolist() == [0, 0, 0, 3, 3, 3]

"""MONK's problems: what Hassibi and Stork 1992 showed of OBS, OBD and magnitude."""

import pytest
import torch

from benchmarks import monks

torch.set_num_threads(1)
KINDS = {1: ("obs",), 2: ("obs", "obd", "magnitude"), 3: ("obs",)}


@pytest.mark.parametrize(("number", "positive"), [(1, 216), (2, 142), (3, 228)])
def test_the_points_are_those_of_the_rules(number: int, positive: int):
    """432 points; the counts of positive ones are those of Thrun et al. 1991."""
    data = monks.problem(number)
    assert data.samples == 432
    assert len(data.inputs["x"].unique(dim=0)) == 432
    assert (data.inputs["x"].sum(1) == 6).all()
    assert int(data.target.sum()) == positive


def test_weights_left_when_the_first_answer_goes_wrong():
    left = {number: monks.measure(number, kinds) for number, kinds in KINDS.items()}
    missed = [name for name, holds in monks.figures(left).items() if not holds]
    assert not missed, left

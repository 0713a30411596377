"""`pruning.prune` uses the threads that torch was told, or those of SECATEUR_THREADS."""

import pytest
import torch

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, same_roles

torch.set_num_threads(1)


def test_the_variable_counts_inside_and_nothing_is_left_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_THREADS", "2")
    report = prune(Net(), same_roles(), MAGNITUDE).report
    assert report.environment.threads == 2
    assert torch.get_num_threads() == 1


def test_without_it_the_number_that_torch_was_told_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SECATEUR_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # too late: torch has been told otherwise since
    assert prune(Net(), same_roles(), MAGNITUDE).report.environment.threads == 1


def test_a_wrong_number_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_THREADS", "half")
    with pytest.raises(SecateurError) as refused:
        prune(Net(), same_roles(), MAGNITUDE)
    assert (refused.value.code, refused.value.where) == ("usage", "SECATEUR_THREADS")

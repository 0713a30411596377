"""How often a job multiplies by the Hessian: once a step, however many layers there are."""

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.curvature import products
from pruning.data.batches import ArrayData, Data

torch.set_num_threads(1)
NOTHING = {"checks": False, "bootstrap": 0, "ladder": False}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The directions of all products, one entry for each pass over the data."""
    found: list[torch.Tensor] = []
    product = products.gradient_and_products

    def counted(network, data, loss, vectors):
        found.append(vectors)
        return product(network, data, loss, vectors)

    monkeypatch.setattr(products, "gradient_and_products", counted)
    return found


def report(criterion: str, trust: dict, **schedule):
    torch.manual_seed(0)
    layers = [nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)]
    data = ArrayData({"x": torch.randn(90, 8).double()}, torch.randint(3, (90,)))
    spec = {
        "criterion": {"kind": criterion},
        "target": {"sparsity": 0.6},
        "trust": trust,
        "comparison": {"criteria": []},
        "schedule": {"kind": "one_shot", **schedule},
    }
    return prune(nn.Sequential(*layers).double(), Data(data, data, data), spec).report


@pytest.mark.parametrize(("criterion", "steps"), [("magnitude", 1), ("random", 1), ("obd", 4)])
def test_a_step_takes_one_product(taken: list[torch.Tensor], criterion: str, steps: int):
    found = report(criterion, NOTHING)
    assert len(found.rounds) == steps
    assert [len(vectors) for vectors in taken] == [1] * steps
    shares = sum(layer.predicted_loss_increase for layer in found.layers)
    assert shares == pytest.approx(found.loss.predicted_increase, rel=1e-12)


def test_as_many_steps_as_are_asked_for_are_taken(taken: list[torch.Tensor]):
    assert len(report("magnitude", NOTHING, recomputations=3).rounds) == 3
    assert len(taken) == 3


def test_all_rungs_of_the_network_and_of_each_layer_share_one_pass(taken: list[torch.Tensor]):
    report("magnitude", NOTHING | {"ladder": True, "budget": "all"})
    ladder, step = taken
    # Of three layers, whose parts add up to the whole.
    assert (len(ladder), len(step)) == (30, 1)


@pytest.mark.parametrize("budget", ["all", "auto"])
def test_the_check_of_the_gradient_is_taken_along_with_the_ladder(
    taken: list[torch.Tensor], budget: str
):
    together = report("magnitude", NOTHING | {"checks": True, "ladder": True, "budget": budget})
    ladder, _ = taken
    assert len(ladder) == 31
    alone = report("magnitude", NOTHING | {"checks": True})
    assert [len(vectors) for vectors in taken[2:]] == [1, 1]
    by_name = {check.name: check for check in together.checks}
    name = "trust.gradient_term"
    assert by_name[name] == next(check for check in alone.checks if check.name == name)

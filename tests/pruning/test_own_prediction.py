"""What a criterion itself foretells: OBS for a set as a set, by its own damped matrix."""

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.curvature import compute
from pruning.data.batches import ArrayData, Data
from pruning.registry import method
from pruning.spec import parse_spec
from tests.oracle import cases

torch.set_num_threads(1)


def spec(loss, sparsity, **parts):
    return {"objective": {"loss": loss}, "target": {"sparsity": sparsity}, **parts}


@pytest.mark.parametrize("inverse", ["full", "kfac"])
def test_obs_predicts_a_set_as_a_set_and_not_as_a_sum_of_single_deletions(inverse):
    """At the minimum of a quadratic without damping the set's own cost is the truth."""
    torch.manual_seed(0)
    mixing = torch.randn(12, 12).double()
    x = torch.randn(200, 12).double() @ mixing
    y = x @ torch.randn(12, 3).double() + 0.3 * torch.randn(200, 3).double()
    module = nn.Linear(12, 3, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    data = ArrayData({"x": x}, y)
    asked = spec(
        "mse",
        0.6,
        criterion={"kind": "obs", "inverse": inverse, "damping": 0.0},
        schedule={"kind": "one_shot", "recomputations": 1},
    )
    report = prune(module, Data(data, data, data), asked).report
    measured = report.loss.measured_increase
    assert report.sparsity.removed > 1
    assert report.loss.criterion_predicted_increase == pytest.approx(measured, rel=1e-8)
    ladder = report.trust.ladder
    for rung in [*ladder.rungs, *ladder.layers[0].rungs]:
        assert rung.own == pytest.approx(rung.measured, rel=1e-8)
    assert ladder.own_holds_up_to == ladder.rungs[-1].sparsity


OWN_MATRICES = {
    "full": {"inverse": "full", "damping": 0.1},
    "block_fisher": {"inverse": "block_fisher", "block": 7, "damping": 0.1},
    "low_rank": {"inverse": "low_rank", "gradients": 6, "damping": 0.1},
    "kfac": {"inverse": "kfac", "damping": 0.1},
}


@pytest.mark.parametrize("compensation", ["obs", "none"])
@pytest.mark.parametrize("matrix", OWN_MATRICES)
def test_obs_predicts_by_the_quadratic_form_of_its_own_damped_matrix(matrix, compensation):
    case = cases.make("mlp-cross_entropy", samples=30)
    asked = spec(
        "cross_entropy",
        0.6,
        criterion={"kind": "obs", **OWN_MATRICES[matrix]},
        compensation={"kind": compensation},
        schedule={"kind": "one_shot", "recomputations": 1},
    )
    outcome = prune(case.module, Data(case.data, case.data, case.data), asked)
    everything = torch.arange(len(case.weights))
    declared = parse_spec(asked).criterion
    request = method("criteria", "obs").curvature(declared, len(everything))
    arguments = case.network, case.data, case.loss, everything, 0
    curvature = compute(request, *arguments)
    h = _dense(curvature, len(everything))
    h = h + 0.1 * curvature.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    pruned = dict(outcome.module.named_parameters())
    new = torch.cat([pruned[p.name].detach().flatten() for p in case.weights.layers])
    change = new - case.weights.read()
    expected = 0.5 * float(change @ h @ change)
    assert outcome.report.loss.criterion_predicted_increase == pytest.approx(expected, rel=1e-9)
    for index, layer in enumerate(outcome.report.trust.ladder.layers):
        part = torch.where(case.weights.group == index, change, 0.0)
        assert layer.rungs[-1].own == pytest.approx(0.5 * float(part @ h @ part), rel=1e-9)


def _dense(curvature, size):
    """The matrix, entry by entry, from its layout's own fields."""
    match type(curvature).__name__:
        case "Dense":
            return curvature.values
        case "LowRank":
            return curvature.rows.T @ curvature.rows
    dense = torch.zeros(size, size, dtype=torch.float64)
    if hasattr(curvature, "values"):
        for block, index in zip(curvature.values, curvature.index, strict=True):
            real = index >= 0
            at = index[real]
            dense[at[:, None], at] = block[real][:, real]
        return dense
    for block in curvature.blocks:
        basis = torch.kron(block.left, block.right)
        whole = basis @ torch.diag(block.scales.flatten()) @ basis.T
        at = block.position
        dense[block.index[:, None], block.index] = whole[at][:, at]
    return dense

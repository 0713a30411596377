"""Where criteria must agree: OBS, OBD and magnitude; ties; and the one exactly quadratic case."""

import pytest
import torch
from torch import nn

import pruning
from pruning import catalogue
from pruning.criteria import Problem
from pruning.curvature import full
from pruning.curvature.matrix import Dense, Diagonal
from pruning.curvature.network import Network
from pruning.curvature.quadratic import predict
from pruning.data.batches import ArrayData
from pruning.metrics import evaluate
from pruning.registry import method
from pruning.solvers import greedy, none, obs
from tests.oracle import cases

torch.set_num_threads(1)
N = 40
W = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
H = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1


def score(kind, matrix, damping=0.0):
    return method("criteria", kind).score(Problem(W, matrix, damping))


@pytest.mark.parametrize("count", [0, 1, 13, N - 1, N])
@pytest.mark.parametrize("matrix", [Dense(H.diag()), Diagonal(H)], ids=["dense", "diagonal"])
def test_obs_with_diagonal_curvature_is_obd_in_scores_choice_and_weights(matrix, count):
    obd = score("obd", Diagonal(H))
    torch.testing.assert_close(score("obs", matrix), obd, rtol=1e-12, atol=0)
    removed = method("patterns", "unstructured").smallest(score("obs", matrix), count)
    assert torch.equal(removed, method("patterns", "unstructured").smallest(obd, count))
    problem = Problem(W, matrix)
    torch.testing.assert_close(obs.compensate(problem, removed), none.compensate(problem, removed))
    if isinstance(matrix, Dense):
        path = greedy.path(problem, count)
        assert torch.equal(path.removed, removed)
        torch.testing.assert_close(path.scores, obd, rtol=1e-12, atol=0)


@pytest.mark.parametrize("c", [1e-9, 0.3, 1e6])
def test_obd_and_obs_with_curvature_c_i_rank_as_magnitude(c):
    order = score("magnitude", None).argsort(stable=True)
    assert torch.equal(score("obd", Diagonal(torch.full_like(W, c))).argsort(stable=True), order)
    eye = Dense(c * torch.eye(N, dtype=torch.float64))
    assert torch.equal(score("obs", eye).argsort(stable=True), order)
    path = list(greedy.deletions(Problem(W, eye)))
    assert [d.position for d in path] == order.tolist()


@pytest.mark.parametrize("kind", list(catalogue.criteria()))
@pytest.mark.parametrize("sparsity", [0.0, 1 / 36, 0.5, 0.77, 35 / 36])
def test_exactly_k_weights_go_when_all_are_equal(kind, sparsity):
    module = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False))
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(0.5)
    x, y = torch.ones(40, 4), torch.arange(40) % 2
    criterion = {"kind": kind} | ({"damping": 0.1} if kind == "obs" else {})
    schedule = {"kind": "one_shot", "recomputations": 1}
    spec = {"criterion": criterion, "target": {"sparsity": sparsity}, "schedule": schedule}
    outcome = pruning.prune(module, (x, y), spec)
    wanted = int(sparsity * 36 + 0.5)
    assert sum(int((~m).sum()) for m in outcome.masks.values()) == wanted
    zeros = sum(int((p == 0).sum()) for p in outcome.module.parameters())
    assert zeros >= wanted
    assert outcome.report.sparsity.removed == wanted


@pytest.mark.parametrize("kind", ["obs", "obd", "magnitude", "taylor"])
def test_exactly_k_positions_go_when_one_weight_is_used_twice(kind):
    case = cases.make("tied-cross_entropy")
    total = len(case.weights)
    data = ArrayData(case.data.inputs, case.data.target)
    for k in (1, 7, total // 2, total - 1):
        spec = {
            "criterion": {"kind": kind} | ({"damping": 0.1} if kind == "obs" else {}),
            "target": {"sparsity": k / total},
            "schedule": {"kind": "one_shot", "recomputations": 1},
        }
        outcome = pruning.prune(case.module, data, spec)
        assert sum(int((~m).sum()) for m in outcome.masks.values()) == k
        assert outcome.module.first.weight is outcome.module.second.weight


def linear_case(seed):
    g = torch.Generator().manual_seed(seed)
    module = nn.Linear(6, 3).double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    x = torch.randn(30, 6, generator=g, dtype=torch.float64)
    y = torch.randn(30, 3, generator=g, dtype=torch.float64)
    return cases.Case(module, ArrayData({"x": x}, y), cases.make("mlp-mse").loss)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("compensation", ["obs", "none"])
@pytest.mark.parametrize("count", [1, 5, 9, 17, 18])
def test_a_linear_model_costs_what_was_predicted(seed, compensation, count):
    """Squared loss, full rank, no damping, the gradient far from zero: exact for any set."""
    case = linear_case(seed)
    weights, start = case.weights, case.weights.read()
    active = torch.arange(len(weights))
    h = full.compute(case.network, case.data, case.loss, active)
    assert torch.linalg.matrix_rank(h.values) == len(weights)
    removed = torch.zeros(len(weights), dtype=torch.bool)
    order = torch.randperm(len(weights), generator=torch.Generator().manual_seed(seed))
    removed[order[:count]] = True
    change = method("solvers", compensation).compensate(Problem(start, h, 0.0), removed)
    predicted = predict(Network(case.module, weights), case.data, case.loss, change)
    before = evaluate(case.module, case.data, case.loss).loss
    weights.write(start + change)
    measured = evaluate(case.module, case.data, case.loss).loss - before
    assert abs(predicted.first_order) > 1e-4
    # Relative to the increase, but for the rounding of the two losses it is the difference of.
    assert predicted.total == pytest.approx(measured, rel=1e-10, abs=1e-14 * before)


def test_a_job_on_a_linear_model_predicts_what_it_measures():
    case = linear_case(0)
    spec = {
        "objective": {"loss": "mse", "metrics": []},
        "criterion": {"kind": "obs", "inverse": "full", "damping": 0.0},
        "target": {"sparsity": 0.6},
    }
    loss = pruning.prune(case.module, case.data, spec).report.loss
    assert loss.predicted_increase == pytest.approx(loss.measured_increase, rel=1e-10)

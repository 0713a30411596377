"""What the loop says where the curvature can't be used: code, layer, what to change."""

import pytest
import torch
from torch import nn

from pruning import cut, prune, sweep
from pruning.catalogue import criteria
from pruning.criteria import Problem
from pruning.curvature import full
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.factorization import refusal
from pruning.layers import FlatWeights, find_prunable
from pruning.metrics import evaluate
from pruning.one_by_one import prune_one_by_one
from pruning.patterns.unstructured import smallest
from pruning.solvers import obs
from pruning.solvers.damping import HELD_OUT, absolute
from pruning.solvers.singular import SingularError
from pruning.spec import Scope
from tests.oracle import cases

torch.set_num_threads(1)
QUICK = {"checks": False, "bootstrap": 0, "ladder": False}


def failure_of(case, **parts):
    asked = {"objective": {"loss": case.loss.name}, "trust": QUICK, **parts}
    with pytest.raises(SecateurError) as caught:
        prune(case.module, Data(case.data, case.data, case.data), asked)
    return caught.value


class Root(nn.Module):
    """Finite, with a square root at zero: no second derivatives there."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.sqrt(torch.relu(self.a(x)) ** 2))


@pytest.mark.parametrize("damping", [0.1, "auto"])
def test_curvature_that_is_not_finite_is_refused_by_layer(damping):
    case = cases.of(Root, [(6,)], "cross_entropy", samples=20)
    criterion = {"kind": "obs", "inverse": "full", "curvature": "hessian", "damping": damping}
    error = failure_of(case, criterion=criterion)
    assert (error.code, error.where) == ("loss_non_finite", "a")
    assert "square root" in error.hint


def test_a_layer_too_large_for_several_steps_is_refused_before_the_first(monkeypatch):
    case = cases.of(lambda: nn.Sequential(nn.Linear(90, 50), nn.Linear(50, 3)), [(90,)], "mse")
    monkeypatch.setattr(cut, "compute", lambda *_: pytest.fail("curvature was computed"))
    error = failure_of(case, criterion={"kind": "obs", "inverse": "kfac"})
    assert (error.code, error.where) == ("curvature_too_large", "spec.schedule")
    assert "4500" in error.message
    assert "recomputations: 1" in error.hint


def test_where_every_damping_fails_the_error_is_the_trials_own(monkeypatch):
    case = cases.make("mlp-cross_entropy", samples=30)
    whole = evaluate

    def failing(module, data, *rest):
        if any(bool((p.weight == 0).any()) for p in case_weights(module)):
            raise SecateurError("loss_non_finite", "It overflows.", where="4", hint="Scale it.")
        return whole(module, data, *rest)

    monkeypatch.setattr(sweep, "evaluate", failing)
    error = failure_of(case, criterion={"kind": "obs"})
    assert (error.code, error.message, error.where, error.hint) == (
        "loss_non_finite",
        "It overflows.",
        "4",
        "Scale it.",
    )


def test_an_error_that_no_damping_mends_ends_the_sweep(monkeypatch):
    case = cases.make("mlp-cross_entropy", samples=30)
    tried = []

    def refused(*_):
        tried.append(1)
        raise SecateurError("curvature_too_large", "Too large.", where="2", hint="Exclude it.")

    monkeypatch.setattr(cut, "_solve", refused)
    error = failure_of(case, criterion={"kind": "obs"})
    assert (error.code, error.where, error.hint) == ("curvature_too_large", "2", "Exclude it.")
    assert len(tried) == 1


def case_weights(module):
    return find_prunable(module, Scope())


def weights():
    return FlatWeights(case_weights(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))))


@pytest.mark.parametrize("damping", ["auto", 0.1])
def test_the_hint_fits_the_damping_that_was_asked_for(damping):
    failed = SingularError(torch.tensor([1, 2]), torch.ones(2, 2).double())
    declared = criteria()["obs"].model_validate({"damping": damping})
    error = refusal(weights(), failed, torch.arange(10), 0.1, declared)
    assert error.where == "0"
    assert error.details["rank"] == 1
    assert ("Use a larger criterion.damping" in error.hint) == (damping == 0.1)


def test_an_iteration_that_stops_is_told_with_its_layer_and_condition():
    failed = SingularError(
        torch.tensor([6, 7]),
        diagonal=torch.ones(2).double(),
        bound=1e6,
        reason="Conjugate gradients did not converge in 7 steps",
    )
    error = refusal(weights(), failed, torch.arange(10), 1e-4, criteria()["obs"]())
    assert error.where == "1"
    assert "did not converge in 7 steps, over 2 weights at damping 0.0001" in error.message
    assert "condition number at most 1.0e+06; in layer 1." in error.message
    assert error.details["rank"] is None


def test_the_sweep_measures_on_the_held_out_share_what_the_rest_knows():
    """Each trial again, with the curvature of one part of the data and the loss on the other."""
    case = cases.make("mlp-cross_entropy", samples=40)
    asked = {
        "objective": {"loss": case.loss.name},
        "criterion": {"kind": "obs", "inverse": "full"},
        "schedule": {"kind": "one_shot", "recomputations": 1},
        "trust": QUICK,
        "seed": 3,
    }
    report = prune(case.module, Data(case.data, case.data, case.data), asked).report
    rest, held = case.data.split(HELD_OUT, 3)
    assert (rest.samples, held.samples) == (32, 8)
    old = case.weights.read()
    matrix = full.compute(case.network, rest, case.loss, torch.arange(len(old)))
    before = evaluate(case.module, held, case.loss).loss
    for trial in report.damping_sweep:
        problem = Problem(old, matrix, absolute(trial.damping, matrix))
        scores = old.square() / (2 * obs.inverse_diagonal(matrix, problem.damping))
        change = obs.compensate(problem, smallest(scores, report.sparsity.removed))
        case.weights.write(old + change)
        loss = evaluate(case.module, held, case.loss).loss
        case.weights.write(old)
        assert trial.loss == pytest.approx(loss, rel=1e-9)
        assert trial.measured_increase == pytest.approx(loss - before, rel=1e-7)
    assert len({round(t.loss, 6) for t in report.damping_sweep}) > 2


def test_a_negative_mean_curvature_still_gives_a_positive_damping(monkeypatch):
    """As for a job: the unit of the damping is the mean size of the diagonal."""
    values = torch.tensor([-3.0, 1.0]).double()
    assert absolute(0.5, Diagonal(values)) == 1.0
    case = cases.of(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), [(4,)],
                    "mse", samples=8)  # fmt: skip
    target = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)).double()
    data = ArrayData(case.data.inputs, 5 * target)
    seen = []
    compensate = obs._damped
    monkeypatch.setattr(
        "pruning.solvers.greedy._damped", lambda h, d: seen.append((h, d)) or compensate(h, d)
    )
    for sign in (1.0, -1.0):
        monkeypatch.setattr(
            "pruning.one_by_one.compute",
            lambda *_, sign=sign: full.Dense(sign * torch.eye(18).double()),
        )
        declared = criteria()["obs"](inverse="full", curvature="hessian", damping=50.0)
        prune_one_by_one(Network(case.module, case.weights), data, case.loss, declared, count=1)
    assert [d for _, d in seen] == [50.0, 50.0]

"""Schedule one_by_one in a job, and the library's function with a rule of one's own."""

import pytest
import torch
from torch import nn

import pruning
from pruning.catalogue import criteria
from pruning.curvature import full
from pruning.curvature.losses import LOSSES
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.one_by_one import prune_one_by_one, weights_and_biases
from pruning.schedule import one_by_one
from pruning.spec import OneByOne, parse_spec
from tests.oracle import brute_force, cases

torch.set_num_threads(1)
DAMPING = 0.01
KINDS = ("obs", "obd", "magnitude")


def declared(kind):
    return criteria()[kind](**({"damping": DAMPING} if kind == "obs" else {}))


def by_hand(case, kind, count, recompute):
    """Score, take the cheapest, invert anew; the curvature by autograd every `recompute`."""
    w, left = case.weights.read(), list(range(len(case.weights)))
    order, h, damping = [], None, 0.0
    for done in range(count):
        if done % recompute == 0:
            case.weights.write(w)
            h = brute_force.ggn(case)
            damping = DAMPING * float(h.diagonal()[left].mean())
        damped = h + damping * torch.eye(len(h), dtype=torch.float64)
        inverse = torch.linalg.inv(damped[left][:, left])
        saliency = {
            "obs": w[left] ** 2 / (2 * inverse.diagonal()),
            "obd": h.diagonal()[left] * w[left] ** 2 / 2,
            "magnitude": w[left].abs(),
        }[kind]
        at = int(saliency.argmin())
        order.append(left[at])
        if kind == "obs":
            w[left] = w[left] - w[left[at]] / inverse[at, at] * inverse[:, at]
        w[left[at]] = 0.0
        del left[at]
    return order, w


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [1, 4])
def test_deletions_are_those_of_brute_force(kind, recompute):
    case = cases.make("mlp-mse")
    order, w = by_hand(cases.make("mlp-mse"), kind, 20, recompute)
    deleted = prune_one_by_one(
        case.network, case.data, case.loss, declared(kind), recompute=recompute, count=20
    )
    assert deleted.order == order
    torch.testing.assert_close(case.weights.read(), w, rtol=1e-6, atol=1e-9)
    assert (~deleted.kept).nonzero()[:, 0].tolist() == sorted(order)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [1, 5])
def test_a_job_with_the_schedule_does_the_same(kind, recompute):
    case = cases.make("mlp-mse")
    order, w = by_hand(cases.make("mlp-mse"), kind, 16, recompute)
    spec = {
        "objective": {"loss": "mse", "metrics": []},
        "criterion": declared(kind).model_dump(),
        "schedule": {"kind": "one_by_one", "recompute": recompute},
        "target": {"sparsity": 16 / len(case.weights)},
    }
    outcome = pruning.prune(case.module, Data(*[case.data] * 3), spec)
    kept = torch.cat([m.flatten() for m in outcome.masks.values()])
    assert (~kept).nonzero()[:, 0].tolist() == sorted(order)
    pruned = torch.cat([p.flatten() for n, p in outcome.module.named_parameters() if "weight" in n])
    torch.testing.assert_close(pruned.detach(), w, rtol=1e-6, atol=1e-9)
    assert [r.removed for r in outcome.report.rounds] == (
        [1] * 16 if recompute == 1 else [5, 5, 5, 1]
    )


def test_without_recomputation_the_order_of_obd_is_that_of_one_shot():
    case = cases.make("mlp-cross_entropy")
    count = len(case.weights) // 2
    deleted = prune_one_by_one(
        case.network, case.data, case.loss, declared("obd"), recompute=count, count=count
    )
    fresh = cases.make("mlp-cross_entropy")
    saliency = brute_force.ggn(fresh).diagonal() * fresh.weights.read() ** 2 / 2
    assert deleted.order == saliency.argsort(stable=True)[:count].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_deletion_that_breaks_the_rule_is_undone(kind):
    case = cases.make("mlp-cross_entropy")
    inputs = tuple(case.data.inputs.values())
    with torch.no_grad():
        dense = case.module(*inputs)

    def far():
        with torch.no_grad():
            return float((case.module(*inputs) - dense).abs().max()) > 0.1

    deleted = prune_one_by_one(case.network, case.data, case.loss, declared(kind), stop=far)
    assert not far()
    assert 0 < len(deleted.order) < len(case.weights)
    flat = case.weights.read()
    assert not flat[~deleted.kept].any()
    assert flat[deleted.kept].all()


def test_biases_can_be_among_the_weights():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1, bias=False)).double().eval()
    weights = weights_and_biases(module)
    assert [p.name for p in weights.layers] == ["0.weight", "0.bias", "2.weight"]
    data = ArrayData({"x": torch.randn(9, 3).double()}, torch.randn(9, 1).double())
    network = Network(module, weights)
    matrix = full.compute(network, data, LOSSES["mse"], torch.arange(10)).values
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(module, p, data.inputs["x"]))
    parts = jacobian({p.name: p.weight.detach() for p in weights.layers})
    rows = torch.cat([parts[p.name].reshape(9, -1) for p in weights.layers], 1)
    torch.testing.assert_close(matrix, 2 * rows.T @ rows / 9)
    deleted = prune_one_by_one(network, data, LOSSES["mse"], declared("obs"), count=5)
    assert torch.equal(weights.read() == 0, ~deleted.kept)
    assert int(deleted.kept.sum()) == 5


def test_damping_auto_is_for_jobs():
    case = cases.make("mlp-mse")
    with pytest.raises(ValueError, match="damping"):
        prune_one_by_one(case.network, case.data, case.loss, criteria()["obs"]())


@pytest.mark.parametrize(
    ("total", "target", "recompute", "ends"),
    [(100, 0, 16, [0]), (100, 5, 2, [2, 4, 5]), (100, 4, 2, [2, 4]), (100, 3, 16, [3])],
)
def test_steps_end_where_the_curvature_is_computed_again(total, target, recompute, ends):
    steps = one_by_one.steps(OneByOne(recompute=recompute), total, target)
    assert [s.removed for s in steps] == ends
    assert [s.recover for s in steps] == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize(
    ("total", "target", "code"), [(2049, 5, "curvature_too_large"), (2048, 1001, "spec_conflict")]
)
def test_large_networks_and_endless_schedules_are_refused(total, target, code):
    with pytest.raises(SecateurError) as caught:
        one_by_one.steps(OneByOne(recompute=1), total, target)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "parts",
    [
        {"compensation": {"kind": "none"}},
        {"allocation": {"kind": "uniform"}},
        {"criterion": {"kind": "obs", "inverse": "block_fisher"}},
        {"criterion": {"kind": "obs", "inverse": "kfac"}},
    ],
)
def test_what_the_greedy_path_can_not_be_combined_with_is_refused(parts):
    with pytest.raises(SecateurError) as caught:
        parse_spec({"schedule": {"kind": "one_by_one"}, **parts})
    assert caught.value.code == "spec_conflict"

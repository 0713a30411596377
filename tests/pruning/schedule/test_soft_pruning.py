"""Soft pruning: the penalty comes first, then a mask of exactly the target, then recovery."""

import pytest
import torch

from pruning import progress, prune
from pruning.metrics import evaluate
from tests.oracle import cases
from tests.pruning.schedule.jobs import TRAINED, network, spec

NEXT_TO_NOTHING = TRAINED | {"optimizer": {"kind": "sgd", "lr": 1e-30, "momentum": 0}}


def soft(sparsity=0.8, recovery=TRAINED, **parts):
    return spec(sparsity, schedule={"kind": "proximal"} | parts, recovery=recovery)


@pytest.mark.parametrize("method", ["proximal", "l1"])
@pytest.mark.parametrize("penalty", [1e-6, 10.0])
def test_exactly_the_target_is_masked_however_many_weights_the_penalty_took(method, penalty):
    module, data = network()
    asked = soft(method=method, penalty=penalty, epochs=3)
    outcome = prune(module, data, asked)
    removed = sum(int((~m).sum()) for m in outcome.masks.values())
    total = sum(m.numel() for m in outcome.masks.values())
    assert removed == outcome.report.sparsity.removed == int(0.8 * total + 0.5)
    assert len(outcome.report.rounds) == 1
    state = outcome.module.state_dict()
    assert all((state[n][~m] == 0).all() for n, m in outcome.masks.items())


def test_the_cost_of_the_mask_is_told_from_the_softened_network():
    """Softened by hand: a step of gradient descent and the soft threshold of all weights."""
    module, data = network()
    recovery = TRAINED | {"batch_size": 40, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0}}
    asked = soft(recovery=recovery, epochs=4, penalty=0.3)
    events = []
    report = prune(module, data, asked, emit=events.append).report

    by_hand, part = network()[0], data.training
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(by_hand(*part.inputs.values()), part.target)
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter -= 0.1 * parameter.grad
                if parameter.dim() > 1:
                    shrunk = (parameter.abs() - 0.1 * 0.3).clamp(min=0)
                    parameter.copy_(parameter.sign() * shrunk)
    case = cases.make("mlp-cross_entropy")
    softened = evaluate(by_hand, data.calibration, case.loss).loss
    (step,) = report.rounds
    assert step.loss_before == pytest.approx(softened, rel=1e-12)
    assert step.measured_increase == step.loss_pruned - step.loss_before
    assert report.loss.dense == evaluate(module.eval(), data.calibration, case.loss).loss
    assert report.loss.dense != pytest.approx(softened)
    told = [e.value for e in events if e.type == "metric" and e.stage == "softened"]
    assert told == [step.loss_before]


def test_a_penalty_brings_weights_nearer_to_zero_than_none():
    module, data = network()
    left = []
    for penalty in (1e-9, 0.02):
        asked = soft(penalty=penalty, epochs=20, recovery=TRAINED)
        left.append(prune(module, data, asked).report.rounds[0].measured_increase)
    assert abs(left[1]) < abs(left[0])


def test_the_runs_of_a_curve_share_the_softening(monkeypatch):
    """A point is what a job with that target gives, and the penalty's training runs once."""
    monkeypatch.setattr(progress, "INTERVAL", -1.0)
    module, data = network()
    asked = soft(epochs=3, recovery=TRAINED | {"epochs": 1})
    events = []
    curve = prune(module, data, asked | {"curve": {"points": [0.5]}}, emit=events.append)
    trained = [e for e in events if e.type == "progress" and e.message == "soft pruning"]
    assert len(trained) == 3 * 3  # epochs of 40 samples in batches of 16
    ((_, run),) = curve.study.points
    curve.study.runs.show(run)
    alone = prune(module, data, asked | {"target": {"sparsity": 0.5}})
    for name, tensor in alone.module.state_dict().items():
        assert torch.equal(curve.module.state_dict()[name], tensor)

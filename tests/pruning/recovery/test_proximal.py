"""Soft pruning: the proximal operator and the penalty, in float64."""

import math

import pytest
import torch
from torch import nn

from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.recovery.fine_tune import recover
from pruning.recovery.proximal import Shrinking
from pruning.recovery.setting import Setting
from pruning.spec import SGD, FineTune
from pruning.spec.schedule import Proximal

torch.set_num_threads(1)
LOSS = LOSSES["cross_entropy"]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


def data():
    x = torch.randn(48, 5, generator=torch.Generator().manual_seed(1)).double()
    return ArrayData({"x": x}, (x[:, 0] > 0).long())


OPTIONS = FineTune(
    epochs=3, batch_size=16, optimizer=SGD(lr=0.2, momentum=0.0), rates={"kind": "cosine"}
)


def by_hand(schedule, scope):
    """The same training written out; the rate is that of the cosine over nine steps."""
    module, samples = network(), data()
    order = torch.Generator().manual_seed(7)
    step = 0
    for _ in range(3):
        for index in torch.randperm(48, generator=order).split(16):
            rate = 0.2 * (1 + math.cos(math.pi * step / 9)) / 2
            warm = schedule.warmup * 9
            penalty = schedule.penalty * (1.0 if warm == 0 else min(1.0, step / warm))
            module.zero_grad()
            loss = nn.functional.cross_entropy(
                module(samples.inputs["x"][index]), samples.target[index]
            )
            if schedule.method == "l1":
                loss = loss + penalty * sum(p.abs().sum() for p in scope(module))
            loss.backward()
            with torch.no_grad():
                for p in module.parameters():
                    p -= rate * p.grad
                if schedule.method == "proximal":
                    for p in scope(module):
                        p.copy_(p.sign() * (p.abs() - rate * penalty).clamp(min=0))
            step += 1
    return module


@pytest.mark.parametrize("warmup", [0.0, 0.5])
@pytest.mark.parametrize("method", ["proximal", "l1"])
def test_training_is_that_written_out_by_hand(method, warmup):
    schedule = Proximal(method=method, penalty=0.05, warmup=warmup)

    def scope(module):
        return [module[0].weight]

    wanted, module = by_hand(schedule, scope), network()
    recover(Setting(module, data(), LOSS, Shrinking(scope(module), schedule), 7), OPTIONS)
    for a, b in zip(module.parameters(), wanted.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)


def test_the_proximal_step_makes_exact_zeros_in_scope_and_none_elsewhere():
    module = network()
    schedule = Proximal(penalty=0.3)
    recover(Setting(module, data(), LOSS, Shrinking([module[0].weight], schedule), 7), OPTIONS)
    assert 10 < int((module[0].weight == 0).sum()) < 40
    assert int((module[2].weight == 0).sum()) == 0


def test_a_larger_penalty_leaves_less():
    left = []
    for penalty in (1e-6, 0.02, 0.1):
        module = network()
        shrinking = Shrinking([module[0].weight, module[2].weight], Proximal(penalty=penalty))
        recover(Setting(module, data(), LOSS, shrinking, 7), OPTIONS)
        left.append(sum(p.detach().abs().sum().item() for p in shrinking.weights_in_scope))
    assert left[0] > left[1] > left[2]

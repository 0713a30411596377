"""The teacher's part of the loss against computations by hand, in float64."""

import math
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import nn

from pruning.curvature.losses import IGNORED, LOSSES, MatchDenseKL
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.recovery.distillation import Distilled, soft_targets
from pruning.recovery.fine_tune import recover
from pruning.recovery.masking import Masking
from pruning.recovery.setting import Setting
from pruning.spec import SGD, FineTune
from pruning.spec.recovery import Distill

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def network(seed=0, inplace=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(4, 6), nn.ReLU(inplace), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
        return nn.Sequential(*layers).double().eval()


def by_hand_kl(scores, dense, temperature):
    """T^2 sum_c q_c log(q_c / p_c), number by number."""
    total = 0.0
    p = [math.exp(s / temperature) for s in scores.tolist()]
    q = [math.exp(s / temperature) for s in dense.tolist()]
    for pc, qc in zip(p, q, strict=True):
        total += qc / sum(q) * math.log((qc / sum(q)) / (pc / sum(p)))
    return temperature**2 * total


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("loss", [LOSSES["cross_entropy"], MatchDenseKL()], ids=["labels", "none"])
def test_soft_targets_of_class_scores_are_the_divergence_by_hand(loss, temperature):
    scores, dense = normal(4, 3), normal(4, 3, seed=1)
    found = soft_targets(loss, scores, dense, torch.zeros(4).long(), temperature)
    wanted = [by_hand_kl(s, d, temperature) for s, d in zip(scores, dense, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)


def test_the_gradient_of_soft_targets_is_the_temperature_times_the_gap_of_distributions():
    """Hinton, Vinyals, Dean 2015, eq. 2: 1/T (p - q) by sample, times T^2."""
    scores, dense = normal(4, 3).requires_grad_(), normal(4, 3, seed=1)
    soft_targets(LOSSES["cross_entropy"], scores, dense, torch.zeros(4), 4.0).sum().backward()
    gap = (scores / 4).softmax(1) - (dense / 4).softmax(1)
    assert torch.allclose(scores.grad, 4.0 * gap, rtol=1e-10, atol=1e-14)


def test_positions_of_text_without_a_label_do_not_teach():
    scores, dense = normal(2, 5, 7), normal(2, 5, 7, seed=1)
    labels = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(2))
    labels[1, 3:] = IGNORED
    found = soft_targets(LOSSES["causal_lm"], scores, dense, labels, 2.0)
    rows = [[by_hand_kl(scores[n, t], dense[n, t], 2.0) for t in range(4)] for n in range(2)]
    assert found.tolist() == pytest.approx([sum(rows[0]) / 4, sum(rows[1][:2]) / 2], rel=1e-12)


@pytest.mark.parametrize("loss", ["mse", "bce", "match_dense"])
def test_outputs_that_are_no_class_scores_are_compared_by_their_squared_distance(loss):
    outputs, dense = normal(4, 3), normal(4, 3, seed=1)
    found = soft_targets(LOSSES[loss], outputs, dense, dense, 4.0)
    assert torch.allclose(found, (outputs - dense).square().mean(1), rtol=1e-14)


def value_of(options, loss, module, teacher, x, y, features=(), data=None):
    taught = Distilled(loss, options, teacher, features)
    with taught.watching(module, data or ArrayData({"x": x}, y)):
        return taught.value(module, (x,), y, nullcontext, check=True)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_labels_and_soft_targets_share_the_weight(weight):
    module, teacher = network(0), network(1)
    x, y = normal(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    found = value_of(Distill(weight=weight), LOSSES["cross_entropy"], module, teacher, x, y)
    hard = nn.functional.cross_entropy(module(x), y).item()
    pairs = zip(module(x), teacher(x), strict=True)
    soft = sum(by_hand_kl(s, d, 4.0) for s, d in pairs) / 6
    assert found.item() == pytest.approx(weight * soft + (1 - weight) * hard, rel=1e-12)


@pytest.mark.parametrize("inplace", [False, True])
def test_features_are_the_squared_gap_over_the_dense_mean_square_and_so_are_their_gradients(
    inplace,
):
    module, teacher = network(0, inplace), network(1, inplace)
    x, y = normal(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    options = Distill(weight=0.0, features=("0", "2"), feature_weight=0.7)
    data = ArrayData({"x": normal(30, 4, seed=5)}, torch.zeros(30).long())
    found = value_of(options, LOSSES["cross_entropy"], module, teacher, x, y, ("0", "2"), data)
    gradients = torch.autograd.grad(found, list(module.parameters()))

    def seen(net, x):
        # What the ReLU overwrites in place is what is left of the first layer's output.
        first = net[0](x).relu() if inplace else net[0](x)
        return first, net[2](first.relu())

    total = nn.functional.cross_entropy(module(x), y)
    dense = seen(teacher, data.inputs["x"])
    for s, t, d in zip(seen(module, x), seen(teacher, x), dense, strict=True):
        total = total + 0.7 * (s - t).square().mean() / d.square().mean() / 2
    wanted = torch.autograd.grad(total, list(module.parameters()))
    assert found.item() == pytest.approx(total.item(), rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(gradients, wanted, strict=True))
    assert not any(layer._forward_hooks for net in (module, teacher) for layer in net)


def test_without_labels_and_features_no_teacher_is_asked():
    """The targets are the dense outputs already."""
    module, teacher, x = network(0), network(1), normal(6, 4)
    dense = teacher(x).detach()
    options = Distill(weight=0.2)
    for loss in (LOSSES["match_dense"], MatchDenseKL()):
        alone = value_of(options, loss, module, None, x, dense)
        asked = value_of(options, loss, module, teacher, x, dense)
        assert alone.item() == pytest.approx(asked.item(), rel=1e-12)
        assert alone.item() == pytest.approx(
            soft_targets(loss, module(x), dense, dense, 4.0).mean().item(), rel=1e-12
        )


def test_a_batch_in_parts_is_taught_like_the_whole():
    x, y = normal(40, 4), torch.arange(40) % 3
    found = []
    for parts in (1, 3):
        module, teacher = network(0), network(1)
        options = FineTune(
            epochs=2, batch_size=16, accumulate=parts, optimizer=SGD(lr=0.1),
            distill=Distill(features=("*",)),
        )  # fmt: skip
        setting = Setting(
            module, ArrayData({"x": x}, y), LOSSES["cross_entropy"], Masking([]), 0,
            teacher=teacher, features=("0", "2", "4"),
        )  # fmt: skip
        recover(setting, options)
        found.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.allclose(*found, rtol=0, atol=1e-13)


def test_distillation_brings_the_outputs_to_the_teachers_and_leaves_the_teacher_alone():
    module, teacher = network(0), network(1)
    before = deepcopy(teacher.state_dict())
    x, y = normal(60, 4), torch.arange(60) % 3  # labels that say nothing

    def gap():
        return (module(x).softmax(1) - teacher(x).softmax(1)).abs().mean().item()

    first = gap()
    options = FineTune(
        epochs=60, batch_size=20, optimizer=SGD(lr=0.05), distill=Distill(weight=1.0)
    )
    setting = Setting(
        module, ArrayData({"x": x}, y), LOSSES["cross_entropy"], Masking([]), 0, teacher=teacher
    )
    recover(setting, options)
    assert gap() < 0.2 * first
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_a_feature_layer_that_is_never_called_is_refused_by_name():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            return nn.functional.linear(x, self.inner.weight)

    data = ArrayData({"x": normal(5, 4).float()}, torch.zeros(5).long())
    taught = Distilled(LOSSES["cross_entropy"], Distill(), Around(), ("inner",))
    with (
        pytest.raises(SecateurError, match="inner without calling"),
        taught.watching(Around(), data),
    ):
        pass

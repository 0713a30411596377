"""Losses and metrics that can't tell anything are refused, doubtful ones warn, at every door."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning.curvature.losses import IGNORED, LOSSES, MatchDense
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.facts import TargetFact, TensorFact
from pruning.loop import prune
from pruning.metrics import agreement, cosine, fixed_agreement, fixed_cosine
from pruning.plan import plan
from pruning.spec import parse_spec
from tests.pruning.test_plan import dataset, model

torch.set_num_threads(1)

OFF = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
    "criterion": {"kind": "magnitude"},
}


def unlabelled(metrics: list[str], **more: Any) -> dict[str, Any]:
    return {**OFF, "objective": {"loss": "match_dense", "metrics": metrics}, **more}


class Shaped(nn.Module):
    """Numbers of a network in some shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        size = int(np.prod(shape)) if shape else 1
        self.first, self.last, self.shape = nn.Linear(6, 8), nn.Linear(8, size), shape

    def forward(self, x):
        return self.last(self.first(x).relu()).reshape(len(x), *self.shape)


def inputs(samples: int = 40) -> torch.Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))


def made(*shape: int) -> nn.Module:
    torch.manual_seed(0)
    return Shaped(*shape).eval()


def refusal(call, *args, **kwargs) -> SecateurError:
    with pytest.raises(SecateurError) as caught:
        call(*args, **kwargs)
    return caught.value


def codes(module: nn.Module, data: Any, spec: dict[str, Any]) -> list[str]:
    return [w.code for w in prune(module, data, spec).report.warnings]


def facts(shape: list[int | str], **more: Any):
    return model(outputs=[TensorFact(name="y", dtype="float32", shape=shape)], **more)


DROP = {"target": {"max_drop": {"metric": "agreement", "drop": 0.01}}}


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (1, 4, 4)])
def test_agreement_of_one_number_is_refused_in_a_module(shape):
    failure = refusal(prune, made(*shape), inputs(), unlabelled(["agreement"]))
    assert failure.code == "metric_meaningless"
    assert failure.where == "spec.objective.metrics"


@pytest.mark.parametrize("shape", [["n"], ["n", 1], ["n", "t", 1], ["n", 1, 8, 8]])
def test_agreement_of_one_number_is_refused_by_the_plan(shape):
    spec = parse_spec(unlabelled(["agreement"], **DROP))
    failure = refusal(plan, spec, facts(shape), {"calibration": dataset(target=None)})
    assert (failure.code, failure.where) == ("metric_meaningless", "spec.target.max_drop")


def test_a_fixed_batch_of_one_is_not_taken_for_one_score():
    spec = parse_spec(unlabelled(["agreement"]))
    planned = plan(spec, facts([5, 1], batch=1), {"calibration": dataset(target=None)})
    assert not [w for w in planned.warnings if w.code == "metric_doubtful"]


def test_agreement_of_maps_compares_channels_and_says_so():
    outputs = torch.tensor([[[[0.0, 5.0]], [[1.0, 2.0]]]])  # [1, 2, 1, 2]
    other = torch.tensor([[[[0.0, 1.0]], [[1.0, 2.0]]]])
    assert agreement(MatchDense(), outputs, other).tolist() == [0.5]
    assert "metric_doubtful" in codes(made(2, 4, 4), inputs(), unlabelled(["agreement"]))


def test_kl_of_one_score_is_refused_by_the_plan_as_in_the_job():
    spec = unlabelled([], objective={"loss": "match_dense", "distance": "kl", "metrics": []})
    data = {"calibration": dataset(target=None)}
    early = refusal(plan, parse_spec(spec), facts(["n", 1]), data)
    late = refusal(prune, made(1), inputs(), spec)
    for failure in (early, late, refusal(prune, made(), inputs(), spec)):
        assert (failure.code, failure.where) == ("target_invalid", "spec.objective.distance")


def test_kl_over_the_width_of_a_map_is_doubtful():
    spec = unlabelled([], objective={"loss": "match_dense", "distance": "kl", "metrics": []})
    assert "metric_doubtful" in codes(made(2, 3, 3), inputs(), spec)


def test_cosine_of_one_number_warns_and_can_hold_nothing():
    assert "metric_doubtful" in codes(made(), inputs(), unlabelled(["cosine"]))
    held = unlabelled(["cosine"], gates={"max_drop": {"cosine": 0.01}})
    for module in (made(), made(1)):
        failure = refusal(prune, module, inputs(), held)
        assert (failure.code, failure.where) == ("metric_meaningless", "spec.gates.max_drop")
    planned = refusal(plan, parse_spec(held), facts(["n"]), {"calibration": dataset(target=None)})
    assert planned.code == "metric_meaningless"


def test_cosine_of_zeros_is_one_with_zeros_and_none_with_others():
    found = cosine(
        MatchDense(),
        torch.tensor([[0.0, 0.0], [0.0, 0.0], [1e-30, 0.0], [3.0, 4.0]]),
        torch.tensor([[0.0, -0.0], [1.0, 0.0], [1e-30, 0.0], [6.0, 8.0]]),
    )
    assert found.tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0])


def test_cosine_takes_outputs_without_a_second_axis():
    found = cosine(MatchDense(), torch.tensor([2.0, -1.0]), torch.tensor([3.0, 1.0]))
    assert found.tolist() == [1.0, -1.0]


def test_dense_network_of_zero_rows_is_like_itself():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval()
    module[0].weight.data.abs_()
    module[0].bias.data.fill_(-1.0)
    x = torch.cat([inputs(20).abs(), -inputs(20).abs()])
    part = ArrayData({"x": x})
    report = prune(module, Data(part, part, part), unlabelled(["cosine"])).report
    assert report.metrics.dense["cosine"].value == 1.0


@pytest.mark.parametrize(
    ("loss", "last", "warned"),
    [
        ("cross_entropy", nn.Softmax(1), True),
        ("cross_entropy", nn.Sigmoid(), True),
        ("cross_entropy", nn.LogSoftmax(1), False),
        ("cross_entropy", nn.Identity(), False),
        ("bce", nn.Sigmoid(), True),
        ("bce", nn.Softmax(1), True),
        ("bce", nn.LogSoftmax(1), True),
        ("bce", nn.Identity(), False),
        ("mse", nn.Sigmoid(), False),
    ],
)
def test_probabilities_are_told_from_scores(loss, last, warned):
    x, g = inputs(200), torch.Generator().manual_seed(2)
    target = {
        "cross_entropy": torch.randint(0, 3, (200,), generator=g),
        "bce": torch.randint(0, 2, (200, 3), generator=g).float(),
        "mse": torch.rand(200, 3, generator=g),
    }[loss]
    spec = {**OFF, "objective": {"loss": loss, "metrics": []}}
    found = codes(nn.Sequential(made(3), last).eval(), (x, target), spec)
    assert ("outputs_are_probabilities" in found) == warned


def test_kl_of_probabilities_warns():
    spec = unlabelled([], objective={"loss": "match_dense", "distance": "kl", "metrics": []})
    softmax = nn.Sequential(made(3), nn.Softmax(1)).eval()
    assert "outputs_are_probabilities" in codes(softmax, inputs(), spec)


def test_accuracy_by_the_sign_of_probabilities_can_hold_nothing():
    target = torch.randint(0, 2, (40, 3), generator=torch.Generator().manual_seed(2)).float()
    spec = {
        **OFF,
        "objective": {"loss": "bce", "metrics": ["accuracy"]},
        "gates": {"max_drop": {"accuracy": 0.05}},
    }
    sigmoid = nn.Sequential(made(3), nn.Sigmoid()).eval()
    assert refusal(prune, sigmoid, (inputs(), target), spec).code == "metric_meaningless"
    prune(made(3), (inputs(), target), spec)


def test_outputs_that_never_change_warn_and_can_hold_nothing():
    module = made(3)
    module.last.weight.data.zero_()
    assert "outputs_constant" in codes(module, inputs(), unlabelled(["cosine"]))
    held = unlabelled(["cosine"], gates={"max_drop": {"cosine": 0.01}})
    assert refusal(prune, module, inputs(), held).code == "metric_meaningless"


def test_agreement_with_one_answer_for_all_can_hold_nothing():
    module = made(3)
    module.last.bias.data[1] = 100.0
    assert "metric_doubtful" in codes(module, inputs(), unlabelled(["agreement"]))
    assert refusal(prune, module, inputs(), unlabelled(["agreement"], **DROP)).code == (
        "metric_meaningless"
    )


class Offset(nn.Module):
    """Outputs that differ little beside what they have in common."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.inner, self.size = made(3), size

    def forward(self, x):
        return 1.0 + self.size * self.inner(x)


def test_what_one_answer_for_all_samples_can_reach():
    dense = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + torch.arange(4.0)
    angles = nn.functional.normalize(dense.double(), dim=1)
    # The best direction is found by climbing, the most frequent place by trying all four.
    best = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for _ in range(200):
        best = nn.functional.normalize(best, dim=0)
        best = best + 0.1 * angles.mean(0)
    best = nn.functional.normalize(best, dim=0)
    assert fixed_cosine(dense) == pytest.approx(float((angles @ best).mean()), abs=1e-6)
    counts = [float((dense.argmax(1) == c).double().mean()) for c in range(4)]
    assert fixed_agreement(dense) == max(counts)
    each = torch.stack([dense, -dense], 2).transpose(1, 2)  # scores of two positions
    other = max(float((dense.argmin(1) == c).double().mean()) for c in range(4))
    assert fixed_agreement(each) == pytest.approx((max(counts) + other) / 2)


def crowded(answers: int, of: int) -> nn.Module:
    """A network that gives the same answer for all of so many samples but a few."""
    module = made(3)
    with torch.no_grad():
        scores = module(inputs(of))
        module.last.bias.data[0] += (
            (scores[:, 1] - scores[:, 0]).sort().values[-answers - 1 :][:2].mean()
        )
        module.last.bias.data[2] -= 100.0
        assert int((module(inputs(of)).argmax(1) == 1).sum()) == answers
    return module


ALIKE = {"cosine": Offset(0.01).eval(), "agreement": crowded(1, of=200)}
NEARLY = {"cosine": Offset(1.5).eval(), "agreement": crowded(6, of=200)}
APART = {"cosine": Offset(100.0).eval(), "agreement": crowded(60, of=200)}


@pytest.mark.parametrize("metric", ["cosine", "agreement"])
def test_a_metric_that_a_dead_network_nearly_keeps_holds_no_search(metric):
    part = ArrayData({"x": inputs(200)})
    data = Data(part, part, part)
    search = unlabelled([metric], target={"max_drop": {"metric": metric, "drop": 0.05}})
    failure = refusal(prune, ALIKE[metric], data, search)
    assert (failure.code, failure.where) == ("metric_meaningless", "spec.target.max_drop")
    assert "200 evaluation samples" in failure.message
    gate = unlabelled([metric], gates={"max_drop": {metric: 0.05}})
    assert "metric_doubtful" in codes(ALIKE[metric], data, gate)
    assert "metric_doubtful" in codes(ALIKE[metric], data, unlabelled([metric]))
    # Within what is allowed, and yet something to tell by.
    assert "metric_doubtful" in codes(NEARLY[metric], data, gate)
    assert "metric_doubtful" not in codes(NEARLY[metric], data, unlabelled([metric]))
    assert "metric_doubtful" not in codes(APART[metric], data, gate)


def test_targets_that_are_all_the_same_are_doubtful_for_any_loss():
    mse = {**OFF, "objective": {"loss": "mse"}}
    assert "metric_doubtful" in codes(made(2), (inputs(), torch.ones(40, 2)), mse)
    rows = torch.tensor([0.0, 1.0]).expand(40, 2)
    assert "metric_doubtful" in codes(made(2), (inputs(), rows), mse)
    assert "metric_doubtful" not in codes(made(2), (inputs(), torch.randn(40, 2)), mse)
    bce = {**OFF, "objective": {"loss": "bce"}}
    assert "metric_doubtful" in codes(made(2), (inputs(), rows), bce)


def test_an_allowed_drop_down_to_the_most_frequent_label_is_doubtful():
    module, x = made(3), inputs(300)
    right = module(x).argmax(1)
    wrong = torch.arange(300) % 10 == 0
    labels = torch.where(wrong, (right + 1) % 3, right)
    part = ArrayData({"x": x}, labels)
    data = Data(part, part, part)
    for drop, warned in ((0.01, False), (0.9, True)):
        spec = {**OFF, "gates": {"max_drop": {"accuracy": drop}}}
        assert ("metric_doubtful" in codes(module, data, spec)) == warned


def test_accuracy_on_one_label_can_hold_nothing():
    labels = torch.zeros(40, dtype=torch.long)
    assert "metric_doubtful" in codes(made(3), (inputs(), labels), OFF)
    held = {**OFF, "gates": {"max_drop": {"accuracy": 0.01}}}
    assert refusal(prune, made(3), (inputs(), labels), held).code == "metric_meaningless"
    one = dataset(target=TargetFact(dtype="int64", shape=[500], classes=1))
    assert refusal(plan, parse_spec(held), model(), {"calibration": one}).code == (
        "metric_meaningless"
    )


def test_accuracy_at_chance_warns_and_accuracy_of_zero_can_hold_nothing():
    module, x = made(3), inputs(300)
    right = module(x).argmax(1)
    assert "accuracy_at_chance" not in codes(module, (x, right), OFF)
    shuffled = right[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert "accuracy_at_chance" in codes(module, (x, shuffled), OFF)
    held = {**OFF, "gates": {"max_drop": {"accuracy": 0.01}}}
    failure = refusal(prune, module, (x, (right + 1) % 3), held)
    assert (failure.code, failure.where) == ("metric_meaningless", "spec.gates.max_drop")


def test_the_best_constant_answer_of_each_loss():
    assert LOSSES["cross_entropy"].guessed(torch.tensor([0, 2, 2, 1])) == 0.5
    assert LOSSES["bce"].guessed(torch.tensor([[0, 1], [0, 0], [1, 1]])) == pytest.approx(2 / 3)
    # The first label of a sample is not predicted; each sample weighs the same.
    tokens = torch.tensor([[9, 1, 1, 2], [9, 1, IGNORED, IGNORED]])
    assert LOSSES["causal_lm"].guessed(tokens) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    "spec",
    [
        {"criterion": {"kind": "magnitude"}},
        {"criterion": {"kind": "obd"}},
        {"criterion": {"kind": "obs"}},
        {"criterion": {"kind": "obs", "inverse": "kfac"}},
        {"criterion": {"kind": "obd", "curvature": "ggn_mc"}},
        {"criterion": {"kind": "obd", "curvature": "hutchinson"}},
        {"criterion": {"kind": "synflow"}},
        {"compensation": {"kind": "layerwise"}},
        {"compensation": {"kind": "layerwise", "damping": "auto"}},
        {"recovery": {"kind": "fine_tune", "epochs": 1, "distill": True}},
    ],
    ids=str,
)
def test_outputs_without_a_second_axis_are_one_column(spec):
    """The same network with [n] and [n, 1] outputs is pruned to the same weights."""
    trust = {"checks": True, "bootstrap": 2, "ladder": True}
    asked = {**spec, "trust": trust, "objective": {"loss": "match_dense", "metrics": ["cosine"]}}
    flat, column = made(), made(1)
    results = [prune(m, inputs(), asked) for m in (flat, column)]
    for name, weight in results[0].module.named_parameters():
        other = results[1].module.get_parameter(name)
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-7)
    losses = [r.report.loss.pruned for r in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("criterion", ["obs", "obd", "taylor", "snip", "grasp", "wanda"])
def test_labels_of_outputs_without_a_second_axis(loss, criterion):
    target = torch.rand(40, generator=torch.Generator().manual_seed(3))
    spec = {
        "objective": {"loss": loss, "metrics": ["accuracy"]},
        "criterion": {"kind": criterion},
        "trust": {"bootstrap": 0},
    }
    results = [
        prune(m, (inputs(), y), spec).report
        for m, y in ((made(), target), (made(1), target[:, None]))
    ]
    assert results[0].loss.pruned == pytest.approx(results[1].loss.pruned, rel=1e-5)


@pytest.mark.parametrize("criterion", ["magnitude", "obs", "taylor"])
@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_one_label_a_sample_fits_one_output_whichever_has_the_second_axis(loss, criterion):
    target = torch.rand(40, generator=torch.Generator().manual_seed(3)).round()
    spec = {
        **OFF,
        "objective": {"loss": loss, "metrics": []},
        "criterion": {"kind": criterion},
        "recovery": {"kind": "fine_tune", "epochs": 1},
    }
    found = {
        prune(m, (inputs(), y), spec).report.loss.recovered
        for m in (made(), made(1))
        for y in (target, target[:, None])
    }
    assert max(found) == pytest.approx(min(found), rel=1e-5)


def test_labels_of_one_number_are_no_labels_of_several():
    target = torch.rand(40)
    for y in (target[:, None, None], target[:, None].expand(40, 2).contiguous()):
        spec = {**OFF, "objective": {"loss": "mse", "metrics": []}}
        part = ArrayData({"x": inputs()}, y)
        assert refusal(prune, made(1), Data(part, part, part), spec).code == "target_invalid"
    values = TargetFact(dtype="float32", shape=[500])
    spec = parse_spec({**OFF, "objective": {"loss": "mse", "metrics": []}})
    plan(spec, facts(["n", 1]), {"calibration": dataset(target=values)})
    wide = refusal(plan, spec, facts(["n", 2]), {"calibration": dataset(target=values)})
    assert wide.code == "target_invalid"

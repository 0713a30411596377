"""What counts as data, what needs labels, and what is refused before it runs."""

import pytest
import torch

from pruning.curvature import full, per_sample
from pruning.curvature.losses import IGNORED, LOSSES, MatchDenseKL
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import FlatWeights, find_prunable
from pruning.loop import prune
from pruning.metrics import evaluate
from pruning.spec import Scope
from tests.oracle import cases

torch.set_num_threads(1)


def refusal(call, *args, **kwargs):
    with pytest.raises(SecateurError) as caught:
        call(*args, **kwargs)
    return caught.value


def test_padding_changes_neither_loss_nor_gradient_nor_curvature():
    case = cases.make("transformer-causal_lm")
    tokens, target = case.data.inputs["tokens"], case.data.target
    everything = torch.arange(len(case.weights))

    def known(data):
        rows = torch.cat(list(per_sample.gradients(case.network, data, case.loss)))
        matrix = full.compute(case.network, data, case.loss, everything).values
        evaluation = evaluate(case.module, data, case.loss, ("accuracy",))
        return evaluation.loss, evaluation.metrics["accuracy"], rows, matrix

    padded = ArrayData(
        {"tokens": torch.cat([tokens, torch.zeros(len(tokens), 3, dtype=torch.long)], 1)},
        torch.cat([target, torch.full((len(tokens), 3), IGNORED)], 1),
    )
    for a, b in zip(known(case.data), known(padded), strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=1e-15)
    # Other tokens where nothing counts would be other data: the check can fail.
    unmasked = ArrayData(case.data.inputs, tokens)
    assert abs(known(unmasked)[0] - known(case.data)[0]) > 1e-3


def test_causal_lm_accuracy_counts_labelled_positions():
    outputs = torch.eye(4).repeat(1, 1, 1) * 5  # position t predicts token t
    target = torch.tensor([[3, 0, 2, IGNORED]])  # asks for 0 and 2 after positions 0 and 1
    assert LOSSES["causal_lm"].correct(outputs, target).tolist() == [0.5]


def test_bce_accuracy_is_the_share_of_right_sides():
    outputs, target = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1, 1, 1]])
    assert LOSSES["bce"].correct(outputs, target).tolist() == [pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("name", "outputs", "target"),
    [
        ("bce", (4, 3), torch.zeros(4)),
        ("bce", (4, 3), torch.full((4, 3), 2)),
        ("bce", (4, 3), torch.full((4, 3), -0.5)),
        ("causal_lm", (4, 3), torch.zeros(4, 3, dtype=torch.long)),
        ("causal_lm", (4, 3, 5), torch.zeros(4, 3)),
        ("causal_lm", (4, 3, 5), torch.full((4, 3), 5)),
        ("causal_lm", (4, 3, 5), torch.full((4, 3), -1)),
        ("causal_lm", (4, 3, 5), torch.full((4, 3), IGNORED)),
        ("causal_lm", (4, 1, 5), torch.zeros(4, 1, dtype=torch.long)),
    ],
)
def test_targets_that_do_not_fit_are_refused(name, outputs, target):
    assert refusal(LOSSES[name].check, torch.zeros(outputs), target).code == "target_invalid"


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "match_dense"])
def test_losses_with_labels_need_them(name):
    assert refusal(LOSSES[name].check, torch.zeros(4, 3), None).code == "labels_missing"


def test_kl_needs_scores():
    assert refusal(MatchDenseKL().check, torch.zeros(4), torch.zeros(4)).where.endswith("distance")


@pytest.mark.parametrize("distance", ["squared", "kl"])
@pytest.mark.parametrize("inverse", ["full", "kfac", "ekfac"])
def test_match_dense_prunes_without_labels(distance, inverse):
    case = cases.make("mlp-cross_entropy", samples=60)
    spec = {
        "objective": {"loss": "match_dense", "distance": distance},
        "criterion": {"kind": "obs", "inverse": inverse},
        "target": {"sparsity": 0.4},
    }
    outcome = prune(case.module, ArrayData(case.data.inputs), spec)
    report = outcome.report
    assert abs(report.loss.dense) < 1e-15
    assert report.loss.pruned > 0
    assert report.metrics.dense == {}
    magnitude = {**spec, "criterion": {"kind": "magnitude"}}
    other = prune(case.module, ArrayData(case.data.inputs), magnitude).report
    assert report.loss.pruned < other.loss.pruned


@pytest.mark.parametrize(
    "criterion",
    [
        {"kind": "obd", "curvature": "empirical_fisher"},
        {"kind": "obs", "inverse": "block_fisher"},
        {"kind": "obs", "inverse": "low_rank"},
        {"kind": "obs", "inverse": "full", "curvature": "empirical_fisher"},
    ],
)
def test_curvature_that_is_zero_by_construction_is_refused(criterion):
    case = cases.make("mlp-cross_entropy", samples=30)
    spec = {"objective": {"loss": "match_dense"}, "criterion": criterion}
    error = refusal(prune, case.module, case.data, spec)
    assert error.code == "spec_conflict"
    assert "zero at the dense weights" in error.message
    assert "Gauss-Newton" in error.hint


CRITERIA = [
    ({"kind": "obs", "inverse": "full", "curvature": "hessian"}, "hessian_full"),
    ({"kind": "obs", "inverse": "full", "curvature": "empirical_fisher"}, "empirical_fisher_full"),
    ({"kind": "obs", "inverse": "low_rank", "gradients": 20}, "low_rank"),
    ({"kind": "obs", "inverse": "kfac", "damping": 0.01}, "kfac"),
    ({"kind": "obs", "inverse": "ekfac"}, "ekfac"),
    ({"kind": "obd", "curvature": "hessian_diagonal"}, "hessian_diagonal"),
    ({"kind": "obd", "curvature": "hutchinson", "probes": 10}, "hutchinson"),
    ({"kind": "obd", "curvature": "second_backprop"}, "second_backprop"),
    ({"kind": "obd", "curvature": "ggn_mc"}, "ggn_mc"),
]


@pytest.mark.parametrize(("criterion", "kind"), CRITERIA)
def test_every_declared_curvature_prunes_exactly_as_many_as_asked(criterion, kind):
    case = cases.make("mlp-cross_entropy", samples=40)
    report = prune(case.module, case.data, {"criterion": criterion}).report
    assert report.curvature.kind == kind
    assert report.sparsity.removed == 31
    assert report.sparsity.total == 62


class Scaled(torch.nn.Module):
    """Divides by a number that it takes out of a tensor."""

    def forward(self, x):
        return x / max(float(x.detach().abs().max()), 1e-9)


class Looking(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scaled, self.head = torch.nn.Linear(3, 4), Scaled(), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.stack([self.scaled(row) for row in self.first(x)]))


def test_a_layer_that_cannot_be_mapped_over_samples_is_named():
    case = cases.of(Looking, [(3,)], "cross_entropy", samples=20)
    error = refusal(prune, case.module, case.data, {"criterion": {"kind": "obs"}})
    assert (error.code, error.where) == ("operator_unsupported", "scaled")
    assert "Scaled" in error.message
    # Whole batches at a time are no obstacle.
    spec = {"criterion": {"kind": "obd"}}
    assert prune(case.module, case.data, spec).report.sparsity.removed == 12


def test_fused_attention_is_differentiated_as_plain_products():
    layer = torch.nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, dropout=0.0)
    module = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(12, 3))
    case = cases.of(lambda: module, [(3, 4)], "cross_entropy")
    weights = FlatWeights(find_prunable(case.module, Scope(exclude=("*out_proj",))))
    network = Network(case.module, weights)
    rows = torch.cat(list(per_sample.gradients(network, case.data, case.loss)))
    for n in range(case.data.samples):
        case.module.zero_grad()
        one = case.data.select(torch.tensor([n]))
        case.loss.samples(case.module(one.inputs["x0"]), one.target).sum().backward()
        expected = torch.cat([p.weight.grad.flatten() for p in weights.layers])
        torch.testing.assert_close(rows[n], expected, rtol=1e-9, atol=1e-12)

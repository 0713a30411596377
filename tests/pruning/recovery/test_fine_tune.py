"""Zeros stay exactly zero while survivors train, under every optimizer."""

import pytest
import torch
from torch import nn

from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import FlatWeights, find_prunable
from pruning.recovery.fine_tune import recover, round_seed
from pruning.recovery.masking import Masking
from pruning.spec import SGD, Adam, AdamW, FineTune, Scope
from tests.oracle.networks import Tied

torch.set_num_threads(1)
OPTIMIZERS = [
    SGD(lr=0.05, momentum=0.9, weight_decay=0.1),
    Adam(lr=0.01, weight_decay=0.1),
    AdamW(lr=0.01, weight_decay=0.1),
]


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    ).eval()


def data(samples=65, width=5):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(samples, width, generator=g)
    return ArrayData({"x": x}, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def masks_of(module):
    g = torch.Generator().manual_seed(1)
    layers = find_prunable(module, Scope(), None)
    return [(p.weight, torch.rand(p.weight.shape, generator=g) > 0.5) for p in layers]


def train(module, options, masks, seed=11, samples=65):
    masking = Masking(masks)
    masking.weights()
    recover(module, data(samples), LOSSES["cross_entropy"], masking, options, seed=seed)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.kind)
@pytest.mark.parametrize("make", [build, Tied], ids=["batch_norm", "tied"])
def test_removed_weights_stay_positive_zero_and_survivors_move(optimizer, make):
    module = make().eval()
    masks = masks_of(module)
    before = [w.detach().clone() for w, _ in masks]
    train(module, FineTune(epochs=3, batch_size=16, optimizer=optimizer), masks)
    for (weight, kept), old in zip(masks, before, strict=True):
        assert (weight.detach()[~kept].view(torch.int32) == 0).all()
        assert (weight.detach()[kept] != old[kept]).any()
    assert not module.training


def test_training_lowers_the_loss_under_the_mask():
    module = build()
    masks = masks_of(module)
    Masking(masks).weights()
    samples = data()

    def loss():
        outputs = module(samples.inputs["x"])
        return nn.functional.cross_entropy(outputs, samples.target).item()

    before = loss()
    train(module, FineTune(epochs=20, batch_size=16, optimizer=Adam(lr=0.01)), masks)
    assert loss() < 0.8 * before


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generator_did():
    results = []
    for noise in (1, 2):
        module = build()
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        train(module, FineTune(epochs=2, batch_size=16), masks_of(module))
        assert torch.equal(torch.random.get_rng_state(), state)
        results.append(module.state_dict())
    assert all(torch.equal(results[0][k], results[1][k]) for k in results[0])


def test_another_seed_gives_another_order():
    results = []
    for seed in (round_seed(0, 1), round_seed(0, 2)):
        module = build()
        train(module, FineTune(epochs=1, batch_size=16), masks_of(module), seed=seed)
        results.append(module[0].weight.detach())
    assert not torch.equal(*results)


def test_weights_and_moments_of_removed_weights_are_reset_even_from_nan():
    weight = nn.Parameter(torch.ones(4))
    kept = torch.tensor([True, False, True, False])
    optimizer = torch.optim.Adam([weight])
    masking = Masking([(weight, kept)])
    weight.grad = torch.tensor([1.0, float("nan"), 1.0, float("inf")])
    masking.step(optimizer)
    assert torch.isfinite(weight).all()
    assert (optimizer.state[weight]["exp_avg"][~kept] == 0).all()
    assert (weight.detach()[~kept].view(torch.int32) == 0).all()


def test_divergence_is_an_error_that_names_the_learning_rate():
    module = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    options = FineTune(epochs=50, batch_size=8, optimizer=SGD(lr=1e30))
    with pytest.raises(SecateurError) as caught:
        train(module, options, masks_of(module))
    assert caught.value.code == "loss_non_finite"
    assert caught.value.where == "spec.recovery.optimizer.lr"


def test_flat_weights_hold_a_tied_parameter_once():
    module = Tied()
    assert len(FlatWeights(find_prunable(module, Scope(), None))) == 25 + 15


@pytest.mark.parametrize(("batch_size", "samples"), [(1, 20), (16, 1)])
def test_batch_norm_with_batches_of_one_is_refused_and_not_skipped(batch_size, samples):
    module = build()
    with pytest.raises(SecateurError) as caught:
        train(module, FineTune(batch_size=batch_size), masks_of(module), samples=samples)
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.recovery.batch_size")


@pytest.mark.parametrize("labels", [torch.full((8,), 0.7), torch.full((8,), 3)])
def test_training_labels_are_checked(labels):
    module = build()
    with pytest.raises(SecateurError) as caught:
        recover(
            module,
            ArrayData({"x": torch.randn(8, 5)}, labels),
            LOSSES["cross_entropy"],
            Masking(masks_of(module)),
            FineTune(),
            seed=0,
        )
    assert caught.value.code == "target_invalid"

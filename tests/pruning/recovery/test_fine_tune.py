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
from pruning.recovery.setting import Setting
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
    layers = find_prunable(module, Scope())
    return [(p.weight, torch.rand(p.weight.shape, generator=g) > 0.5) for p in layers]


def train(module, options, masks, seed=11, samples=65):
    loss = LOSSES["cross_entropy"]
    return recover(Setting(module, data(samples), loss, Masking(masks), seed), options)


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


def test_divergence_is_an_error_that_names_the_learning_rate():
    module = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    options = FineTune(epochs=50, batch_size=8, optimizer=SGD(lr=1e30))
    with pytest.raises(SecateurError) as caught:
        train(module, options, masks_of(module))
    assert caught.value.code == "loss_non_finite"
    assert caught.value.where == "spec.recovery.optimizer.lr"


def test_flat_weights_hold_a_tied_parameter_once():
    module = Tied()
    assert len(FlatWeights(find_prunable(module, Scope()))) == 25 + 15


@pytest.mark.parametrize(("batch_size", "samples"), [(1, 20), (16, 1)])
def test_batch_norm_with_batches_of_one_is_refused_and_not_skipped(batch_size, samples):
    module = build()
    with pytest.raises(SecateurError) as caught:
        train(module, FineTune(batch_size=batch_size), masks_of(module), samples=samples)
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.recovery.batch_size")


@pytest.mark.parametrize("labels", [torch.full((8,), 0.7), torch.full((8,), 3)])
def test_training_labels_are_checked(labels):
    module = build()
    samples = ArrayData({"x": torch.randn(8, 5)}, labels)
    setting = Setting(module, samples, LOSSES["cross_entropy"], Masking(masks_of(module)), 0)
    with pytest.raises(SecateurError) as caught:
        recover(setting, FineTune())
    assert caught.value.code == "target_invalid"


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_cut_into_parts_has_the_gradient_of_the_whole(parts):
    """In float64, with a last batch that the parts do not divide evenly."""
    found = []
    for accumulate in (1, parts):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
        x = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)).double()
        samples = ArrayData({"x": x}, (x[:, 0] > 0).long())
        options = FineTune(
            epochs=2, batch_size=16, accumulate=accumulate, optimizer=SGD(lr=0.1), clip=0.3
        )
        masking = Masking(masks_of(module))
        recover(Setting(module, samples, LOSSES["cross_entropy"], masking, 4), options)
        found.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.allclose(*found, rtol=0, atol=1e-13)


def test_parts_of_one_sample_are_refused_where_batch_norm_trains_and_not_where_it_is_frozen():
    module = build()
    with pytest.raises(SecateurError, match="part of it"):
        train(module, FineTune(batch_size=4, accumulate=3), masks_of(module))
    train(
        module,
        FineTune(epochs=1, batch_size=4, accumulate=3, batch_norm="freeze"),
        masks_of(module),
    )


def test_frozen_batch_norm_keeps_its_statistics_and_a_trained_one_does_not():
    for mode, same in (("freeze", True), ("train", False)):
        module = build()
        before = module[1].running_mean.clone()
        train(module, FineTune(epochs=1, batch_norm=mode), masks_of(module))
        assert torch.equal(before, module[1].running_mean) == same


def test_the_clipped_norm_is_that_of_the_survivors():
    """One step of plain descent: it is as long as rate times the limit."""
    module = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).double().eval()
    masks = masks_of(module)
    Masking(masks).weights()
    before = [p.detach().clone() for p in module.parameters()]
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1)).double() * 10
    samples = ArrayData({"x": x}, (x[:, 0] > 0).long())
    optimizer = SGD(lr=0.1, momentum=0.0)
    options = FineTune(epochs=1, batch_size=16, optimizer=optimizer, clip=0.01)
    recover(Setting(module, samples, LOSSES["cross_entropy"], Masking(masks), 0), options)
    moved = torch.cat(
        [(p.detach() - b).flatten() for p, b in zip(module.parameters(), before, strict=True)]
    )
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_rates_enter_at_the_epoch_that_training_begins_with():
    """As the last two epochs of four: the same rates, half the steps."""
    seen = []

    class Watching(Masking):
        def gradients(self, at):
            seen.append((at.step, at.rate))
            super().gradients(at)

    module = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    options = FineTune(epochs=4, batch_size=16, optimizer=SGD(lr=1.0), rates={"kind": "cosine"})
    for first in (0, 2):
        loss, masking = LOSSES["cross_entropy"], Watching(masks_of(module))
        recover(Setting(module, data(), loss, masking, 0, first=first), options)
    assert len(seen) == 20 + 10
    assert seen[20:] == seen[10:20]

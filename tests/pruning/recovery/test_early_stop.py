"""Training ends when the held-out loss stops to fall, and the best epoch is kept."""

import pytest
import torch
from torch import nn

from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.metrics import evaluate
from pruning.recovery import trainer
from pruning.recovery.early_stop import Best, split
from pruning.recovery.fine_tune import recover
from pruning.recovery.masking import Masking
from pruning.recovery.setting import Setting
from pruning.spec import SGD, FineTune
from pruning.spec.recovery import EarlyStop

torch.set_num_threads(1)
LOSS = LOSSES["cross_entropy"]


def noisy(count=40):
    """Labels that can be learnt by heart and not understood."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=g)
    return ArrayData({"x": x}, torch.randint(2, (count,), generator=g))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 2)
        ).eval()


def options(epochs, stop):
    return FineTune(epochs=epochs, batch_size=10, optimizer=SGD(lr=0.3), early_stop=stop)


def losses_by_epoch(epochs, share):
    """The held-out loss after each epoch, of a training that is never stopped."""
    never = EarlyStop(share=share, patience=1000)
    seen = []

    class Seeing(Best):
        def see(self, module, loss, epoch):
            seen.append((loss, {k: v.clone() for k, v in module.state_dict().items()}))
            super().see(module, loss, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Best", Seeing)
        recover(Setting(network(), noisy(), LOSS, Masking([]), 3), options(epochs, never))
    return seen


@pytest.mark.parametrize("patience", [1, 3])
def test_the_best_epoch_before_patience_ran_out_is_kept(patience):
    seen = losses_by_epoch(25, 0.25)
    best = waited = epochs = 0
    for number, (loss, _) in enumerate(seen):
        epochs = number + 1
        waited = 0 if number == 0 or loss < seen[best][0] else waited + 1
        best = best if waited else number
        if waited == patience:
            break
    module = network()
    notes = recover(
        Setting(module, noisy(), LOSS, Masking([]), 3),
        options(25, EarlyStop(share=0.25, patience=patience)),
    )
    assert epochs < 25
    assert all(torch.equal(v, seen[best][1][k]) for k, v in module.state_dict().items())
    assert f"{epochs} of 25 epochs" in notes[0]
    assert f"after {best + 1}." in notes[0]
    _, held = split(noisy(), 0.25, 3)
    assert evaluate(module, held, LOSS).loss == pytest.approx(seen[best][0], rel=1e-6)


@pytest.mark.parametrize(("share", "held"), [(0.25, 10), (0.01, 1), (0.5, 20)])
def test_the_split_is_a_partition_that_follows_from_the_seed(share, held):
    data = noisy()
    for seed in (0, 1):
        index, apart = split(data, share, seed)
        assert len(index) == 40 - held
        joined = torch.cat([data.select(index).inputs["x"], apart.inputs["x"]])
        assert torch.equal(joined.sort(0).values, data.inputs["x"].sort(0).values)
    assert torch.equal(split(data, share, 1)[0], split(data, share, 1)[0])
    assert not torch.equal(split(data, share, 0)[0], split(data, share, 1)[0])


def test_held_out_samples_do_not_train():
    """Their labels may be anything: the weights of a fixed number of epochs are the same."""
    found = []
    for spoil in (False, True):
        data = noisy()
        index, _ = split(data, 0.25, 3)
        labels = 1 - data.target
        labels[index] = data.target[index]
        data = ArrayData(data.inputs, labels if spoil else data.target)
        module = network()
        recover(Setting(module, data, LOSS, Masking([]), 3), options(1, EarlyStop(share=0.25)))
        found.append(module.state_dict())
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


def test_a_single_sample_is_too_few():
    with pytest.raises(SecateurError) as caught:
        recover(Setting(network(), noisy(1), LOSS, Masking([]), 3), options(2, EarlyStop()))
    assert caught.value.code == "data_empty"

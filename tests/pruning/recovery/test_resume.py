"""A training that is killed between epochs goes on to the same bits."""

import shutil

import pytest
import torch
from torch import nn

from pruning import checkpoint
from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.loop import prune
from pruning.recovery.fine_tune import recover
from pruning.recovery.masking import Masking
from pruning.recovery.setting import Setting
from pruning.report.schema import results_json
from pruning.spec import SGD, Adam, AdamW, FineTune

torch.set_num_threads(1)


class Memory:
    """Keeps every epoch, and gives back one of them."""

    def __init__(self, given=None):
        self.given, self.kept = given, []

    def due(self):
        return True

    def find(self):
        return self.given

    def keep(self, tensors, values):
        copies = {k: v.detach().clone() for k, v in tensors.items()}
        self.kept.append((copies, dict(values)))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3)
        ).eval()


def data():
    x = torch.randn(45, 5, generator=torch.Generator().manual_seed(1))
    return ArrayData({"x": x}, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def run(options, saved):
    module = network()
    kept = torch.rand(12, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    masking = Masking([(module[0].weight, kept)])
    setting = Setting(module, data(), LOSSES["cross_entropy"], masking, 9, saved=saved)
    notes = recover(setting, options)
    return module.state_dict(), notes


WAYS = {
    "sgd": {"optimizer": SGD(lr=0.1, weight_decay=0.01)},
    "adam": {"optimizer": Adam(lr=0.01), "rates": {"kind": "one_cycle"}, "clip": 0.5},
    "adamw": {"optimizer": AdamW(lr=0.01), "rates": {"kind": "cosine"}, "accumulate": 2},
    "early stop": {"optimizer": SGD(lr=0.5), "early_stop": {"share": 0.3, "patience": 2}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_that_goes_on_after_any_epoch_gives_the_same_bits(way):
    options = FineTune.model_validate({"epochs": 8, "batch_size": 10, **WAYS[way]})
    whole, notes = run(options, None)
    memory = Memory()
    run(options, memory)
    assert len(memory.kept) == 8 if way != "early stop" else 2 < len(memory.kept) < 8
    for snapshot in memory.kept:
        tensors, values = snapshot
        resumed, again = run(options, Memory((dict(tensors), values)))
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)
        assert again == notes


SPEC = {
    "criterion": {"kind": "magnitude"},
    "target": {"sparsity": 0.5},
    "schedule": {"kind": "rounds", "rounds": 2},
    "recovery": {
        "kind": "fine_tune",
        "epochs": 3,
        "batch_size": 10,
        "distill": {"features": ["0"]},
        "early_stop": {"patience": 3},
    },
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
}


def bits(outcome):
    state = outcome.module.state_dict()
    return [t.contiguous().numpy().tobytes() for t in state.values()], results_json(outcome.report)


def test_a_job_killed_inside_a_round_gives_the_same_model_and_report(tmp_path, monkeypatch):
    samples = data()
    pair = (samples.inputs["x"], samples.target)
    whole = bits(prune(network(), pair, SPEC))
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    names = []

    def follow(event):
        if event.type == "checkpoint":
            names.append(event.name)
            shutil.copytree(tmp_path / "all", tmp_path / f"at-{len(names)}")

    assert bits(prune(network(), pair, SPEC, checkpoints=tmp_path / "all", emit=follow)) == whole
    step = ["train-{}.safetensors"] * 3 + ["round-{}.safetensors"]
    assert names == [name.format(n) for n in (1, 2) for name in step]
    for number, left in ((1, 7), (2, 6), (3, 5), (6, 2)):
        again = []

        def count(event, again=again):
            if event.type == "checkpoint":
                again.append(event.name)

        folder = tmp_path / f"at-{number}"
        assert bits(prune(network(), pair, SPEC, checkpoints=folder, emit=count)) == whole
        # Epochs that were kept are not trained again.
        assert again == names[-left:]


def test_short_trainings_write_no_epochs(tmp_path):
    samples = data()
    prune(network(), (samples.inputs["x"], samples.target), SPEC, checkpoints=tmp_path)
    assert sorted(p.name for p in tmp_path.glob("[rt]*-*")) == [
        "round-1.safetensors",
        "round-2.safetensors",
    ]

"""Bytes, multiply-adds and numbers of weights: what is asked for is what remains, and no less."""

import numpy as np
import pytest
import torch
from torch import nn

from pruning import prune
from pruning.budget import Budget, Part, fewest
from pruning.budget import bytes as bytes_of_file
from pruning.budget.flops import cost
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.formats import sparse
from pruning.layers import layer_facts, prunable_layers
from pruning.schedule.step import removal_target
from pruning.spec import Spec
from pruning.uses import observed
from tests.pruning.targets.nets import POSITIONS, QUICK, convolutional, images

torch.set_num_threads(1)

MAGNITUDE = {"criterion": {"kind": "magnitude"}, "compensation": {"kind": "none"}}
WAYS = {
    "one threshold": MAGNITUDE,
    "shares": MAGNITUDE | {"allocation": {"kind": "erk"}},
    "blocks": MAGNITUDE | {"pattern": {"kind": "block", "shape": [2, 1]}},
    "rounds": MAGNITUDE | {"schedule": {"kind": "rounds", "rounds": 3}},
    "layer by layer": {"compensation": {"kind": "layerwise", "damping": 0.01}},
    "uniform, layer by layer": {
        "compensation": {"kind": "layerwise", "damping": 0.01},
        "allocation": {"kind": "uniform"},
    },
}


def pruned(target, **parts):
    return prune(convolutional(), images(), {"target": target, **QUICK, **parts})


def kept(outcome):
    return [int(mask.sum()) for mask in outcome.masks.values()]


def multiply_adds(counts):
    return sum(u * k for u, k in zip(POSITIONS, counts, strict=True))


DENSE_BYTES = 3_900
"""What the sparse file takes without zeros, about."""

DENSE = multiply_adds([72, 288, 192])


def test_uses_are_counted_in_a_pass():
    net = convolutional()
    found = layer_facts(net, observed(net, images().calibration))
    assert [fact.positions for fact in found] == list(POSITIONS)


def test_a_weight_that_is_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x).relu())

    net = Twice().eval()
    (found,) = layer_facts(net, observed(net, ArrayData({"x": torch.randn(5, 3, 4)})))
    assert (found.positions, found.macs) == (6, 96)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asked", [0.5, 0.13, 1_000])
def test_multiply_adds_meet_the_budget_and_one_weight_fewer_would_not(way, asked):
    outcome = pruned({"flops": asked}, **WAYS[way])
    limit = int(asked * DENSE) if asked < 1 else asked
    found = multiply_adds(kept(outcome))
    report = outcome.report
    assert found <= limit
    assert report.curve[0].multiply_adds == found
    # The last weights that went are together worth no more than their number of the dearest.
    assert limit - found < max(POSITIONS) * (2 if way == "blocks" else 3)
    assert sum(kept(outcome)) == report.sparsity.total - report.sparsity.removed
    zeros = [int((p.weight == 0).sum()) for p in prunable_layers(outcome.module)]
    assert sum(zeros) == report.sparsity.removed


def test_with_one_threshold_no_smaller_number_of_weights_meets_the_budget():
    """By brute force: the same network, all numbers of weights."""
    one_step = {"schedule": {"kind": "one_shot", "recomputations": 1}}
    outcome = pruned({"flops": 700}, **MAGNITUDE, **one_step)
    removed = outcome.report.sparsity.removed
    net = convolutional()
    weights = torch.cat([p.weight.detach().flatten() for p in prunable_layers(net)]).abs()
    uses = torch.tensor(POSITIONS).repeat_interleave(torch.tensor([72, 288, 192]))
    order = weights.argsort(stable=True)
    enough = [DENSE - int(uses[order[:k]].sum()) <= 700 for k in range(553)]
    assert removed == enough.index(True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("saved", [700, 1_300])
def test_the_sparse_file_is_within_the_bytes_that_were_asked_for(way, saved, tmp_path):
    asked = DENSE_BYTES - saved
    outcome = pruned({"bytes": asked}, **WAYS[way])
    tensors = {k: v.numpy() for k, v in outcome.module.state_dict().items()}
    sparse.pack([], tensors, tmp_path / "sparse.safetensors")
    size = (tmp_path / "sparse.safetensors").stat().st_size
    point = outcome.report.curve[0]
    assert size <= point.bytes <= asked
    assert asked - point.bytes < 60


def test_a_share_of_the_bytes_is_of_all_weights():
    whole = sum(p.numel() for p in convolutional().parameters()) * 4

    class Padded(nn.Module):
        """The network beside weights that are large and not in scope."""

        def __init__(self) -> None:
            super().__init__()
            self.net = convolutional()
            self.table = nn.Parameter(torch.ones(20_000))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + self.table[0]

    asked = {"target": {"bytes": 0.999}, **QUICK, **MAGNITUDE}
    with pytest.raises(SecateurError, match=r"takes about 8\d,"):
        prune(Padded(), images(), asked | {"target": {"bytes": 0.5}})
    outcome = prune(Padded(), images(), asked | {"target": {"bytes": 86_000}})
    assert outcome.report.curve[0].bytes <= 86_000
    assert whole < 86_000 - 80_000


def test_a_budget_below_what_stays_anyway_is_refused_with_the_numbers():
    with pytest.raises(SecateurError, match="takes about 1,") as caught:
        pruned({"bytes": 1_500}, **MAGNITUDE)
    assert caught.value.code == "spec_conflict"
    assert caught.value.where == "spec.target.bytes"
    assert caught.value.details["limit"] == 1_500


def test_the_size_of_a_sparse_file_is_known_without_writing_it(tmp_path):
    tensors = {k: v.numpy() for k, v in convolutional().state_dict().items()}
    tensors["0.weight"] = np.where(tensors["0.weight"] > 0, tensors["0.weight"], 0.0)
    raw = tmp_path / "model" / "raw.bin"
    raw.parent.mkdir()
    raw.write_bytes(b"".join(np.ascontiguousarray(t).tobytes() for t in tensors.values()))
    for files in ([], [raw]):
        sparse.pack(files, tensors, tmp_path / "sparse")
        assert sparse.packed_bytes(files, tensors) == (tmp_path / "sparse").stat().st_size


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("shapes", [[(6, 8), (8, 1)], [(32, 16), (4, 32)], [(9, 7, 3, 3)]])
def test_bytes_counted_from_the_dense_file_are_close_to_those_of_the_pruned(
    share, shapes, tmp_path
):
    """By writing both files: never below, and not far above."""
    generator = np.random.default_rng(0)
    dense = {f"w{n}": generator.standard_normal(s).astype("f") for n, s in enumerate(shapes)}
    pruned = {k: np.where(generator.random(w.shape) < share, 0, w) for k, w in dense.items()}

    def packed(tensors):
        raw = tmp_path / "raw.bin"
        raw.write_bytes(b"head" * 50 + b"".join(t.tobytes() for t in tensors.values()))
        return sparse.packed_bytes([raw], tensors)

    parts = [Part(k, w.shape, 4) for k, w in dense.items()]
    whole = packed(dense)
    rest = bytes_of_file.rest_of(whole, parts, [w.size for w in dense.values()])
    cost = bytes_of_file.cost_within(whole)
    kept = [int(np.count_nonzero(w)) for w in pruned.values()]
    counted = rest + sum(cost(p, k) for p, k in zip(parts, kept, strict=True))
    assert 0 <= counted - packed(pruned) <= 240


def test_a_budget_that_is_met_already_removes_nothing():
    assert pruned({"flops": DENSE}, **MAGNITUDE).report.sparsity.removed == 0
    assert pruned({"bytes": 1_000_000}, **MAGNITUDE).report.sparsity.removed == 0


def test_rounds_are_shares_of_the_way_to_the_budget():
    parts = {**MAGNITUDE, "schedule": {"kind": "rounds", "rounds": 4, "curve": "linear"}}
    outcome = pruned({"flops": 0.2}, **parts)
    rounds = outcome.report.rounds
    assert len(rounds) == 4
    assert all(r.removed > 0 for r in rounds)
    assert multiply_adds(kept(outcome)) <= 0.2 * DENSE
    net = convolutional()
    weights = torch.cat([p.weight.detach().flatten() for p in prunable_layers(net)]).abs()
    uses = torch.tensor(POSITIONS).repeat_interleave(torch.tensor([72, 288, 192]))
    order, gone = weights.argsort(stable=True), 0
    for number, done in enumerate(rounds, 1):
        gone += done.removed
        left = DENSE - int(uses[order[:gone]].sum())
        share = round(number / 4 * 442) / 442
        assert left <= DENSE - share * 0.8 * DENSE + 1
        assert left > DENSE - share * 0.8 * DENSE - 80


@pytest.mark.parametrize(
    ("target", "total", "unit", "removed"),
    [
        ({"weights": 30}, 100, 1, 70),
        ({"weights": 0.3}, 100, 1, 70),
        ({"weights": 0.3}, 101, 1, 71),
        ({"weights": 0.29}, 100, 1, 71),
        ({"weights": 30}, 100, 4, 72),
        ({"weights": 1}, 100, 1, 99),
        ({"weights": 200}, 100, 1, 0),
        ({"sparsity": 0.705}, 100, 1, 71),
    ],
)
def test_at_most_so_many_weights_stay(target, total, unit, removed):
    parts = {"pattern": {"kind": "block", "shape": [unit, 1]}} if unit > 1 else {}
    assert removal_target(Spec.model_validate({"target": target, **parts}), total) == removed


def test_weights_are_removed_to_the_number_asked_for():
    assert sum(kept(pruned({"weights": 123}, **MAGNITUDE))) == 123
    assert sum(kept(pruned({"weights": 0.1}, **MAGNITUDE))) == 55


def test_bisection_finds_the_fewest_of_every_threshold():
    for least, most, unit in ((0, 37, 1), (5, 50, 1), (4, 64, 4)):
        for threshold in range(least, most + 1):
            found = fewest(lambda k, t=threshold: k >= t, least, most, unit)
            assert found == min(
                [k for k in range(least, most + 1, unit) if k >= threshold], default=found
            )


def test_a_budget_met_by_all_layers_alike_is_met_by_no_smaller_number():
    parts = [Part("a", (9, 8), 4, 36.0), Part("b", (288,), 4, 4.0), Part("c", (192,), 4, 1.0)]
    budget = Budget("flops", 900, 0, parts, cost)
    count = budget.uniform()
    assert budget.of([p.size - count * p.size // 552 for p in parts]) <= 900
    assert budget.of([p.size - (count - 1) * p.size // 552 for p in parts]) > 900


def test_several_roles_of_data_do_not_change_what_is_counted():
    data = images()
    other = Data(data.calibration.select(slice(0, 7)), data.training, data.evaluation)
    spec = {"target": {"flops": 0.4}, **QUICK, **MAGNITUDE}
    assert kept(prune(convolutional(), other, spec)) == kept(pruned({"flops": 0.4}, **MAGNITUDE))

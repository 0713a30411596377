"""Zeros of an upload stay zero, count among the removed, and are told of."""

from typing import Any

import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.existing import existing_zeros
from pruning.layers import FlatWeights, prunable_layers
from pruning.loop import Outcome, prune
from pruning.plan import plan
from pruning.spec import parse_spec
from tests.pruning.test_plan import dataset, layer, model

torch.set_num_threads(1)

OFF = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}
MAGNITUDE = {"criterion": {"kind": "magnitude"}}
TUNED = {"recovery": {"kind": "fine_tune", "epochs": 2}}
LAYERWISE = {"compensation": {"kind": "layerwise"}}
ONE_STEP = {"kind": "one_shot", "recomputations": 1}
WEIGHTS = 8 * 8 + 8 * 8 + 4 * 8


def network(share: float = 0.7, seed: int = 0) -> nn.Sequential:
    """Three layers of 160 weights, the smallest `share` of them zero, every other one as -0."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    ).eval()
    every = torch.cat([m.weight.detach().abs().flatten() for m in net if isinstance(m, nn.Linear)])
    count = int(share * len(every))
    threshold = every.sort().values[count - 1] if count else -1.0
    for m in net:
        if isinstance(m, nn.Linear):
            zero = m.weight.abs() <= threshold
            m.weight.data[zero] = 0.0
            m.weight.data[zero & (torch.arange(8) % 2 == 1)] = -0.0
    return net


def data(samples: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(samples, 8, generator=g), torch.randint(0, 4, (samples,), generator=g)


def where_zero(net: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach() == 0 for n, p in net.named_parameters() if p.ndim == 2}


def lost(before: nn.Module, done: Outcome) -> int:
    after = where_zero(done.module)
    return sum(int((zero & ~after[name]).sum()) for name, zero in where_zero(before).items())


def masked(done: Outcome) -> int:
    return sum(int((~mask).sum()) for mask in done.masks.values())


def codes(done: Outcome) -> list[str]:
    return [w.code for w in done.report.warnings]


SPECS: list[dict[str, Any]] = [
    {**MAGNITUDE, **TUNED},
    {"criterion": {"kind": "obd"}},
    {"criterion": {"kind": "obs"}, **TUNED},
    {"criterion": {"kind": "obs", "inverse": "kfac"}, "schedule": ONE_STEP},
    {"criterion": {"kind": "obs", "inverse": "block_fisher"}},
    {"criterion": {"kind": "obs"}, "schedule": {"kind": "one_by_one"}},
    {"criterion": {"kind": "random"}},
    {"criterion": {"kind": "wanda"}},
    {**MAGNITUDE, **TUNED, "schedule": {"kind": "rounds", "rounds": 3}},
    {**MAGNITUDE, **TUNED, "schedule": {"kind": "at_initialisation"}},
    {**MAGNITUDE, **TUNED, "schedule": {"kind": "proximal", "epochs": 2}},
    {**MAGNITUDE, **TUNED, "schedule": {"kind": "proximal", "epochs": 2, "method": "l1"}},
    {**MAGNITUDE, "allocation": {"kind": "uniform"}},
    LAYERWISE,
    {**LAYERWISE, **TUNED},
    *({"compensation": {"kind": "layerwise", "solver": s}} for s in ("sparsegpt", "greedy")),
    {"compensation": {"kind": "layerwise", "solver": "least_squares"}},
    {**LAYERWISE, "allocation": {"kind": "search"}},
]  # fmt: skip


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_zeros_stay_and_count_among_the_removed(spec, share):
    before, target = network(share), 0.5
    done = prune(before, data(), {**OFF, **spec, "target": {"sparsity": target}})
    found = sum(int(z.sum()) for z in where_zero(before).values())
    assert lost(before, done) == 0
    assert masked(done) == done.report.sparsity.removed == max(found, WEIGHTS // 2)
    assert done.report.sparsity.found == found
    assert [x.found for x in done.report.layers] == [
        int(z.sum()) for z in where_zero(before).values()
    ]
    assert "zeros_kept" in codes(done)
    assert ("fewer_than_zeros" in codes(done)) == (found > WEIGHTS // 2)


@pytest.mark.parametrize(
    "spec", [{**MAGNITUDE, **TUNED}, {"criterion": {"kind": "obs"}}, LAYERWISE]
)
@pytest.mark.parametrize(
    "pattern", [{"kind": "nm", "n": 2, "m": 4}, {"kind": "block", "shape": [2, 2]}], ids=str
)
def test_zeros_in_groups_stay_and_the_pattern_holds(spec, pattern):
    before = network(0.6)
    # A block and a group of four that are zero as a whole.
    before[0].weight.data[:2, :4] = 0.0
    done = prune(before, data(), {**OFF, **spec, "pattern": pattern})
    assert lost(before, done) == 0
    assert masked(done) == WEIGHTS // 2
    for mask in done.masks.values():
        if pattern["kind"] == "nm":
            assert (mask.unflatten(1, (-1, 4)).sum(2) == 2).all()
        else:
            blocks = mask.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).sum((1, 3))
            assert set(blocks.flatten().tolist()) <= {0, 4}
    if pattern["kind"] == "block":
        assert not done.masks["0.weight"][:2, :4].any()
    else:  # zeros go before weights that are not
        for name, zero in where_zero(before).items():
            zeros, kept = (t.reshape(-1, 4) for t in (zero, done.masks[name]))
            assert torch.equal((zeros & ~kept).sum(1), zeros.sum(1).clamp(max=2))


def test_without_zeros_nothing_changes_and_nothing_is_said():
    net = network(0.0)
    done = prune(net, data(), {**OFF, **MAGNITUDE})
    assert done.report.sparsity.found == 0
    assert not {"zeros_kept", "fewer_than_zeros", "layer_all_zero"} & set(codes(done))


def test_a_few_zeros_by_chance_are_counted_in_silence():
    net = network(0.0)
    net[2].weight.data[3, 3] = 0.0
    done = prune(net, data(), {**OFF, **MAGNITUDE, "target": {"sparsity": 0.5}})
    assert done.report.sparsity.found == 1
    assert masked(done) == WEIGHTS // 2
    assert codes(done) == codes(prune(network(0.0), data(), {**OFF, **MAGNITUDE}))


def test_zeros_are_free_where_the_spec_says_so():
    before = network(0.7)
    spec = {**OFF, **MAGNITUDE, **TUNED, "scope": {"existing_zeros": "free"}}
    done = prune(before, data(), {**spec, "target": {"sparsity": 0.5}})
    assert masked(done) == WEIGHTS // 2
    assert lost(before, done) > 0
    assert "zeros_freed" in codes(done)
    assert done.report.sparsity.found == int(0.7 * WEIGHTS)


def test_a_layer_that_is_zero_as_a_whole_is_named():
    net = network(0.0)
    net[2].weight.data.zero_()
    done = prune(net, data(), {**OFF, **MAGNITUDE, **TUNED})
    told = [w.message for w in done.report.warnings if w.code == "layer_all_zero"]
    assert len(told) == 1
    assert " 2 are zero" in told[0]
    assert lost(net, done) == 0


def test_a_network_of_zeros_alone_is_given_back():
    net = network(0.0)
    for m in (net[0], net[2], net[4]):
        m.weight.data.zero_()
    for spec in (MAGNITUDE, {"criterion": {"kind": "obs"}}, LAYERWISE):
        done = prune(net, data(), {**OFF, **spec})
        assert masked(done) == WEIGHTS


def test_rewinding_leaves_zeros_where_they_were():
    before, earlier = network(0.5), network(0.0, seed=3)
    spec = {
        **OFF,
        **MAGNITUDE,
        **TUNED,
        "schedule": {"kind": "rounds", "rounds": 2, "rewind": {"kind": "weights"}},
        "target": {"sparsity": 0.6},
    }
    for schedule in (spec["schedule"], {"kind": "at_initialisation"}):
        asked = {**spec, "schedule": schedule}
        done = prune(before, data(), asked, rewind_to=earlier.state_dict())
        assert lost(before, done) == 0
        assert masked(done) == round(0.6 * WEIGHTS)


def test_half_types_and_tied_weights():
    net = network(0.6).bfloat16()
    net[2].weight = net[0].weight
    x, y = data()
    done = prune(net, (x.bfloat16(), y), {**OFF, **MAGNITUDE, **TUNED, "target": {"sparsity": 0.8}})
    assert lost(net, done) == 0
    assert masked(done) == round(0.8 * done.report.sparsity.total)
    assert done.module[0].weight is done.module[2].weight


def test_curve_search_and_comparison_hold_the_zeros_too():
    before = network(0.5)
    spec = {
        **OFF,
        **MAGNITUDE,
        "target": {"sparsity": 0.7},
        "curve": {"points": [0.1, 0.2, 0.6, 0.9]},
        "comparison": {"criteria": [{"kind": "random"}, {"kind": "obs"}]},
    }
    done = prune(before, data(), spec)
    assert [p.removed for p in done.report.curve] == [80, 96, 112, 144]
    for _, run in done.study.points:
        done.study.runs.show(run)
        after = where_zero(done.module)
        assert all(after[n][z].all() for n, z in where_zero(before).items())
    assert done.report.comparison is not None
    assert not any(r.error for c in done.report.comparison.criteria for r in c.runs)
    search = {
        **OFF,
        **MAGNITUDE,
        "objective": {"loss": "match_dense", "metrics": ["cosine"]},
        "target": {"max_drop": {"metric": "cosine", "drop": 0.05, "probes": 4}},
    }
    done = prune(before, data()[0], search)
    assert lost(before, done) == 0
    assert done.report.sparsity.removed >= 80


@pytest.mark.parametrize("target", [{"flops": 0.3}, {"flops": 0.45}, {"flops": 0.9}])
def test_budgets_count_the_zeros_that_are_there(target):
    before = network(0.5)
    done = prune(before, data(), {**OFF, **MAGNITUDE, "target": target})
    assert lost(before, done) == 0
    budget, share = done.report.budget, target["flops"]
    assert budget is not None
    assert budget.limit == int(share * WEIGHTS)
    # Exactly as many go as must, and none where the zeros are enough.
    assert budget.remaining == min(budget.limit, WEIGHTS // 2)
    assert done.report.sparsity.removed == WEIGHTS - budget.remaining


def test_trust_looks_at_the_weights_that_may_go():
    before = network(0.4)
    trust = {"checks": True, "bootstrap": 4, "ladder": True}
    for schedule in ("one_shot", "one_by_one"):
        spec = {"criterion": {"kind": "obs"}, "trust": trust, "target": {"sparsity": 0.8}}
        done = prune(before, data(), {**spec, "schedule": {"kind": schedule}})
        found = done.report.trust
        assert found is not None
        assert found.ladder is not None
        assert found.bootstrap is not None
        assert found.ladder.rungs[-1].removed == 128
        assert found.bootstrap.removed == 64


def test_resumed_jobs_hold_the_zeros(tmp_path):
    before = network(0.5)
    spec = {**OFF, **MAGNITUDE, **TUNED, "schedule": {"kind": "rounds", "rounds": 2}}
    asked = {**spec, "target": {"sparsity": 0.8}}
    whole = prune(before, data(), asked, checkpoints=tmp_path)
    (tmp_path / "round-2.safetensors").unlink()
    again = prune(before, data(), asked, checkpoints=tmp_path)
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, again.module.state_dict()[name])
    assert lost(before, again) == 0


def test_which_zeros_count_as_removed_by_pattern():
    net = nn.Sequential(nn.Linear(4, 2))
    net[0].weight.data = torch.tensor([[0.0, -0.0, 0.0, 1.0], [0.0, 0.0, 2.0, 3.0]])
    weights = FlatWeights(prunable_layers(net))

    def gone(spec: dict[str, Any]) -> int:
        return existing_zeros(weights, parse_spec(spec)).removed

    assert gone({}) == 5
    assert gone({"pattern": {"kind": "block", "shape": [2, 2]}}) == 4
    assert gone({"pattern": {"kind": "nm"}}) == 0
    assert gone({"scope": {"existing_zeros": "free"}}) == 0


def test_plans_know_zeros_of_the_facts():
    layers = [layer("fc1", 16, 64, zeros=700), layer("fc2", 10, 16, zeros=0, is_output=True)]
    spec = parse_spec({**MAGNITUDE, "target": {"sparsity": 0.5}})
    planned = plan(spec, model(layers), {"calibration": dataset()})
    assert (planned.zeros, planned.remove) == (700, 700)
    assert {"zeros_kept", "fewer_than_zeros"} <= {w.code for w in planned.warnings}
    old = plan(spec, model(), {"calibration": dataset()})  # facts of an earlier version
    assert (old.zeros, old.remove) == (None, 592)


def test_recovery_leaves_zeros_of_layers_out_of_scope():
    before = network(0.6)
    before[2].weight.data.zero_()
    asked = {**OFF, **MAGNITUDE, **TUNED, "scope": {"exclude": ["0", "2"]}}
    done = prune(before, data(), asked)
    zero = where_zero(before)["0.weight"]
    assert bool((done.module[0].weight[zero] == 0).all())
    assert not torch.equal(done.module[0].weight, before[0].weight)
    # One that is zero as a whole has yet to be trained.
    assert bool(done.module[2].weight.any())


def test_recovery_leaves_zeros_of_tables():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
            self.empty, self.fc = nn.Parameter(torch.zeros(5, 8)), nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.fc((self.embed(ids) + self.place + self.empty).mean(1))

    torch.manual_seed(0)
    before = Words().eval()
    before.embed.weight.data[3] = 0.0
    before.place.data[2, :4] = 0.0
    before.fc.bias.data[0] = 0.0
    ids = torch.randint(7, (60, 5), generator=torch.Generator().manual_seed(1))
    after = prune(before, (ids, torch.arange(60) % 3), {**OFF, **MAGNITUDE, **TUNED}).module
    for old, new in ((before.embed.weight, after.embed.weight), (before.place, after.place)):
        assert torch.equal(new == 0, old == 0)
        assert not torch.equal(new, old)
    assert bool(after.empty.any())
    assert bool(after.fc.bias[0])


def test_blocks_that_do_not_divide_are_refused_with_zeros_too():
    net = network(0.5)
    with pytest.raises(SecateurError) as caught:
        prune(net, data(), {**OFF, **MAGNITUDE, "pattern": {"kind": "block", "shape": [7, 7]}})
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.pattern")


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(SecateurError):
        parse_spec({"scope": {"existing_zeros": "sometimes"}})

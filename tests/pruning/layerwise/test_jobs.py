"""Layer-wise pruning as a job asks for it: exactly k, every pattern and allocation, resumable."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.report.schema import results_json
from pruning.trust import ladder

torch.set_num_threads(1)


class Residual(nn.Module):
    """Convolutions, plain, grouped and depthwise, with a residual sum and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(8, 16, 3, stride=2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + self.grouped(x).relu()
        return self.head(self.wide(x).relu().mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def inputs(count: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, 6, 6, generator=generator)


def spec(**parts):
    compensation = {"kind": "layerwise", **parts.pop("compensation", {})}
    return {
        "objective": {"loss": "match_dense"},
        "compensation": compensation,
        "trust": {"checks": False},
        **parts,
    }


def zeros(outcome) -> int:
    layers = [m for m in outcome.module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(int((~m).sum()) for m in outcome.masks.values()) == outcome.report.sparsity.removed
    for name, mask in outcome.masks.items():
        weight = outcome.module.get_parameter(name)
        assert not bool(weight[~mask].any())
    return sum(int((layer.weight == 0).sum()) for layer in layers)


@pytest.mark.parametrize("solver", ["admm", "sparsegpt", "greedy", "least_squares"])
@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.7])
def test_exactly_as_many_weights_go_as_were_asked_for(solver, sparsity):
    wanted = spec(compensation={"solver": solver}, target={"sparsity": sparsity})
    outcome = prune(network(), inputs(), wanted)
    total = outcome.report.sparsity.total
    assert zeros(outcome) == outcome.report.sparsity.removed == int(sparsity * total + 0.5)


@pytest.mark.parametrize("kind", ["uniform", "global", "erk", "owl", "search"])
def test_every_allocation_adds_up(kind):
    wanted = spec(allocation={"kind": kind}, target={"sparsity": 0.6})
    outcome = prune(network(), inputs(), wanted)
    assert zeros(outcome) == int(0.6 * outcome.report.sparsity.total + 0.5)


@pytest.mark.parametrize("budget", ["flops", "time"])
def test_a_budget_is_met_by_the_layers_that_use_it(budget):
    wanted = spec(allocation={"kind": "search", "budget": budget}, target={"sparsity": 0.5})
    report = prune(network(), inputs(), wanted).report
    if budget == "flops":
        uses = {"stem": 36, "grouped": 36, "wide": 4, "head": 1}
        saved = sum(uses[layer.name] * layer.removed for layer in report.layers)
        whole = sum(uses[layer.name] * layer.parameters for layer in report.layers)
        assert 0.5 * whole <= saved <= 0.5 * whole + max(uses.values())
    assert 0 < report.sparsity.removed < report.sparsity.total


@pytest.mark.parametrize("solver", ["admm", "sparsegpt", "greedy", "least_squares"])
def test_two_of_four_neighbouring_channels_stay(solver):
    wanted = spec(compensation={"solver": solver}, pattern={"kind": "nm", "n": 2, "m": 4})
    outcome = prune(network(), inputs(), wanted)
    for mask in outcome.masks.values():
        channels = mask.movedim(1, -1).unflatten(-1, (-1, 4))
        assert bool((channels.sum(-1) == 2).all())


@pytest.mark.parametrize("solver", ["admm", "sparsegpt", "greedy", "least_squares"])
@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2)])
def test_blocks_go_as_a_whole(solver, shape):
    wanted = spec(
        compensation={"solver": solver},
        pattern={"kind": "block", "shape": shape},
        target={"sparsity": 0.5},
    )
    outcome = prune(network(), inputs(), wanted)
    for mask in outcome.masks.values():
        blocks = mask.unflatten(0, (-1, shape[0])).movedim(2, -1).unflatten(-1, (-1, shape[1]))
        sums = blocks.movedim(1, -2).sum((-1, -2))
        assert set(sums.flatten().tolist()) <= {0, shape[0] * shape[1]}
    assert zeros(outcome) % (shape[0] * shape[1]) == 0


@pytest.mark.parametrize("criterion", ["magnitude", "obd", "wanda"])
@pytest.mark.parametrize("pattern", [{"kind": "nm"}, {"kind": "block", "shape": (1, 4)}])
def test_patterns_hold_for_criteria_over_the_whole_network(criterion, pattern):
    labels = torch.arange(60) % 4
    wanted = {"criterion": {"kind": criterion}, "pattern": pattern, "trust": {"checks": False}}
    outcome = prune(network(), (inputs(), labels), wanted)
    groups = [m.movedim(1, -1).unflatten(-1, (-1, 4)).sum(-1) for m in outcome.masks.values()]
    allowed = {2} if pattern["kind"] == "nm" else {0, 4}
    assert set(torch.cat([g.flatten() for g in groups]).tolist()) <= allowed
    assert outcome.report.sparsity.achieved == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pattern", "rungs"),
    [({"kind": "nm"}, [1.0]), ({"kind": "block", "shape": (1, 4)}, [i / 10 for i in range(1, 11)])],
)
def test_a_rung_of_the_ladder_removes_what_it_says(monkeypatch, pattern, rungs):
    seen = []
    rung = ladder._Ground.rung

    def watched(self, change, about, predicted):
        if about.total == len(self.weights):
            seen.append((about.removed, int((self.weights + change == 0).sum())))
        return rung(self, change, about, predicted)

    monkeypatch.setattr(ladder._Ground, "rung", watched)
    wanted = {
        "criterion": {"kind": "obd"},
        "pattern": pattern,
        "trust": {"checks": False, "bootstrap": 0},
    }
    report = prune(network(), (inputs(), torch.arange(60) % 4), wanted).report
    target, unit = report.sparsity.removed, 1 if pattern["kind"] == "nm" else 4
    assert [told for told, _ in seen] == [unit * int(r * target / unit + 0.5) for r in rungs]
    assert all(told == gone for told, gone in seen)


def test_rounds_never_bring_a_weight_back_and_end_at_the_target():
    wanted = spec(target={"sparsity": 0.7}, schedule={"kind": "rounds", "rounds": 3})
    outcome = prune(network(), inputs(), wanted)
    removed = [r.removed for r in outcome.report.rounds]
    assert len(removed) == 3
    assert sum(removed) == zeros(outcome) == int(0.7 * outcome.report.sparsity.total + 0.5)


def test_solving_for_the_survivors_beats_leaving_them_and_admm_beats_both():
    def loss(**parts) -> float:
        value = prune(network(), inputs(), {**spec(target={"sparsity": 0.6}), **parts}).report.loss
        assert value.pruned is not None
        return value.pruned

    left = loss(criterion={"kind": "wanda"}, compensation={"kind": "none"})
    solved = loss(criterion={"kind": "wanda"}, compensation={"kind": "layerwise",
                                                            "solver": "least_squares"})  # fmt: skip
    best = loss()
    assert best < solved < left


def test_a_resumed_run_gives_the_same_bytes_wherever_it_was_cut_off(tmp_path):
    wanted = spec(
        target={"sparsity": 0.6},
        allocation={"kind": "global"},
        schedule={"kind": "rounds", "rounds": 2},
    )
    whole = prune(network(), inputs(), wanted)

    class KilledError(Exception):
        pass

    saved = 0
    for stop in (1, 3, 5, 8):

        def emit(event, stop=stop):
            nonlocal saved
            if event.type == "checkpoint":
                saved += 1
                if saved == stop:
                    raise KilledError

        with pytest.raises(KilledError):
            prune(network(), inputs(), wanted, emit=emit, checkpoints=tmp_path)
    resumed = prune(network(), inputs(), wanted, checkpoints=tmp_path)
    assert results_json(resumed.report) == results_json(whole.report)
    for (name, a), b in zip(
        whole.module.state_dict().items(), resumed.module.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_what_was_left_to_the_job_is_reported_with_what_was_taken():
    report = prune(network(), inputs(), spec(compensation={"damping": "auto"})).report
    taken = {s.where: s.used for s in report.substitutions}
    assert taken["spec.compensation.solver"] == "admm"
    assert taken["spec.compensation.damping"] == f"{report.rounds[0].damping:g}"
    assert report.spec.compensation.damping == "auto"


def test_layers_are_reported_with_what_their_outputs_lost():
    report = prune(network(), inputs(), spec(target={"sparsity": 0.5})).report
    assert [o.layer for o in report.layer_outputs] == [
        "stem.weight", "grouped.weight", "wide.weight", "head.weight",
    ]  # fmt: skip
    assert all(0 < (o.relative_error or 0) < 1 for o in report.layer_outputs)
    assert all(layer.output_error is not None for layer in report.layers)
    uses = [o.columns for o in report.layer_outputs]
    samples = report.data.calibration.samples
    assert uses == [36 * samples, 36 * samples, 4 * samples, samples]


def test_more_weights_gone_never_brings_less_error():
    errors = []
    for sparsity in (0.2, 0.4, 0.6, 0.8):
        wanted = spec(target={"sparsity": sparsity}, allocation={"kind": "uniform"})
        report = prune(network(), inputs(), wanted).report
        errors.append(report.layer_outputs[0].relative_error)
    assert all(a < b for a, b in pairwise(errors))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"pattern": {"kind": "nm", "n": 2, "m": 3}}, "do not divide 4 of 4 layers"),
        ({"criterion": {"kind": "magnitude"}}, "chooses the mask itself"),
        ({"schedule": {"kind": "one_by_one"}}, "one_by_one"),
        (
            {
                "criterion": {"kind": "obs"},
                "compensation": {"kind": "obs"},
                "schedule": {"kind": "one_by_one"},
                "pattern": {"kind": "block"},
            },
            "needs pattern unstructured",
        ),
        ({"pattern": {"kind": "nm"}, "target": {"sparsity": 0.7}}, "leave target and curve out"),
    ],
)
def test_what_can_not_be_is_refused_with_what_to_change(parts, words):
    with pytest.raises(SecateurError, match=words):
        prune(network(), inputs(), spec(**parts))


def test_automatic_damping_takes_the_lowest_held_out_loss_of_whole_walks():
    wanted = spec(target={"sparsity": 0.7}, compensation={"damping": "auto"})
    report = prune(network(), inputs(), wanted).report
    trials = {t.damping: t.loss for t in report.damping_sweep}
    assert len(trials) >= 5
    (chosen,) = [t for t in report.damping_sweep if t.chosen]
    assert chosen.loss == pytest.approx(min(trials.values()), rel=1e-3)
    assert report.rounds[0].damping == chosen.damping
    # The trial is a walk over the part that is not held out, measured on the part that is.
    rest, held = ArrayData({"input": inputs()}).split(0.2, 0)
    rest, kept = rest.split(0.2, 0)
    again = prune(
        network(),
        Data(rest, rest, held),
        spec(target={"sparsity": 0.7}, compensation={"damping": chosen.damping}),
    )
    with torch.no_grad():
        apart = again.module(*kept.inputs.values()) - network()(*kept.inputs.values())
    assert float(apart.square().mean()) == pytest.approx(chosen.loss, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_precision_are_solved_and_written_back_as_they_came(dtype):
    x, module = inputs().to(dtype), network().to(dtype)
    wanted = spec(target={"sparsity": 0.5}, allocation={"kind": "uniform"})
    outcome, single = prune(module, x, wanted), prune(network(), inputs(), wanted)
    assert zeros(outcome) >= int(0.5 * outcome.report.sparsity.total + 0.5)
    assert all(p.dtype == dtype for p in outcome.module.parameters())
    lost = [r.layer_outputs[-1].relative_error for r in (outcome.report, single.report)]
    assert lost[0] == pytest.approx(lost[1], rel=0.3)
    assert all(bool(p.isfinite().all()) for p in outcome.module.parameters())


def test_dead_inputs_and_a_gram_matrix_without_full_rank_are_solved_exactly_k():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    x = torch.randn(8, 20)  # fewer samples than inputs
    x[:, 3:9] = 0.0
    outcome = prune(module, torch.cat([x, x]), spec(target={"sparsity": 0.5}))
    assert zeros(outcome) == 150
    first = outcome.report.layer_outputs[0]
    assert first.dead_inputs == 6
    # Everything on dead inputs is free and goes before anything else.
    assert not bool(outcome.masks["0.weight"][:, 3:9].any())


class Recurrent(nn.Module):
    """Kinds of layers that only layer-wise pruning knows."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(4, 6, 3, stride=2)
        self.both = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.gates = nn.GRU(16, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x).relu().transpose(1, 2)
        return self.head(self.gates(self.both(y)[0])[0][:, -1])


def test_gates_and_transposed_convolutions_are_pruned_too():
    torch.manual_seed(0)
    module, x = Recurrent().eval(), torch.randn(50, 4, 9)
    outcome = prune(module, x, spec(target={"sparsity": 0.6}))
    report = outcome.report
    names = {layer.name for layer in report.layers}
    assert {"up", "both.weight_hh_l0_reverse", "gates.weight_ih_l0", "head"} <= names
    weights = [p for n, p in module.named_parameters() if "bias" not in n]
    assert report.sparsity.total == sum(w.numel() for w in weights)
    gone = [~mask for mask in outcome.masks.values()]
    assert sum(int(g.sum()) for g in gone) == int(0.6 * report.sparsity.total + 0.5)
    for name, mask in outcome.masks.items():
        assert not bool(outcome.module.get_parameter(name)[~mask].any())
    # Recurrent cells have second derivatives by reverse mode, though not by forward mode.
    assert report.rounds[0].matrix == "hessian"
    ratio = report.loss.measured_increase / report.loss.predicted_increase
    assert 0.4 < ratio < 2.5
    shares = [layer.predicted_loss_increase for layer in report.layers if layer.in_scope]
    assert sum(shares) == pytest.approx(report.loss.predicted_increase, rel=1e-9)

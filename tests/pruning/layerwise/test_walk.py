"""The walk against whole forward passes with hooks, in float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import Prunable, prunable_layers
from pruning.layerwise import Collected, Options, Walk, walk
from pruning.layerwise.order import find_order
from pruning.layerwise.residence import Residence
from pruning.solvers.layer import LayerSolution

DAMPING = 0.01


def half(problem: Collected) -> LayerSolution:
    """The half of the weights with least w^2 H_ii goes; the others stay at the aim."""
    scores = problem.aim.square() * problem.gram.diagonal(dim1=1, dim2=2)[:, None]
    removed = torch.zeros(scores.numel(), dtype=torch.bool)
    removed[scores.flatten().argsort(stable=True)[: scores.numel() // 2]] = True
    removed = removed.view_as(scores)
    return LayerSolution(problem.aim.masked_fill(removed, 0.0), removed)


class Block(nn.Module):
    """Two sums onto a residual stream, one behind a dropout; query and key on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.first, self.second = nn.LayerNorm(6), nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        attention = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(2)
        x = self.first(x + self.dropout(self.out(attention @ x)))
        return self.second(self.down(self.up(x).relu()) + x)


def network(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if kind == "blocks":
        return nn.Sequential(Block(), Block(), nn.Linear(6, 2)).double().eval(), torch.randn(
            10, 4, 6, dtype=torch.float64
        )
    layers = (
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    module = nn.Sequential(*layers).double().eval()
    return module, torch.randn(10, 2, 4, 4, dtype=torch.float64)


STREAMS = {"out": "x", "down": "x"}


def inputs_of(module: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's inputs and outputs in one whole forward pass."""
    found: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(
        lambda _, args, y: found.append((args[0].clone(), y.clone()))
    )
    with torch.no_grad():
        module(x.clone())
    handle.remove()
    return found[0]


def residual_of(module: nn.Module, block: Block, name: str, x: Tensor) -> Tensor:
    """What the output of `out` or `down` is added to."""
    if name == "out":
        return inputs_of(module, block.query, x)[0]
    return inputs_of(module, block.up, x)[0]


def columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Rows u', [g, m, d]."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    patches = nn.functional.unfold(inputs, layer.kernel_size, padding=layer.padding)
    grouped = patches.unflatten(1, (layer.groups, -1))
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def naive(module: nn.Module, x: Tensor, aim: str) -> None:
    """Layer after layer, every input by whole forward passes, every aim by least squares."""
    dense = copy.deepcopy(module)
    for prunable in prunable_layers(module):
        layer, old = module.get_submodule(prunable.layer), dense.get_submodule(prunable.layer)
        groups = getattr(layer, "groups", 1)
        there = columns(old, inputs_of(dense, old, x)[0])
        here = columns(layer, inputs_of(module, layer, x)[0]) if aim != "weights" else there
        gram = here.mT @ here / here.shape[1]
        weight = layer.weight.detach().reshape(groups, layer.weight.shape[0] // groups, -1)
        wanted = (there if aim in ("dense", "stream") else here) @ weight.mT
        owner, _, name = prunable.layer.rpartition(".")
        if aim == "stream" and name in ("out", "down"):
            block, before = module.get_submodule(owner), dense.get_submodule(owner)
            gap = residual_of(dense, before, name, x) - residual_of(module, block, name, x)
            wanted = wanted + gap.reshape(1, -1, gap.shape[-1])
        ridge = DAMPING * gram.diagonal(dim1=1, dim2=2).mean(1)
        root = (ridge * here.shape[1]).sqrt()[:, None, None] * torch.eye(gram.shape[1])
        system = torch.cat([here, root], 1)
        right = torch.cat([wanted, root @ weight.mT], 1)
        found = torch.linalg.lstsq(system, right).solution.mT
        target = found if aim in ("dense", "stream") else weight
        problem: Any = type("P", (), {"aim": target, "gram": gram})
        with torch.no_grad():
            layer.weight.copy_(half(problem).weight.view_as(layer.weight))


def walked(module: nn.Module, x: Tensor, **options: Any) -> Walk:
    real, done = options.pop("real", None), options.pop("done", None)
    solve: Callable[[Collected], LayerSolution | None] = options.pop("solve", half)
    return walk(
        module,
        prunable_layers(module),
        ArrayData({"x": x}),
        solve,
        Options(**{"damping": DAMPING, "batch": 4, **options}),
        real=real,
        done=done,
    )


@pytest.mark.parametrize("aim", ["weights", "layer", "dense", "stream"])
@pytest.mark.parametrize("kind", ["blocks", "convolutions"])
def test_the_walk_is_whole_forward_passes_layer_by_layer(kind: str, aim: Any) -> None:
    module, x = network(kind)
    expected = copy.deepcopy(module)
    naive(expected, x, aim)
    found = walked(module, x, aim=aim)
    assert not found.notes
    for (name, weight), other in zip(module.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-8, atol=1e-10, msg=name)


def test_what_a_layer_reports_is_its_own_output_error() -> None:
    module, x = network("convolutions")
    dense = copy.deepcopy(module)
    layers = walked(module, x, aim="weights").layers
    for prunable, report in zip(prunable_layers(module), layers, strict=True):
        old, new = dense.get_submodule(prunable.layer), module.get_submodule(prunable.layer)
        inputs, outputs = inputs_of(dense, old, x)
        plain = outputs - old.bias.view(-1, *(1 for _ in outputs.shape[2:]))
        with torch.no_grad():
            gap = (new(inputs) - outputs).square().sum() / plain.square().sum()
        assert report.relative == pytest.approx(float(gap), rel=1e-9)
        assert report.count == prunable.weight.numel() // 2
        assert report.removed is not None
        assert torch.equal(prunable.weight == 0, report.removed)


def test_no_batch_and_no_file_makes_a_difference() -> None:
    results = []
    for options in ({"batch": 10}, {"batch": 3}, {"batch": 3, "limit": 0}):
        module, x = network("blocks")
        walked(module, x, aim="stream", **options)
        results.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-11)
    assert torch.equal(results[2], results[1])


@pytest.mark.parametrize("solved", [1, 3, 6])
@pytest.mark.parametrize("aim", ["weights", "layer", "stream"])
def test_a_walk_that_goes_on_ends_where_an_undisturbed_one_does(aim: Any, solved: int) -> None:
    module, x = network("blocks")
    expected, dense = copy.deepcopy(module), copy.deepcopy(module)
    walked(expected, x, aim=aim)
    done: list[str] = []

    def until_the_crash(problem: Collected) -> LayerSolution:
        if len(done) == solved:
            raise KeyboardInterrupt
        done.append(problem.prunable.name)
        return half(problem)

    with pytest.raises(KeyboardInterrupt):
        walked(module, x, aim=aim, solve=until_the_crash)
    before = {name: dense.get_parameter(name) for name in done}
    layers = walked(module, x, aim=aim, done=before).layers
    assert len(layers) + solved == 11
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_each_call_runs_once_a_batch_and_network() -> None:
    torch.manual_seed(0)

    class Counted(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return x.tanh()

    module = nn.Sequential(*(part for _ in range(36) for part in (nn.Linear(4, 4), Counted())))
    walked(module.eval(), torch.randn(12, 4), aim="dense")
    first_batch, both, batches = 36, 2, 3
    assert Counted.calls <= first_batch + both * batches * 36


def test_query_and_key_share_one_gram_matrix() -> None:
    module, x = network("blocks")
    grams: dict[str, Tensor] = {}
    kept: list[Collected] = []

    def solve(problem: Collected) -> LayerSolution:
        kept.append(problem)
        grams[problem.prunable.layer] = problem.gram
        return half(problem)

    walked(module, x, solve=solve)
    assert torch.equal(grams["1.query"], grams["1.key"])
    assert [p.prunable.layer for p in kept][:5] == ["0.query", "0.key", "0.out", "0.up", "0.down"]


class ChangedInPlace(nn.Module):
    """Two layers on one tensor that is changed between them, and again before a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        x[:, 0] *= 3.0
        z = self.two(x)
        x *= 0.5
        return y + (x + z)


def test_inputs_and_streams_that_change_in_place_are_not_taken_for_the_same() -> None:
    torch.manual_seed(0)
    module, x = ChangedInPlace().double().eval(), torch.randn(8, 5, dtype=torch.float64)
    weights = {p.name: p.weight for p in prunable_layers(module)}
    order = find_order(module, weights, (x,), Residence(module))
    assert [stage.names for stage in order.stages] == [["one.weight"], ["two.weight"]]
    assert all(s.sightings[n][0].stream is None for s in order.stages for n in s.names)
    found: dict[str, Tensor] = {}

    def look(problem: Collected) -> None:
        found[problem.prunable.layer] = problem.gram[0]

    walked(module, x, solve=look)
    torch.testing.assert_close(found["one"], x.T @ x / 8)
    x[:, 0] *= 3.0
    torch.testing.assert_close(found["two"], x.T @ x / 8)


def test_a_stream_is_what_an_output_is_added_to() -> None:
    module, x = network("blocks")
    weights = {p.name: p.weight for p in prunable_layers(module)}
    order = find_order(module, weights, (x,), Residence(module))
    streams = [n for s in order.stages for n in s.names if s.sightings[n][0].stream is not None]
    assert streams == ["0.out.weight", "0.down.weight", "1.out.weight", "1.down.weight"]


class Shared(nn.Module):
    """One layer before and behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.between(self.shared(x).relu()).relu())


def test_a_shared_weight_is_aimed_at_the_dense_outputs_of_all_its_uses() -> None:
    torch.manual_seed(0)
    module, x = Shared().double().eval(), torch.randn(9, 5, dtype=torch.float64)
    dense = copy.deepcopy(module)
    found: dict[str, Collected] = {}

    def solve(problem: Collected) -> LayerSolution:
        found[problem.prunable.layer] = problem
        return half(problem)

    layers = walked(module, x, solve=solve).layers
    with torch.no_grad():
        first = dense.shared(x).relu()
        last = dense.between(first).relu()
        both = torch.cat([x, last])
        torch.testing.assert_close(found["shared"].gram[0], both.T @ both / 18)
        # Nothing before it is pruned when it is solved, so its aim is itself.
        torch.testing.assert_close(found["shared"].aim[0], dense.shared.weight)
        now = module.shared(x).relu()
        torch.testing.assert_close(found["between"].gram[0], now.T @ now / 9)
    assert [layer.uses for layer in layers] == [2, 1]


class Experts(nn.Module):
    """Some batches leave a layer out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        chosen = x.new_zeros(x.shape)
        for n, expert in enumerate(self.experts):
            here = x[:, 0] > 0 if n == 0 else x[:, 0] <= 0
            if bool(here.any()):
                chosen[here] = expert(x[here])
        return self.last(chosen)


def test_control_flow_may_differ_from_batch_to_batch() -> None:
    torch.manual_seed(0)
    module, x = Experts().double().eval(), torch.randn(40, 4, dtype=torch.float64)
    with torch.no_grad():
        first = module.first(x)[:, 0] > 0
    mixed = torch.cat([x[first][:2], x[~first][:2]])
    x = torch.cat([mixed, x[~first][:4], x[first][:4]])
    found: dict[str, Collected] = {}

    def look(problem: Collected) -> None:
        found[problem.prunable.layer] = problem

    result = walked(module, x, solve=look)
    with torch.no_grad():
        inner = module.first(x)
        for n, here in enumerate((inner[:, 0] > 0, inner[:, 0] <= 0)):
            some = inner[here]
            torch.testing.assert_close(found[f"experts.{n}"].gram[0], some.T @ some / len(some))
    assert found["last"].columns == 12
    assert any("did not use it in its turn" in note for note in result.notes)


def test_dead_inputs_and_too_few_samples_are_reported_and_harmless() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)).double().eval()
    x = torch.randn(3, 8, dtype=torch.float64)
    x[:, 2] = 0.0
    layers = walked(module, x, aim="dense").layers
    assert (layers[0].dead, layers[0].columns, layers[0].entries) == (1, 3, 8)
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_without_damping_the_aim_reaches_the_dense_outputs() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3)).double().eval()
    dense, x = copy.deepcopy(module), torch.randn(30, 5, dtype=torch.float64)

    def half_of_the_first(problem: Collected) -> LayerSolution:
        if problem.prunable.layer == "0":
            # Dead outputs make the second layer's Gram matrix singular.
            removed = torch.zeros_like(problem.aim, dtype=torch.bool)
            removed[:, :, 0] = True
            return LayerSolution(problem.aim.masked_fill(removed, 0), removed)
        return LayerSolution(problem.aim, torch.zeros_like(problem.aim, dtype=torch.bool))

    walked(module, x, aim="dense", damping=0.0, solve=half_of_the_first)
    with torch.no_grad():
        before, here = dense[0](x), module[0](x)
        best = torch.linalg.lstsq(here, before @ dense[1].weight.T).solution
        torch.testing.assert_close(here @ module[1].weight.T, here @ best)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_solved_in_more_and_written_back(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype).eval()
    layers = walked(module, torch.randn(12, 8, dtype=dtype), aim="dense").layers
    assert module[0].weight.dtype == dtype
    for layer, report in zip((module[0], module[2]), layers, strict=True):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() // 2
        assert report.relative is not None
        assert 0 < report.relative < 1


def test_inputs_that_are_not_finite_are_refused_with_the_layer() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        module[0].bias.fill_(torch.inf)
    with pytest.raises(SecateurError) as refused:
        walked(module, torch.randn(6, 4), aim="weights")
    assert (refused.value.code, refused.value.where) == ("loss_non_finite", "1")


def test_training_mode_is_refused() -> None:
    module, x = network("blocks")
    with pytest.raises(ValueError, match="eval"):
        walk(
            module.train(),
            [Prunable("2", "Linear", "weight", module[2].weight)],
            ArrayData({"x": x}),
            half,
        )

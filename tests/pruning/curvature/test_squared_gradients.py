"""Diagonals from inputs and output gradients of layers, against autograd sample by sample."""

import pytest
import torch
from torch import Tensor, nn

from pruning.curvature import (
    block_fisher,
    empirical_fisher,
    ggn_diagonal,
    ggn_mc,
    layer_gradients,
    squared_gradients,
)
from pruning.curvature.layers import squares
from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from tests.oracle import brute_force, cases

torch.set_num_threads(1)


class Shared(nn.Module):
    """One layer called twice, at several positions, with the samples in the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.head(torch.tanh(self.mix(torch.tanh(self.mix(x)))).mean(0))


class Flattened(nn.Module):
    """Samples and positions in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x.reshape(-1, 4)).relu_()
        return self.head(hidden).view(len(x), -1, 3).sum(1)


class Interleaved(Flattened):
    """The same with positions before samples, which shapes alone can't tell apart."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x.transpose(0, 1).reshape(-1, 4)))
        return self.head(hidden.view(x.shape[1], len(x), 5).mean(0))


class Functional(nn.Module):
    """A weight used without calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x @ self.inner.weight).mean(1))


def convolutions() -> nn.Module:
    """What the table of cases lacks: uneven same padding, three axes, stride on one axis."""
    return nn.Sequential(
        nn.Conv3d(1, 2, (1, 2, 3), stride=(1, 1, 2), padding=(0, 1, 0), bias=False),
        nn.Tanh(),
        nn.Flatten(2),
        nn.Conv1d(2, 4, 4, padding="same", dilation=2, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


OWN = {
    "shared": (Shared, (3, 4), set()),
    "flattened": (Flattened, (3, 4), set()),
    "interleaved": (Interleaved, (3, 4), {"inner.weight"}),
    "functional": (Functional, (3, 4), {"inner.weight"}),
    "convolutions": (convolutions, (1, 2, 3, 5), set()),
}


def own(name: str, samples: int = 5) -> cases.Case:
    build, shape, _ = OWN[name]
    torch.manual_seed(0)
    module = build().double().eval()
    x = torch.randn(samples, *shape, dtype=torch.float64)
    with torch.no_grad():
        module(x)
    data = ArrayData({"x": x}, torch.randint(3, (samples,)))
    return cases.Case(module, data, LOSSES["cross_entropy"])


def close(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-14)


def both(case: cases.Case, network) -> tuple[Tensor, Tensor]:
    active = torch.arange(len(case.weights))
    parts = [
        kind.compute(network, case.data, case.loss, active).values
        for kind in (empirical_fisher, ggn_diagonal)
    ]
    return parts[0], parts[1]


@pytest.mark.parametrize("cached", [squares.CACHED, 1])
@pytest.mark.parametrize("name", OWN)
def test_diagonals_of_unusual_networks_are_exact(name, cached, monkeypatch):
    monkeypatch.setattr(squares, "CACHED", cached)
    case = own(name)
    network = case.network
    fisher, ggn = both(case, network)
    close(fisher, brute_force.per_sample_gradients(case).square().mean(0))
    close(ggn, brute_force.ggn(case).diagonal())
    assert network.general == OWN[name][2]


class Gated(Interleaved):
    """Interleaved, and nothing of it reaches the outputs of samples whose first entry is low."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(x.transpose(0, 1).reshape(-1, 4)))
        gate = (x[:, 0, 0] > 0).to(x)[:, None]
        return self.head(hidden.view(x.shape[1], len(x), 5).mean(0) * gate)


@pytest.mark.parametrize("alive", [1, 4, 7])
def test_samples_at_which_a_weight_is_dead_prove_nothing_of_its_use(alive):
    """Of seven samples one is alive, or none; at the others `inner` has no derivative."""
    torch.manual_seed(0)
    module = Gated().double().eval()
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    x[:, 0, 0] = -1.0
    x[alive : alive + 1, 0, 0] = 1.0
    data = ArrayData({"x": x}, torch.randint(3, (7,)))
    case = cases.Case(module, data, LOSSES["cross_entropy"])
    network = case.network
    fisher, ggn = both(case, network)
    close(fisher, brute_force.per_sample_gradients(case).square().mean(0))
    close(ggn, brute_force.ggn(case).diagonal())
    assert "inner.weight" in network.general


@pytest.mark.parametrize("dead", ["unit", "layer", "head"])
def test_dead_units_and_removed_layers_still_go_the_short_way(dead):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        if dead == "unit":
            module[0].bias.fill_(-4.0)
            module[0].weight.mul_(0.1)
        else:
            module[2 if dead == "layer" else 4].weight.zero_()
    data = ArrayData({"x": torch.randn(9, 4).double()}, torch.randint(3, (9,)))
    case = cases.Case(module.double().eval(), data, LOSSES["cross_entropy"])
    network = case.network
    fisher, ggn = both(case, network)
    close(fisher, brute_force.per_sample_gradients(case).square().mean(0))
    close(ggn, brute_force.ggn(case).diagonal())
    assert network.general == set()


@pytest.mark.parametrize("name", ["mlp-mse", "cnn-cross_entropy", "tied-cross_entropy"])
def test_known_layers_never_take_the_general_path(name):
    case = cases.make(name)
    network = case.network
    both(case, network)
    assert network.general == set()


def test_the_general_path_gives_the_same_numbers(monkeypatch):
    case = cases.make("cnn-cross_entropy")
    quick = both(case, case.network)
    monkeypatch.setattr(squared_gradients, "sample_axes", lambda *args: {})
    network = case.network
    slow = both(case, network)
    assert len(network.general) == 4
    for a, b in zip(quick, slow, strict=True):
        close(a, b)


def test_batches_and_columns_in_small_parts_give_the_same_sums(monkeypatch):
    case = cases.make("cnn-cross_entropy")
    whole = both(case, case.network)
    monkeypatch.setattr(layer_gradients, "BATCH", 2)
    monkeypatch.setattr(layer_gradients.per_sample, "ACTIVATION_BYTES", 1)
    for a, b in zip(whole, both(case, case.network), strict=True):
        close(a, b)


def test_one_sample_and_a_subset_of_layers():
    case = cases.make("mlp-cross_entropy", samples=1)
    active = torch.tensor([0, 3, len(case.weights) - 1])
    found = empirical_fisher.compute(case.network, case.data, case.loss, active).values
    close(found, brute_force.per_sample_gradients(case).square().mean(0)[active])


@pytest.mark.parametrize("positions", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("columns", [1, 4])
def test_either_form_gives_the_squares(positions, columns):
    torch.manual_seed(0)
    u = torch.randn(3, 2, 4, positions, dtype=torch.float64)
    b = torch.randn(columns, 3, 2, 5, positions, dtype=torch.float64)
    expected = torch.einsum("ngdt,cngot->cngod", u, b).square().sum((0, 1))
    total = torch.ones(2, 5, 4, dtype=torch.float64)
    problem = squares.Problem(u, list(b), unfold=lambda x: x, fold=lambda g: g, copies=1)
    squares.add_squares(total, [problem])
    close(total, 1.0 + expected)
    single = squares.Problem(
        u.float(), list(b.float()), unfold=lambda x: x, fold=lambda g: g, copies=1
    )
    total = torch.ones(2, 5, 4)
    squares.add_squares(total, [single])
    torch.testing.assert_close(total, (1.0 + expected).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", [2, 8])
def test_an_entry_that_is_a_small_difference_keeps_its_digits_in_float64(positions):
    """The terms of each sum cancel, exactly, to less than a hundred-millionth of themselves."""
    torch.manual_seed(0)
    u = torch.randint(1, 9, (3, 1, 4, positions)).double()
    b = torch.randint(1, 9, (4, 3, 1, 5, positions)).double()
    u[..., 1], b[..., 1] = u[..., 0], -b[..., 0]
    u[..., 2:], tiny = 0.0, 2.0**-27
    u[..., 0] += tiny
    expected = ((b[..., 0] * tiny)[..., None]).square().sum((0, 1)).expand(1, 5, 4)
    total = torch.zeros(1, 5, 4, dtype=torch.float64)
    problem = squares.Problem(u, list(b), unfold=lambda x: x, fold=lambda g: g, copies=1)
    squares.add_squares(total, [problem])
    torch.testing.assert_close(total, expected, rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("name", cases.NAMES)
def test_monte_carlo_lies_within_four_standard_errors(name):
    case = cases.make(name)
    active = torch.arange(len(case.weights))
    runs = torch.stack(
        [
            ggn_mc.compute(case.network, case.data, case.loss, active, samples=8, seed=s).values
            for s in range(60)
        ]
    )
    error = runs.std(0) / len(runs) ** 0.5
    gap = (runs.mean(0) - brute_force.ggn(case).diagonal()).abs()
    assert error.max() > 0
    assert (gap <= 4 * error + 1e-12).all()


def test_monte_carlo_repeats_with_its_seed_and_varies_without():
    case = cases.make("mlp-cross_entropy")
    active = torch.arange(len(case.weights))
    first, again, other = (
        ggn_mc.compute(case.network, case.data, case.loss, active, seed=s).values for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_sample_takes_the_same_room_whatever_data_set_it_is_a_view_of():
    network = cases.make("cnn-cross_entropy").network
    many = cases.make("cnn-cross_entropy", samples=500).data
    sample = next(iter(many.batches(1)))[0]
    alone = network.saved_bytes(tuple(x.clone() for x in sample))
    assert network.saved_bytes(sample) == alone


@pytest.mark.parametrize("grouped", [1, 40, block_fisher.GROUPED])
def test_products_of_blocks_are_summed_in_parts_with_and_without_padding(grouped, monkeypatch):
    monkeypatch.setattr(block_fisher, "GROUPED", grouped)
    torch.manual_seed(0)
    group = torch.repeat_interleave(torch.tensor([0, 2, 3]), torch.tensor([7, 8, 3]))
    index = block_fisher.partition(group, 4)
    rows = torch.randn(6, len(group), dtype=torch.float64)
    total = torch.ones(len(index), 4, 4, dtype=torch.float64)
    block_fisher.add_products(total, rows, index)
    for block, positions in zip(total, index, strict=True):
        real = positions >= 0
        expected = torch.ones(4, 4, dtype=torch.float64)
        own = rows[:, positions[real]]
        expected[: len(own.T), : len(own.T)] += own.T @ own
        close(block, expected)

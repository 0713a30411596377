"""Parameters that share memory: one weight with one mask, or refused where they overlap in part."""

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, codes, pair, zeros

torch.set_num_threads(1)


class Twice(nn.Module):
    """Two layers of 64 weights between one of 48 and one of 24."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.m, self.n, self.b = (
            nn.Linear(i, o) for i, o in ((6, 8), (8, 8), (8, 8), (8, 3))
        )

    def forward(self, x):
        for layer in (self.a, self.m, self.n):
            x = layer(x).relu()
        return self.b(x)


def by_storage(dtype=torch.float32):
    net = Twice().to(dtype)
    net.n.weight.data = net.m.weight.data
    return net


def by_parameter():
    net = Twice()
    net.n.weight = net.m.weight
    return net


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "criterion",
    [
        {"kind": "obd"},
        {"kind": "obs", "damping": 0.1},
        {"kind": "wanda"},
        {"kind": "taylor"},
        {"kind": "magnitude"},
    ],
    ids=lambda c: c["kind"],
)
def test_a_tie_by_memory_is_pruned_as_one_by_parameter_and_stays(criterion, copy):
    spec = {**MAGNITUDE, "criterion": criterion}
    expected = prune(by_parameter(), pair(), spec)
    net = by_storage()
    other = net.n.weight
    outcome = prune(net, pair(), spec, copy=copy)
    assert zeros(outcome) == 68
    assert outcome.report.sparsity.total == 48 + 64 + 24
    assert outcome.report.loss == expected.report.loss
    assert {k: v.tolist() for k, v in outcome.masks.items()} == {
        k: v.tolist() for k, v in expected.masks.items()
    }
    assert codes(outcome) == ["weights_tied"]
    m, n = outcome.module.m.weight, outcome.module.n.weight
    assert m is not n
    assert m.data_ptr() == n.data_ptr()
    assert torch.equal(m, expected.module.m.weight)
    if not copy:
        assert net.n.weight is other


@pytest.mark.parametrize("copy", [True, False])
def test_a_tie_outlives_recovery_and_half_precision(copy):
    spec = {
        **MAGNITUDE,
        "criterion": {"kind": "obd"},
        "schedule": {"kind": "rounds", "rounds": 2},
        "recovery": {"kind": "fine_tune", "epochs": 1},
    }
    outcome = prune(by_storage(torch.bfloat16), pair(), spec, copy=copy)
    assert outcome.module.m.weight.data_ptr() == outcome.module.n.weight.data_ptr()
    assert outcome.module.n.weight.dtype == torch.bfloat16
    assert zeros(outcome) == 68


def test_a_decoder_tied_to_an_embedding_by_memory_is_out_of_scope():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 9))
    net[3].weight.data = net[0].weight.data
    tokens = torch.randint(9, (40, 2))
    outcome = prune(net, (tokens, tokens[:, 0]), MAGNITUDE)
    assert set(outcome.masks) == {"2.weight"}
    assert outcome.module[3].weight.data_ptr() == outcome.module[0].weight.data_ptr()


def test_slices_of_one_storage_that_have_nothing_in_common_are_no_tie():
    net, alone = Twice(), Twice()
    flat = torch.cat([net.m.weight.flatten(), net.n.weight.flatten()]).detach()
    net.m.weight.data, net.n.weight.data = flat[:64].view(8, 8), flat[64:].view(8, 8)
    mixed = Twice()
    both = torch.stack([mixed.m.weight, mixed.n.weight], dim=2).detach()
    mixed.m.weight.data, mixed.n.weight.data = both[:, :, 0], both[:, :, 1]
    spec = {**MAGNITUDE, "criterion": {"kind": "obd"}}
    expected = prune(alone, pair(), spec)
    for given in (net, mixed):
        for copy in (True, False):
            outcome = prune(given, pair(), spec, copy=copy)
            assert codes(outcome) == []
            assert zeros(outcome) == 100
            assert outcome.report.loss.pruned == pytest.approx(expected.report.loss.pruned)


def transposed(net):
    net.n.weight.data = net.m.weight.data.t()


def shifted(net):
    flat = torch.randn(72)
    net.m.weight.data, net.n.weight.data = flat[:64].view(8, 8), flat[8:].view(8, 8)


def rows(net):
    net.n.weight.data = net.m.weight.data.flip(0)[:, :]
    net.b.weight.data = net.m.weight.data[:3]


def other_shape(net):
    net.extra = nn.Conv1d(8, 8, 1)
    net.extra.weight.data = net.m.weight.data.view(8, 8, 1)


def buffer(net):
    net.register_buffer("turned", net.m.weight.data.t())


def attribute(net):
    net.views = [net.m.weight.data]


def inside_a_mapping(net):
    net.cache = {"views": [(net.m.weight.data, None)]}


def expanded(net):
    net.m.weight.data = torch.randn(8, 1).expand(8, 8)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "change",
    [transposed, shifted, rows, other_shape, buffer, attribute, inside_a_mapping, expanded],
)
def test_memory_shared_in_another_way_is_refused_by_name(change, copy):
    net = Twice()
    change(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(SecateurError) as caught:
        prune(net, pair(), MAGNITUDE, copy=copy)
    assert caught.value.code == "weights_overlap"
    assert "m.weight" in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_recurrent_layers_are_no_overlap():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (1, 4)), nn.LSTM(4, 4, batch_first=True))
    spec = {"objective": {"loss": "mse"}, "compensation": {"kind": "layerwise"}}
    spec |= {"target": {"sparsity": 0.5}, "recovery": {"kind": "none"}}
    outcome = prune(net, (pair()[0], torch.randn(60, 1, 4)), spec)
    assert zeros(outcome) == (24 + 16 * 4 * 2) / 2


@pytest.mark.parametrize("criterion", ["magnitude", "obd", "wanda"])
def test_a_module_under_two_names_is_one_with_the_same_predictions_as_a_tie(criterion):
    spec = {**MAGNITUDE, "criterion": {"kind": criterion}}
    net, tied = Twice(), by_parameter()
    tied.n.bias = tied.m.bias
    net.n = net.m
    outcome, expected = prune(net, pair(), spec), prune(tied, pair(), spec)
    assert outcome.report.sparsity.total == 136
    assert codes(outcome) == []
    assert outcome.report.loss.predicted_increase == pytest.approx(
        expected.report.loss.predicted_increase, rel=1e-6
    )
    assert outcome.report.loss.pruned == pytest.approx(expected.report.loss.pruned, rel=1e-6)
    assert zeros(outcome) == 68
    assert type(outcome.module.n.weight) is nn.Parameter
    assert outcome.module.n is outcome.module.m

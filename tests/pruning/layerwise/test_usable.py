"""Weights that are no plain matrices stay out of the scope of a layer-wise job, and it says so."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning import prune
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import prunable_layers
from pruning.layerwise.usable import usable

torch.set_num_threads(1)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plain, self.normed, self.never = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.decoder = nn.Linear(8, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        # The decoder's rows are the embeddings too, but read by index and not by nn.Embedding.
        x = self.decoder.weight.index_select(0, tokens.flatten()).view(*tokens.shape, 8)
        x = self.plain(x).relu()
        x = functional.linear(x, functional.normalize(self.normed.weight, dim=1))
        return self.decoder(x)


@pytest.fixture
def network() -> Mixed:
    torch.manual_seed(0)
    return Mixed().eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 20, (24, 5), generator=torch.Generator().manual_seed(1))


def test_each_weight_that_is_left_out_is_told_with_the_reason(network, tokens):
    weights = prunable_layers(network)
    left, refused = usable(network, weights, ArrayData({"tokens": tokens}), 4)
    assert [p.layer for p in left] == ["plain"]
    told = {one.name: one.reason for one in refused}
    assert told.keys() == {"normed", "never", "decoder"}
    assert "index_select" in told["decoder"]
    assert "No call" in told["never"]


def test_a_job_prunes_the_others_and_warns(network, tokens):
    spec = {
        "objective": {"loss": "match_dense"},
        "compensation": {"kind": "layerwise"},
        "target": {"sparsity": 0.5},
        "trust": {"checks": False},
    }
    outcome = prune(network, tokens, spec)
    assert outcome.masks.keys() == {"plain.weight"}
    assert int((outcome.module.plain.weight == 0).sum()) == 32
    for name in ("normed", "never", "decoder"):
        dense, now = network.get_submodule(name), outcome.module.get_submodule(name)
        assert torch.equal(dense.weight, now.weight)
    warned = [w.where for w in outcome.report.warnings if w.code == "layer_left_out"]
    assert sorted(map(str, warned)) == ["decoder", "never", "normed"]


def test_a_network_of_which_nothing_can_be_solved_is_refused(network, tokens):
    weights = [p for p in prunable_layers(network) if p.layer == "normed"]
    with pytest.raises(SecateurError, match="operator_unsupported") as caught:
        usable(network, weights, ArrayData({"tokens": tokens}), 4)
    assert caught.value.where == "normed.weight"


class Tied(nn.Module):
    """An autoencoder of one square matrix, so that a wrong Gram matrix has the right shape."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.code(x)) @ self.code.weight)


def test_a_weight_used_as_it_is_and_transposed_is_left_out():
    torch.manual_seed(0)
    network = Tied().eval()
    left, refused = usable(
        network, prunable_layers(network), ArrayData({"x": torch.randn(8, 6)}), 4
    )
    assert [p.layer for p in left] == ["head"]
    assert [one.name for one in refused] == ["code"]
    assert "transposed" in refused[0].reason

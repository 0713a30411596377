"""Every weight that is listed can be walked."""

import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import find_prunable, prunable_layers
from pruning.layerwise import Collected, walk
from pruning.solvers.layer import LayerSolution
from pruning.spec import Scope


class Everything(nn.Module):
    """One layer of every kind, two of them tied, and an embedding tied to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.wide, self.back = nn.Conv1d(6, 4, 3), nn.ConvTranspose1d(4, 6, 3)
        self.packed = nn.MultiheadAttention(6, 2, batch_first=True)
        self.split = nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True)
        self.steps, self.cell = nn.LSTM(6, 3, bidirectional=True), nn.GRUCell(6, 6)
        self.one, self.two, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 7, bias=False)
        self.two.weight = self.one.weight
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        y = self.wide(x.transpose(1, 2))
        x = x + self.back(y).transpose(1, 2)
        x = self.packed(x, x, x, need_weights=False)[0]
        x = self.split(x, x[..., :4], x[..., 1:], need_weights=False)[0]
        x = self.steps(x.transpose(0, 1))[0].transpose(0, 1)
        x = self.two(self.one(x).relu())
        return self.out(self.cell(x[:, 0], x[:, 1]))


def test_every_kind_is_listed_once_and_walked() -> None:
    torch.manual_seed(0)
    module = Everything().eval()
    weights = find_prunable(module, Scope())
    names = [p.name for p in weights]
    assert len(names) == len(set(names))
    everything = {n for n, p in module.named_parameters() if p.ndim > 1} - {"embed.weight"}
    assert set(names) == everything
    assert next(p for p in weights if p.name == "one.weight").aliases == ("two",)

    def half(problem: Collected) -> LayerSolution:
        removed = torch.rand(problem.aim.shape) < 0.5
        return LayerSolution(problem.aim.masked_fill(removed, 0.0), removed)

    result = walk(module, weights, ArrayData({"ids": torch.randint(7, (8, 6))}), half)
    assert {layer.name for layer in result.layers} == set(names)
    for prunable, layer in (
        (p, next(q for q in result.layers if q.name == p.name)) for p in weights
    ):
        assert int((prunable.weight == 0).sum()) == layer.count
        assert layer.relative is not None


def test_a_module_without_any_is_refused() -> None:
    with pytest.raises(SecateurError) as refused:
        prunable_layers(nn.Sequential(nn.ReLU(), nn.Embedding(3, 2)))
    assert refused.value.code == "no_prunable_layers"

"""Padding never counts, wherever a layer's input keeps its tokens."""

import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.layers import Prunable
from pruning.layerwise import Collected, Options, walk
from pruning.layerwise.padding import real_tokens


class Encoder(nn.Module):
    """torch's own encoder, whose attention puts tokens first and flattens them so; pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.layer(self.embed(ids), src_key_padding_mask=mask == 0)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(pooled)


class Flattened(nn.Module):
    """Samples and tokens along one axis, samples outermost, then a convolution over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(11, 8), nn.Linear(8, 6)
        self.conv = nn.Conv1d(6, 4, 3, padding=1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.layer(self.embed(ids).flatten(0, 1)).unflatten(0, ids.shape)
        return self.conv((x * mask[..., None]).transpose(1, 2))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(11, 8), nn.GRU(8, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.layer(self.embed(ids).transpose(0, 1))[0]


def padded(count: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 11, (count, length), generator=generator)
    lengths = torch.randint(1, length + 1, (count,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    return {"ids": ids * mask, "attention_mask": mask}


def collect(module: nn.Module, data: ArrayData, real: Tensor | None) -> dict[str, Collected]:
    found: dict[str, Collected] = {}

    def look(problem: Collected) -> None:
        found[problem.prunable.name] = problem

    weights = [
        Prunable(name.rpartition(".")[0], "", name.rpartition(".")[2], p)
        for name, p in module.named_parameters()
        if p.ndim > 1 and "embed" not in name
    ]
    walk(module, weights, data, look, Options(batch=4), real=real)
    return found


@pytest.mark.parametrize("kind", [Encoder, Flattened, Steps])
@pytest.mark.parametrize(("count", "length"), [(4, 4), (6, 5), (4, 1)])
def test_padding_counts_for_nothing(kind: type[nn.Module], count: int, length: int) -> None:
    torch.manual_seed(0)
    module = kind().double().eval()
    inputs = padded(count, length)
    data = ArrayData(inputs)
    found = collect(module, data, real_tokens(data))
    # The same samples one by one, each cut to its own length: there is nothing to leave out.
    sums: dict[str, Tensor] = {}
    columns: dict[str, int] = {}
    for n, size in enumerate(inputs["attention_mask"].sum(1).tolist()):
        one = ArrayData({name: x[n : n + 1, :size] for name, x in inputs.items()})
        for name, problem in collect(module, one, None).items():
            sums[name] = sums.get(name, 0.0) + problem.gram * problem.columns
            columns[name] = columns.get(name, 0) + problem.columns
    assert len(found) > 1
    for name, problem in found.items():
        if name == "conv.weight":
            # A patch that sees a token counts: the one behind the last token does too.
            continue
        assert problem.columns == columns[name], name
        torch.testing.assert_close(problem.gram, sums[name] / columns[name], rtol=1e-9, atol=1e-12)


def test_a_patch_counts_if_it_sees_a_token() -> None:
    torch.manual_seed(0)
    module = Flattened().eval()
    mask = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    data = ArrayData({"ids": torch.randint(1, 11, (2, 6)), "attention_mask": mask})
    assert collect(module, data, real_tokens(data))["conv.weight"].columns == 3 + 6


def test_more_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    module, inputs = Encoder().double().eval(), padded(6, 5)
    longer = {
        name: torch.cat([x, torch.zeros(6, 3, dtype=x.dtype)], 1) for name, x in inputs.items()
    }
    short, long = ArrayData(inputs), ArrayData(longer)
    one = collect(module, short, real_tokens(short))
    two = collect(module, long, real_tokens(long))
    for name, problem in one.items():
        torch.testing.assert_close(problem.gram, two[name].gram, rtol=1e-9, atol=1e-12)


def test_what_says_which_tokens_are_real() -> None:
    inputs = padded(3, 4)
    named = ArrayData({"ids": inputs["ids"], "mask": inputs["attention_mask"]})
    labels = ArrayData({"ids": inputs["ids"]}, inputs["ids"].masked_fill(inputs["ids"] == 0, -100))
    wanted = inputs["attention_mask"].bool()
    for data, options in (
        (ArrayData(inputs), {}),
        (named, {"name": "mask"}),
        (labels, {"ignored": -100}),
    ):
        found = real_tokens(data, **options)
        assert found is not None
        assert torch.equal(found, wanted)
    assert real_tokens(named) is None
    assert real_tokens(ArrayData({"x": torch.zeros(3, 4)}, torch.zeros(3)), ignored=-100) is None


def test_an_input_that_tells_no_tokens_apart_is_reported() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer = nn.Embedding(11, 8), nn.Linear(16, 2)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.layer(self.embed(ids).view(-1, 16))

    data = ArrayData(padded(6, 4))
    module = Halved().eval()
    weights = [Prunable("layer", "Linear", "weight", module.layer.weight)]
    result = walk(module, weights, data, lambda _: None, real=real_tokens(data))
    assert any(note.startswith("layer.weight: padding counts") for note in result.notes)
    assert result.layers[0].error is None
    assert result.layers[0].removed is None

"""Archives of a fixed number of samples, run in memory at any, give what torch gives for theirs."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from pruning.formats.limits import Limits
from pruning.formats.registry import read_model

torch.set_num_threads(1)


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(y.view(b, -1))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(torch.cat([self.first.expand(len(x), -1, -1), x], 1))[:, 0])


class Steps(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.fc = kind(6, 8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.attention(x, x, x, need_weights=False)[0])


class Loudest(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / x.abs().max())


CASES = {
    "views": (Views, (3, 8, 8), 0),
    "tokens": (Tokens, (5, 16), 0),
    "lstm": (lambda: Steps(nn.LSTM), (5, 6), 1),
    "gru": (lambda: Steps(nn.GRU), (5, 6), 1),
    "rnn": (lambda: Steps(nn.RNN), (5, 6), 1),
    "heads": (Heads, (5, 16), 1),
}


def archive(path, module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), (example,))
        torch.export.save(program, path)
    return program


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_samples_gives_what_the_file_gives_for_its_own(case, batch, tmp_path):
    kind, shape, axis = CASES[case]
    torch.manual_seed(0)
    example = torch.randn(batch, *shape).movedim(0, axis).contiguous()
    program = archive(tmp_path / "m.pt2", kind(), example)
    model = read_model(tmp_path / "m.pt2", Limits())
    assert (model.facts.batch, model.file_batch) == (None, batch)
    assert model.facts.inputs[0].samples == axis
    samples = torch.randn(4 * batch, *shape).movedim(0, axis).contiguous()
    where = model.facts.outputs[0].axis
    assert where is not None
    with torch.no_grad():
        parts = [program.module()(part.contiguous()) for part in samples.split(batch, axis)]
        found = model.module(samples)
        alone = model.module(samples.narrow(axis, 0, 1))
    wanted = torch.cat(parts, where)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(alone, wanted.narrow(where, 0, 1), atol=1e-5)
    # The file keeps the number that it was exported with.
    model.write(tmp_path, "again")
    again = torch.export.load(tmp_path / "again.pt2").module()
    assert torch.allclose(again(example), program.module()(example), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_an_archive_that_compares_its_samples_is_never_batched(batch, tmp_path):
    archive(tmp_path / "m.pt2", Loudest(6, 3), torch.randn(batch, 6))
    model = read_model(tmp_path / "m.pt2", Limits())
    assert model.facts.batch == batch
    assert model.facts.inputs[0].samples == (0 if batch == 1 else "unknown")

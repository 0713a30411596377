"""Files of a fixed number of samples, run in memory at any, give what the runtime gives."""

import io

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from pruning.formats.onnx import onnx_bytes, read_onnx
from tests.pruning.formats.onnx_cases import Net, ints

torch.set_num_threads(1)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(x.shape[0], -1, -1), tokens], 1)
        return self.fc(self.encoder(tokens)[:, 0])


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(y.view(b, -1))


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


class Last(nn.Module):
    """Runs at its own number of steps as well, whatever that holds."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][-1])


CASES = {
    "last": (Last, (5, 6), 1),
    "attention": (Patches, (3, 8, 8), 0),
    "reshapes": (Shuffled, (3, 8, 8), 0),
    "steps": (Steps, (5, 6), 1),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_any_number_of_samples_gives_what_the_file_gives_for_its_own(case, batch):
    kind, shape, axis = CASES[case]
    torch.manual_seed(0)
    example = torch.randn(batch, *shape).movedim(0, axis).contiguous()
    file = io.BytesIO()
    torch.onnx.export(kind().eval(), (example,), file, dynamo=True, verbose=False)
    model = read_onnx(file.getvalue())
    assert model.facts.batch is None
    assert model.facts.inputs[0].samples == axis
    samples = torch.randn(6 * batch, *shape).movedim(0, axis).contiguous()
    session = ort.InferenceSession(file.getvalue())
    (name,) = (value.name for value in session.get_inputs())
    parts = [
        session.run(None, {name: np.ascontiguousarray(part.numpy())})[0]
        for part in samples.split(batch, axis)
    ]
    where = model.facts.outputs[0].axis
    with torch.no_grad():
        found = model.module(samples).numpy()
    assert np.abs(np.concatenate(parts, where) - found).max() < 1e-5
    # The file keeps the number that it was exported with.
    written = read_onnx(onnx_bytes(model))
    assert written.facts.inputs[0].shape[axis] == batch


def test_sizes_that_no_number_of_samples_but_one_allows_stay_fixed():
    net = Net()
    net.op("ReduceSum", ["x"], "total", keepdims=0)
    net.op("Reshape", ["x", net.const("flat", ints(1, 8))], "f")
    net.op("Mul", ["f", "total"], "m")
    net.op("MatMul", ["m", net.weight("w", 8, 3)], "y")
    found = read_onnx(net.model({"x": [1, 2, 4]}, ["y"]).SerializeToString())
    assert found.facts.batch == 1
    assert found.module.scaling is None
    assert found.module(torch.ones(1, 2, 4)).shape == (1, 3)


@pytest.mark.parametrize("inside", [1, 2, 4])
@pytest.mark.parametrize("rest", [8, -1])
def test_a_number_that_is_written_inside_is_found_where_the_input_leaves_it_open(inside, rest):
    net = Net()
    net.op("Reshape", ["x", net.const("flat", ints(inside, rest))], "f")
    net.op("MatMul", ["f", net.weight("w", 8, 3)], "y")
    file = net.model({"x": ["batch", 2, 4]}, ["y"]).SerializeToString()
    model = read_onnx(file)
    assert model.facts.batch is None
    samples = torch.randn(4 * inside, 2, 4)
    session = ort.InferenceSession(file)
    parts = [session.run(None, {"x": part.numpy()})[0] for part in samples.split(inside)]
    assert np.abs(np.concatenate(parts) - model.module(samples).detach().numpy()).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_that_compares_its_samples_is_never_batched(batch):
    """The largest of all numbers is that of one sample: the others have to miss it."""
    net = Net()
    net.op("Reshape", ["x", net.const("flat", ints(batch, 8))], "f")
    net.op("Abs", ["f"], "abs")
    net.op("ReduceMax", ["abs"], "most", keepdims=0)
    net.op("Div", ["f", "most"], "d")
    net.op("MatMul", ["d", net.weight("w", 8, 3)], "y")
    model = read_onnx(net.model({"x": [batch, 2, 4]}, ["y"]).SerializeToString())
    assert model.facts.batch == batch
    assert model.module.scaling is None

"""Gram matrices of every layer kind against what the layers themselves compute."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.curvature.layers.matrix import Form
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import Prunable
from pruning.layerwise import Collected, Options, walk
from pruning.layerwise.moments import product_dtype

SAMPLES = 6


class Tied(nn.Module):
    """One layer called on two inputs of different length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu()[..., ::2])


class SlicedWeight(nn.Module):
    """A weight used without calling its layer, its rows in two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        above, below = self.layer.weight.split([2, 4])
        return torch.cat([functional.linear(x, above), functional.linear(x.tanh(), below)], 1)


def conv(axes: int, transposed: bool = False, **options: object) -> nn.Module:
    name = ("ConvTranspose" if transposed else "Conv") + f"{axes}d"
    kernel = (3, 2, 2)[:axes]
    return getattr(nn, name)(4, 6, kernel, **options)


SINGLE: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 3), (4,)),
    "linear at positions": (nn.Linear(4, 3), (2, 5, 4)),
    "conv1d": (conv(1, stride=2, padding=1, dilation=2), (4, 9)),
    "conv2d": (conv(2, stride=(2, 1), padding=(1, 0)), (4, 7, 5)),
    "conv2d same": (conv(2, padding="same", dilation=(1, 2)), (4, 6, 5)),
    "conv2d valid": (conv(2, padding="valid"), (4, 6, 5)),
    "conv2d groups": (conv(2, groups=2, bias=False), (4, 6, 5)),
    "conv2d circular": (conv(2, padding=1, padding_mode="circular"), (4, 6, 5)),
    "conv2d reflect": (conv(2, padding=1, padding_mode="reflect"), (4, 6, 5)),
    "conv2d depthwise": (nn.Conv2d(4, 8, 3, groups=4), (4, 6, 5)),
    "conv3d": (conv(3, stride=(1, 2, 1), padding=1, groups=2), (4, 4, 5, 3)),
    "transposed 1d": (conv(1, True, stride=2, padding=1, output_padding=1), (4, 5)),
    "transposed 1d cropped": (nn.ConvTranspose1d(4, 6, 2, stride=3, padding=2), (4, 5)),
    "transposed 2d": (conv(2, True, stride=(2, 1), dilation=(1, 2), groups=2), (4, 4, 3)),
    "transposed 2d depthwise": (nn.ConvTranspose2d(4, 4, 3, 2, 1, groups=4), (4, 4, 3)),
    "transposed 3d": (conv(3, True, stride=2, padding=(1, 0, 1)), (4, 3, 2, 4)),
}


def collect(
    module: nn.Module, names: list[str], x: Tensor, **options: object
) -> dict[str, tuple[Collected, int]]:
    """What the walk gives a solver that leaves every layer as it is."""
    found: dict[str, Collected] = {}

    def look(problem: Collected) -> None:
        found[problem.prunable.name] = problem

    parameters = dict(module.named_parameters())
    weights = [
        Prunable(n.rpartition(".")[0], "", n.rpartition(".")[2], parameters[n]) for n in names
    ]
    walk(module, weights, ArrayData({"x": x}), look, Options(batch=4, **options))
    return found


def energy(problem: Collected, change: Tensor) -> float:
    """m tr(D H D') of a change in the weight's shape."""
    matrix = problem.as_matrix(change)
    return float(((matrix @ problem.gram) * matrix).sum()) * problem.columns


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("neighbours", [False, True])
def test_the_gram_matrix_is_that_of_the_layers_output(kind: str, neighbours: bool) -> None:
    torch.manual_seed(0)
    layer, shape = SINGLE[kind]
    layer = copy.deepcopy(layer).double().eval()
    x = torch.randn(SAMPLES, *shape, dtype=torch.float64)
    problem = collect(layer, ["weight"], x, neighbours=neighbours)["weight"]
    change = torch.randn_like(layer.weight)
    with torch.no_grad():
        before = layer(x)
        layer.weight += change
        expected = float((layer(x) - before).square().sum())
    assert energy(problem, change) == pytest.approx(expected, rel=1e-10)
    assert problem.columns == before.numel() / (
        before.shape[-1] if "linear" in kind else before.shape[1]
    )
    assert torch.equal(problem.as_weight(problem.as_matrix(change)), change)


def test_neighbours_are_input_channels() -> None:
    order = Form((6, 4, 3, 2)).neighbours()
    assert order is not None
    weight = torch.arange(4 * 6).view(4, 3, 2)
    assert order.tolist() == weight.flatten(1).T.flatten().tolist()
    assert Form((6, 4)).neighbours() is None


def test_all_uses_of_a_weight_count() -> None:
    torch.manual_seed(0)
    module, x = Tied().double().eval(), torch.randn(SAMPLES, 3, 8, dtype=torch.float64)
    inputs: list[Tensor] = []
    module.layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        module(x)
        problem = collect(module, ["layer.weight"], x)["layer.weight"]
        change = torch.randn_like(module.layer.weight)
        expected = sum(
            float(functional.conv1d(u, change, padding=1).square().sum()) for u in inputs[:2]
        )
    assert problem.columns == SAMPLES * (8 + 4)
    assert energy(problem, change) == pytest.approx(expected, rel=1e-10)


def test_rows_of_a_weight_have_the_inputs_of_their_own_call() -> None:
    torch.manual_seed(0)
    module, x = SlicedWeight().double().eval(), torch.randn(SAMPLES, 4, dtype=torch.float64)
    problem = collect(module, ["layer.weight"], x)["layer.weight"]
    change = torch.randn(6, 4, dtype=torch.float64)
    expected = (x @ change[:2].T).square().sum() + (x.tanh() @ change[2:].T).square().sum()
    assert problem.gram.shape == (3, 4, 4)
    assert energy(problem, change) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("cross", [False, True])
def test_attentions_packed_projection(cross: bool) -> None:
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x.tanh() if cross else x, x.tanh() if cross else x)[0]

    module = Attention().double().eval()
    x = torch.randn(SAMPLES, 5, 4, dtype=torch.float64)
    problem = collect(module, ["inner.in_proj_weight"], x)["inner.in_proj_weight"]
    change = torch.randn(12, 4, dtype=torch.float64)
    others = x.tanh() if cross else x
    expected = (x @ change[:4].T).square().sum() + (others @ change[4:].T).square().sum()
    assert energy(problem, change) == pytest.approx(float(expected), rel=1e-10)


RECURRENT: dict[str, nn.Module] = {
    "lstm": nn.LSTM(3, 4, 2, batch_first=True),
    "lstm both ways": nn.LSTM(3, 4, 2, bidirectional=True, bias=False),
    "lstm projected": nn.LSTM(3, 4, proj_size=2, bidirectional=True),
    "gru": nn.GRU(3, 4, 2, bidirectional=True, batch_first=True),
    "rnn": nn.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True),
}


class Recurrent(nn.Module):
    """Puts out the sequence alone; steps along axis 1."""

    def __init__(self, inner: nn.RNNBase) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if self.inner.batch_first else x.transpose(0, 1))[0]


def columns_of(inner: nn.RNNBase, x: Tensor) -> dict[str, Tensor]:
    """Inputs of every weight [columns, entries], step by step from the definitions."""
    below = x.transpose(0, 1)
    found: dict[str, Tensor] = {}
    for layer in range(inner.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: 2 if inner.bidirectional else 1]:
            w = {
                k: getattr(inner, f"{k}_l{layer}{suffix}", None)
                for k in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
            }
            steps = below.flip(0) if suffix else below
            hidden = x.new_zeros(len(x), inner.proj_size or inner.hidden_size)
            cell = x.new_zeros(len(x), inner.hidden_size)
            states, memories, made = [], [], []
            for step in steps:
                states.append(hidden)
                left = functional.linear(step, w["weight_ih"], w["bias_ih"])
                right = functional.linear(hidden, w["weight_hh"], w["bias_hh"])
                if inner.mode == "LSTM":
                    i, f, g, o = (left + right).chunk(4, 1)
                    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                    hidden = o.sigmoid() * cell.tanh()
                elif inner.mode == "GRU":
                    (r, z, n), (s, u, m) = left.chunk(3, 1), right.chunk(3, 1)
                    new = (n + (r + s).sigmoid() * m).tanh()
                    hidden = (1 - (z + u).sigmoid()) * new + (z + u).sigmoid() * hidden
                else:
                    hidden = (left + right).relu()
                memories.append(hidden)
                if w["weight_hr"] is not None:
                    hidden = hidden @ w["weight_hr"].T
                made.append(hidden)
            found[f"weight_ih_l{layer}{suffix}"] = steps.flatten(0, 1)
            found[f"weight_hh_l{layer}{suffix}"] = torch.cat(states)
            found[f"weight_hr_l{layer}{suffix}"] = torch.cat(memories)
            outputs.append(torch.stack(made[::-1] if suffix else made))
        below = torch.cat(outputs, 2)
    return found


@pytest.mark.parametrize("kind", RECURRENT)
def test_gates_of_recurrent_layers(kind: str) -> None:
    torch.manual_seed(0)
    module = Recurrent(copy.deepcopy(RECURRENT[kind])).double().eval()
    x = torch.randn(SAMPLES, 5, 3, dtype=torch.float64)
    names = [n for n, p in module.named_parameters() if p.ndim == 2]
    found = collect(module, names, x)
    with torch.no_grad():
        expected = columns_of(module.inner, x)
    assert set(found) == set(names)
    assert found
    for name, problem in found.items():
        columns = expected[name.removeprefix("inner.")]
        assert problem.columns == len(columns)
        wanted = columns.T @ columns / len(columns)
        torch.testing.assert_close(problem.gram[0], wanted, rtol=1e-10, atol=1e-12)


def test_cells_stepped_by_hand() -> None:
    torch.manual_seed(0)

    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = x.new_zeros(len(x), 4)
            for step in x.unbind(1):
                hidden = self.cell(step, hidden)
            return hidden

    module, x = Stepped().double().eval(), torch.randn(SAMPLES, 5, 3, dtype=torch.float64)
    found = collect(module, ["cell.weight_ih", "cell.weight_hh"], x)
    flat = x.flatten(0, 1)
    wanted = flat.T @ flat / len(flat)
    torch.testing.assert_close(found["cell.weight_ih"].gram[0], wanted, rtol=1e-10, atol=1e-12)
    assert found["cell.weight_hh"].columns == SAMPLES * 5


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.Bilinear(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(x, x)


class Multiplied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.odd.weight.T


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.LSTM(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = nn.utils.rnn.pack_padded_sequence(x[None], [1] * len(x))
        return self.odd(steps)[1][0]


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.odd, self.other = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x)


@pytest.mark.parametrize(
    ("module", "name", "function"),
    [
        (Bilinear(), "odd.weight", "bilinear"),
        (Multiplied(), "odd.weight", "matmul"),
        (Packed(), "odd.weight_ih_l0", "lstm"),
        (Unused(), "odd.weight", "No call"),
    ],
)
def test_what_is_not_known_is_refused_by_name(module: nn.Module, name: str, function: str) -> None:
    with pytest.raises(SecateurError) as refused:
        collect(module.eval(), [name], torch.randn(SAMPLES, 4))
    assert refused.value.code == "operator_unsupported"
    assert refused.value.where == name
    assert function in refused.value.message


def test_products_are_taken_in_float32_only_where_damping_hides_its_rounding() -> None:
    assert product_dtype(torch.float32, 384, 0.01) == torch.float32
    assert product_dtype(torch.float16, 384, 0.01) == torch.float32
    assert product_dtype(torch.float32, 384, 1e-5) == torch.float64
    assert product_dtype(torch.float32, 384, 0.0) == torch.float64
    assert product_dtype(torch.float64, 384, 0.01) == torch.float64


def test_float32_inputs_are_summed_to_nearly_float64() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 4).eval(), torch.randn(400, 32) + 3.0
    exact = x.double().T @ x.double() / len(x)
    scale = float(exact.diagonal().sum())
    for damping, bound in ((0.01, 4 * torch.finfo(torch.float32).eps), (0.0, 1e-14)):
        gram = collect(layer, ["weight"], x, damping=damping)["weight"].gram[0]
        assert float((gram - exact).norm()) <= bound * scale

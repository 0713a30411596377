"""Recurrent networks under derivatives: every kind, every criterion, every format."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from pruning import prune
from pruning.formats.architecture import export
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.recurrence import unrolled

torch.set_num_threads(1)

QUIET = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
    "target": {"sparsity": 0.5},
}
LAYERS = [
    *(
        (kind, options)
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
        for options in (
            {},
            {"bias": False, "batch_first": True},
            {"num_layers": 2, "bidirectional": True, "dropout": 0.3},
        )
    ),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.LSTM, {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
    (nn.LSTM, {"proj_size": 2, "bias": False}),
]
CELLS = [(nn.LSTMCell, {}), (nn.GRUCell, {}), (nn.RNNCell, {}),
         (nn.RNNCell, {"nonlinearity": "relu", "bias": False})]  # fmt: skip


def flat(result: object) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    else:
        for part in result:
            yield from flat(part)


@pytest.mark.parametrize(("kind", "options"), [*LAYERS, *CELLS])
def test_derivatives_of_an_unrolled_layer_are_those_of_torchs_own(kind, options):
    torch.manual_seed(0)
    layer = kind(3, 4, **options).double().eval()
    shape = (2, 3) if (kind, options) in CELLS else (5, 5, 3)
    x = torch.randn(*shape, dtype=torch.double)
    state = {name: p.detach() for name, p in layer.named_parameters()}
    change = {name: torch.randn(3, *p.shape, dtype=torch.double) for name, p in state.items()}

    def total(state: dict[str, Tensor], x: Tensor) -> Tensor:
        return sum(part.square().sum() for part in flat(functional_call(layer, state, (x,))))

    leaves = {name: p.clone().requires_grad_() for name, p in state.items()}
    gradient = torch.autograd.grad(total(leaves, x), list(leaves.values()), create_graph=True)
    along = sum((g * c[0]).sum() for g, c in zip(gradient, change.values(), strict=True))
    products = torch.autograd.grad(along, list(leaves.values()))
    samples = x if x.dim() == 2 or options.get("batch_first") else x.transpose(0, 1)

    def inside(state: dict[str, Tensor], x: Tensor) -> Tensor:
        with unrolled():
            return total(state, x)

    each = vmap(grad(inside), (None, 0))(state, samples)
    hessian = vmap(lambda v: jvp(grad(lambda s: inside(s, x)), (state,), (v,))[1])(change)
    mapped = vmap(inside, (0, None))(change, x)
    for name, g, h in zip(state, gradient, products, strict=True):
        torch.testing.assert_close(each[name].sum(0), g.detach())
        torch.testing.assert_close(hessian[name][0], h)
    for i, found in enumerate(mapped):
        torch.testing.assert_close(found, total({n: c[i] for n, c in change.items()}, x))


def test_a_network_that_is_not_transformed_runs_torchs_own_kernels():
    layer, x = nn.GRU(3, 4).eval(), torch.randn(5, 2, 3)
    with torch.no_grad():
        plain = layer(x)[0]
        with unrolled():
            assert torch.equal(layer(x)[0], plain)


class Net(nn.Module):
    def __init__(self, kind: type[nn.Module], **options: object) -> None:
        super().__init__()
        self.steps = kind(3, 4, batch_first=True, **options)
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.steps(x)[0][:, -1])


class ByCell(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.head = kind(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


NETWORKS = {
    "LSTM": lambda: Net(nn.LSTM, num_layers=2),
    "GRU": lambda: Net(nn.GRU, bidirectional=True),
    "RNN": lambda: Net(nn.RNN),
    "LSTMCell": lambda: ByCell(nn.LSTMCell),
    "GRUCell": lambda: ByCell(nn.GRUCell),
    "RNNCell": lambda: ByCell(nn.RNNCell),
}
CRITERIA = [
    *({"kind": k} for k in ("magnitude", "random", "wanda", "snip", "grasp", "synflow", "taylor",
                            "layer_obs")),
    *({"kind": "obd", "curvature": c} for c in ("ggn_diagonal", "ggn_mc", "empirical_fisher",
                                                "hessian_diagonal", "hutchinson",
                                                "second_backprop")),
    *({"kind": "obs", "inverse": i} for i in ("full", "block_fisher", "kfac", "low_rank")),
    {"kind": "obs", "inverse": "full", "curvature": "hessian"},
]  # fmt: skip


def samples() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(30, 5, 3), torch.randint(3, (30,))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_criterion_prunes_and_predicts_with_the_exact_hessian(name):
    torch.manual_seed(0)
    network, data = NETWORKS[name](), samples()
    for criterion in CRITERIA:
        report = prune(network, data, {**QUIET, "criterion": criterion}).report
        assert report.sparsity.removed == report.sparsity.total // 2, criterion
        assert {r.matrix for r in report.rounds} == {"hessian"}, criterion
        assert {r.not_predicted for r in report.rounds} == {None}, criterion


def files(name: str, network: nn.Module, folder: Path) -> Iterator[Path]:
    x = torch.randn(2, 5, 3)
    export(network, (x,), folder / "architecture")
    yield folder / "architecture"
    batch = torch.export.Dim("batch", min=2)
    torch.export.save(
        torch.export.export(network, (x,), dynamic_shapes=({0: batch},)), folder / "net.pt2"
    )
    yield folder / "net.pt2"
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    torch.onnx.export(network, (x,), folder / "net.onnx", dynamo=False, input_names=["x"],
                      output_names=["y"], dynamic_axes=axes)  # fmt: skip
    onnx.checker.check_model(folder / "net.onnx")
    yield folder / "net.onnx"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_criterion_prunes_a_recurrent_network_of_every_format(name, tmp_path):
    torch.manual_seed(0)
    x, target = samples()
    for path in files(name, NETWORKS[name]().eval(), tmp_path):
        imported = read_model(path, Limits())
        report = prune(imported.module, (x, target), QUIET, facts=imported.facts).report
        assert report.sparsity.removed == report.sparsity.total // 2, path
        assert {r.matrix for r in report.rounds} == {"hessian"}, path

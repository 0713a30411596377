"""What can't be exported says where and what to do; the command line does the rest."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.architecture import export, network_functions, read
from pruning.formats.architecture.functions import FUNCTIONS
from pruning.formats.architecture.layers import LAYERS
from pruning.formats.limits import Limits

assert network_functions

ROOT = Path(__file__).resolve().parents[3]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 4)


class Branch(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if x.sum() > 0:
            return self.second(x)
        return x


class Mask(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[x[:, 0] > 0])


class Assigned(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x[:, 0] = 0
        return x


class ThroughView(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x[:, 0].add_(1)
        return x


class Noise(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + torch.randn(6)


class Always(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.first(x), 0.5, training=True)


class Sorted(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(self.first(x))[0]


class OneBatch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.first(x).reshape(int(x.shape[0]) * 2, 3)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(4, 4), Branch())

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


@pytest.mark.parametrize(
    ("module", "code", "words"),
    [
        (Branch(), "operator_unsupported", "__bool__"),
        (Mask(), "operator_unsupported", "mask"),
        (Assigned(), "operator_unsupported", "assigns"),
        (ThroughView(), "verification_failed", "output_0"),
        (Noise(), "operator_unsupported", "randn"),
        (Always(), "operator_unsupported", "random"),
        (Sorted(), "operator_unsupported", "qr"),
        (OneBatch(), "verification_failed", "reshape"),
        (torch.jit.script(nn.Linear(4, 4)), "module_unsupported", "TorchScript"),
        (nn.Linear(5, 4), "module_failed", "[2, 4]"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_what_cannot_be_declared_is_named(
    module: nn.Module, code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SecateurError) as caught:
        export(module, (torch.randn(2, 4),), tmp_path)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.hint


def test_the_error_names_module_and_line(tmp_path: Path) -> None:
    with pytest.raises(SecateurError) as caught:
        export(Inner(), (torch.randn(2, 4),), tmp_path)
    assert caught.value.where == "part.1"
    assert f"{Path(__file__).name}:" in caught.value.message


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    export(OneBatch(), (torch.randn(2, 4),), tmp_path, dynamic_batch=False)
    assert read(tmp_path, Limits()).facts.batch == 2


def test_exporting_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export(module, (torch.randn(3, 4),), tmp_path)
    assert all(part.training and "forward" not in vars(part) for part in module.modules())
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())


def test_weight_normalisation_is_traced_through(tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).eval(), nn.Linear(4, 2)
    ).eval()
    export(module, (torch.randn(2, 4),), tmp_path)
    imported = read(tmp_path, Limits())
    x = torch.randn(3, 4)
    torch.testing.assert_close(imported.module(x), module(x))
    # A zero of the matrix that is divided by its norm is one of the matrix in use.
    named = {layer.name for layer in imported.facts.layers}
    assert named == {"0.parametrizations.weight.original", "1"}


# One call of each function that no network of the cases makes: (arguments, call).
CALLS: dict[str, Any] = {
    "sub and turned": lambda x: (1 - x) - torch.sub(x, x, alpha=2),
    "powers": lambda x: 2**x + x**2 + x.abs().pow(0.5),
    "division": lambda x: 1 / (x + 9) + x // 2 + torch.div(x, 2, rounding_mode="floor"),
    "reductions": lambda x: x.var(1) + x.std(dim=1, unbiased=False) + x.norm(dim=1) + x.prod(1),
    "extremes": lambda x: x.max() + x.min(1)[0] + torch.maximum(x, -x)[:, 0] + x.argmax(1),
    "masks": lambda x: torch.where((x > 0) & ~(x > 1) | (x == 2), x, 0.0),
    "shapes": lambda x: x.view(x.size(0), 2, 2).repeat(1, 2, 1).flip(1).roll(1, 1).mT,
    "index": lambda x: x[:, [0, 2], None, ...][..., :-1] + x.unsqueeze(1)[:, :, ::2, None],
    "gathered": lambda x: x.gather(1, torch.zeros_like(x, dtype=torch.int64)) + x.new_ones(4),
    "split": lambda x: torch.cat([*x.split(3, dim=1), *x.chunk(2, 1), *x.split([1, 3], 1)], -1),
    "stacked": lambda x: torch.stack([x, x.expand_as(x)], dim=2).flatten(1).squeeze(),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x).tril(),
    "norms": lambda x: F.layer_norm(F.normalize(x, dim=1), (4,)) + F.rms_norm(x, (4,)),
    "grouped": lambda x: F.group_norm(x, 2),
    "activations": lambda x: F.elu(x) + F.mish(x) + F.leaky_relu(x, 0.2) + F.softplus(x)
    + F.glu(x).repeat(1, 2),
    "scores": lambda x: F.log_softmax(x, dim=1) + torch.logsumexp(x, 1, keepdim=True),
    "casts": lambda x: x.double().to(torch.int64).float() + x.type_as(x) + x.bool().float(),
    "ranges": lambda x: x + torch.arange(1, x.shape[1] + 1, device=x.device) * torch.eye(4)[0],
    "filled": lambda x: x + torch.full((x.size(0), 1), 2.0) + torch.zeros(4) + torch.ones_like(x),
    "top": lambda x: x.topk(2, dim=1)[0],
    "hot": lambda x: F.one_hot(x.argmax(1), 4).float() * x.cumsum(1),
    "windows": lambda x: F.avg_pool1d(F.max_pool1d(x[:, None], 2, 1), 2, ceil_mode=True),
    "clamped": lambda x: x.clamp(-0.5, 0.5).clamp(min=0) + x.relu_().sigmoid(),
}  # fmt: skip


class Call(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.layer(x))


@pytest.mark.parametrize("name", CALLS)
def test_functions_as_people_call_them(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Call(CALLS[name]).eval()
    export(module, (torch.randn(3, 4),), tmp_path)
    x = torch.randn(5, 4)
    torch.testing.assert_close(read(tmp_path, Limits()).module(x), module(x))


def test_the_reference_lists_every_kind_and_function() -> None:
    text = (ROOT / "docs" / "architecture-json.md").read_text("utf-8")
    assert not [name for name in (*LAYERS, *FUNCTIONS) if f"`{name}`" not in text]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, typer; from secateur.cli.export import export; app = typer.Typer(); "
        "app.command()(export); sys.argv[0] = 'export'\n"
        "from pruning.errors import SecateurError\n"
        "try: app()\nexcept SecateurError as error: sys.exit(f'{error.code}: {error}')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip


def test_the_command_writes_a_users_own_network(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))\n"
    )
    weights = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict()
    torch.save({"model": {f"module.{n}": t for n, t in weights.items()}}, tmp_path / "w.pt")
    done = run(tmp_path, "nets:build", "--input", "x=1x4", "--out", "o", "--weights", "w.pt")
    assert done.returncode == 0, done.stderr
    imported = read(tmp_path / "o", Limits())
    assert imported.facts.inputs[0].name == "x"
    assert all(torch.equal(imported.module.get_parameter(n), t) for n, t in weights.items())
    again = run(tmp_path, "nets:nothing", "--input", "1x4", "--out", "o2")
    assert again.returncode == 1
    assert "nets has no nothing" in again.stderr


def test_an_exception_of_the_users_own_code_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("def build():\n    raise KeyError('weights')\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    options = ("--input", "1x4", "--out", "o")
    made = run(tmp_path, "nets.py:build", *options)
    assert made.returncode == 1
    assert "build raised KeyError: 'weights' (at nets.py:2)" in made.stderr
    assert "broken.py raised SyntaxError" in run(tmp_path, "broken.py:f", *options).stderr

"""A model that does not fit: weights in files under a memory limit, or beside a small GPU."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.layers import Prunable, prunable_layers
from pruning.layerwise import Collected, Options, walk
from pruning.layerwise import walk as walking
from pruning.layerwise.passes import Pass
from pruning.layerwise.residence import Residence
from pruning.solvers.layer import LayerSolution

DEPTH, WIDTH, SPREAD = 64, 64, 128
WEIGHTS = DEPTH * SPREAD * WIDTH * WIDTH * 4
"""Bytes."""
ALLOWED = WEIGHTS * 2 // 3
"""Bytes that the process may take beyond those of its imports."""

CHILD = """
import resource, sys, threading
import torch
from tests.pruning.layerwise.test_model_larger_than_memory import {names}

threading.stack_size(1 << 20)
torch.set_num_threads(1)
warm = perceptron(torch.randn(2 * SPREAD * WIDTH * WIDTH), 2)
prune(warm)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = int(status["VmData"].split()[0]) * 1024 + ALLOWED
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    torch.zeros(WEIGHTS // 4)
    sys.exit("the limit does not bite")
except RuntimeError:
    pass
stored = torch.from_file(sys.argv[1], shared=True, size=WEIGHTS // 4)
print(len(prune(perceptron(stored, DEPTH)).layers))
""".replace("{names}", "ALLOWED, DEPTH, SPREAD, WEIGHTS, WIDTH, perceptron, prune")


class Residual(nn.Module):
    """Few inputs and many outputs, so that weights are large beside their Gram matrix."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, SPREAD * WIDTH, bias=False, device="meta")
        self.layer.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).relu().unflatten(1, (SPREAD, WIDTH)).sum(1)
        return nn.functional.layer_norm(x + y, (WIDTH,))


def perceptron(stored: Tensor, depth: int) -> nn.Module:
    """Layers whose weights are views of one tensor, wherever that lies."""
    weights = stored.view(depth, SPREAD * WIDTH, WIDTH)
    return nn.Sequential(*(Residual(weights[n]) for n in range(depth))).eval()


def half(problem: Collected) -> LayerSolution:
    removed = torch.zeros(problem.aim.shape, dtype=torch.bool, device=problem.aim.device)
    removed.view(-1, 2)[:, 0] = True
    return LayerSolution(problem.aim.masked_fill(removed, 0.0), removed)


def prune(module: nn.Module, device: torch.device | None = None) -> Any:
    x = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1))
    options = Options(aim="dense", batch=32, device=device, masks=False)
    return walk(module, prunable_layers(module), ArrayData({"x": x}), half, options)


def initial() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(WEIGHTS // 4, generator=generator) * WIDTH**-0.5 / SPREAD


@pytest.mark.skipif(sys.platform != "linux", reason="limits data segments as Linux does")
def test_weights_in_files_are_pruned_in_less_memory_than_they_take(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    stored = torch.from_file(str(path), shared=True, size=WEIGHTS // 4)
    stored.copy_(initial())
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=100
    )
    assert (child.returncode, child.stdout) == (0, f"{DEPTH}\n"), child.stderr[-2000:]
    weights = stored.view(DEPTH, -1, 2)
    assert not weights[:, :, 0].any()
    assert int((weights[:, :, 1] == 0).sum()) == 0


class Copies(Residence):
    """The module's tensors count as lying elsewhere; what is brought here is counted."""

    brought = 0

    def here(self, tensor: Tensor) -> bool:
        return not self.owns(tensor)

    def bring(self, tensor: Tensor) -> Tensor:
        if self.here(tensor):
            return tensor
        Copies.brought += tensor.nbytes
        return tensor.clone()


class Attends(nn.Module):
    """Views of weights, buffers, a tied weight and positions made on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.BatchNorm1d(8), nn.Linear(8, 9)
        self.tied = nn.Linear(8, 9, bias=False)
        self.tied.weight = self.head.weight

    def forward(self, ids: Tensor) -> Tensor:
        at = torch.arange(ids.shape[1], device=self.embed.weight.device)
        x = self.embed(ids) + at[:, None] / 10
        x = x + self.inner(x, x.tanh(), x.tanh(), need_weights=False)[0]
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(x) + self.tied(x.tanh())


@pytest.mark.parametrize("aim", ["weights", "layer", "dense"])
def test_weights_fetched_for_each_call_give_the_same(aim: Any, monkeypatch: Any) -> None:
    torch.manual_seed(0)
    one = Attends().double().eval()
    two = copy.deepcopy(one)
    data = ArrayData({"ids": torch.randint(9, (10, 4))})
    for module in (one, two):
        if module is two:
            monkeypatch.setattr(sys.modules[walking.__module__], "Residence", Copies)
        walk(module, _matrices(module), data, half, Options(aim=aim, batch=4))
    assert Copies.brought > 0
    for (name, weight), other in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(other, weight, msg=name)


def _matrices(module: nn.Module) -> list[Prunable]:
    names = ("inner.in_proj_weight", "inner.out_proj.weight", "head.weight")
    parameters = dict(module.named_parameters())
    return [Prunable(n.rpartition(".")[0], "", n.rpartition(".")[2], parameters[n]) for n in names]


def test_a_module_that_changes_its_buffers_elsewhere_is_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += x
            return self.seen

    module = Counts().eval()
    with (
        pytest.raises(SecateurError) as refused,
        Pass(module, (torch.ones(3),), Copies(module)) as run,
    ):
        run.advance(lambda call: False)
    assert refused.value.code == "operator_unsupported"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_larger_than_the_gpu_is_pruned_on_it() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    module, expected = perceptron(initial(), DEPTH), perceptron(initial(), DEPTH)
    prune(perceptron(torch.randn(2 * SPREAD * WIDTH * WIDTH), 2), device)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + ALLOWED
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            module[0].layer.weight.new_zeros(WEIGHTS // 4, device=device)
        prune(module, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    prune(expected)
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        assert one.device.type == "cpu"
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

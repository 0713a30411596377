"""A pass that waits anywhere ends with the bits of one that never does."""

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.layerwise.passes import Pass
from pruning.layerwise.residence import Originals, Residence
from pruning.layerwise.shelf import Shelf


class Residual(nn.Module):
    """In-place activation, batch norm, and sums in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.first(x)), inplace=True)
        y += x
        x = self.second(y).relu_()
        return x.add_(y)


class Views(nn.Module):
    """Writes through views of tensors that are read later, and into its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x[:, 0] = 1.0
        y = self.layer(x)
        left, right = y.chunk(2, 1)
        left.mul_(2.0)
        whole = y.sum(1, keepdim=True)
        right[:, 1:3] = left[:, :2] * whole
        row = y.view(-1)[:4]
        return {"y": y, "row": row.clone(), "left": left}


class Decides(nn.Module):
    """Goes where its data say, and makes tensors on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.odd = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        steps = [float(x.sum())]
        for step in range(int(x.abs().sum()) % 4 + 1):
            x = (self.even if step % 2 == 0 else self.odd)(x).tanh()
            if x.mean() > 0 and bool((x[0] > 0).any()):
                x = x + torch.arange(4, device=x.device) * torch.full((4,), 0.1)
            steps.append(x.shape)
        try:
            x @ torch.ones(3)
        except RuntimeError:
            x = x * 2
        return x, steps


class TiedLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu()) @ self.one.weight


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.inner = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[:2], dtype=torch.bool)
        hidden[:, -1] = True
        return self.inner(x, src_key_padding_mask=hidden)


class Mixed(nn.Module):
    """Switches automatic mixed precision on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x).float() + x


MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "perceptron": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (4,)),
    "convolutions": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten()), (3, 6, 6)),
    "residual in place": (Residual(), (3, 5, 5)),
    "encoder with mask": (Masked(), (5, 8)),
    "lstm": (nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), (5, 4)),
    "data decide": (Decides(), (4,)),
    "tied weights": (TiedLayers(), (4,)),
    "views": (Views(), (4,)),
    "mixed precision": (Mixed(), (4,)),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.fixture(autouse=True)
def plain_attention() -> Any:
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("limit", [None, 0], ids=["in memory", "in files"])
@pytest.mark.parametrize("kind", MODULES)
def test_waiting_before_every_call_changes_no_bit(kind: str, limit: int | None) -> None:
    torch.manual_seed(0)
    module, shape = MODULES[kind]
    module.eval()
    x = torch.randn(3, *shape)
    given = x.clone()
    with torch.no_grad():
        wanted = copy.deepcopy(module)(x.clone())
    shelf = Shelf(limit)
    with Pass(module, (x,), Residence(module), shelf) as run:
        calls, most = 0, 0
        while run.advance(lambda call, next_=calls: call.number >= next_) is not None:
            calls += 1
            run.wait()
            most = max(most, shelf.written)
        assert run.call is None
        assert same(run.output, wanted)
        assert calls > 2
    assert torch.equal(x, given)
    assert (most > 0) == (limit == 0)
    assert shelf.held == shelf.written == 0


def test_passes_wait_side_by_side_with_their_own_weights_view_and_all() -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()

    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x.tanh(), x.tanh())[0]

    network, x = Crossed().eval(), torch.randn(3, 5, 8)
    kept = Originals()
    with torch.no_grad():
        dense = network(x)
        with (
            Pass(network, (x,), Residence(network), originals=kept) as old,
            Pass(network, (x,), Residence(network)) as new,
        ):
            for run in (old, new):
                run.advance(lambda call: call.func is functional.linear)
            kept.keep("inner.in_proj_weight", module.in_proj_weight)
            module.in_proj_weight.mul_(0.5)
            for run in (old, new):
                run.advance(lambda call: False)
            torch.testing.assert_close(old.output, dense, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(new.output, network(x), rtol=1e-5, atol=1e-6)
            assert float((new.output - dense).abs().max()) > 1e-3


def test_an_error_of_the_module_reaches_the_caller() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3)).eval()
    run = Pass(module, (torch.randn(2, 4),), Residence(module))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run.advance(lambda call: False)
    run.close()


def test_a_pass_given_up_ends_its_thread() -> None:
    module = MODULES["perceptron"][0].eval()
    before = threading.active_count()
    runs = [Pass(module, (torch.randn(2, 4),), Residence(module)) for _ in range(20)]
    for run in runs:
        run.advance(lambda call: call.number == 1)
    assert threading.active_count() == before + 20
    for run in runs:
        run.close()
    assert threading.active_count() == before

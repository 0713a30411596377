"""Number formats of the passes; weights, moments and losses keep theirs."""

import pytest
import torch
from torch import nn

from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.recovery.fine_tune import recover
from pruning.recovery.masking import Masking
from pruning.recovery.precision import Precision, resolve
from pruning.recovery.setting import Setting
from pruning.spec import FineTune

torch.set_num_threads(1)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 3)
        self.seen = set()

    def forward(self, x):
        hidden = self.first(x)
        self.seen.add(hidden.dtype)
        return self.second(hidden.relu())


def run(precision, device=CPU):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Network().eval().to(device)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    data = ArrayData({"x": x}, (x[:, 0] > 0).long())
    kept = (torch.rand(16, 5, generator=torch.Generator().manual_seed(2)) > 0.5).to(device)
    setting = Setting(
        module, data, LOSSES["cross_entropy"], Masking([(module.first.weight, kept)]), 0
    )
    recover(setting, FineTune(epochs=10, batch_size=16, precision=precision))
    assert (module.first.weight[~kept] == 0).all()
    return module, nn.functional.cross_entropy(module(x.to(device)), data.target.to(device)).item()


def test_auto_is_float32_on_a_cpu():
    assert resolve("auto", CPU) == "float32"
    modules = [run(precision)[0].state_dict() for precision in ("auto", "float32")]
    assert all(torch.equal(modules[0][k], modules[1][k]) for k in modules[0])


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32():
    (module, loss), (_, plain) = run("bfloat16"), run("float32")
    assert torch.bfloat16 in module.seen
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert loss != plain
    assert loss == pytest.approx(plain, rel=0.02)


def test_float16_on_a_cpu_is_refused_by_name():
    with pytest.raises(SecateurError) as caught:
        run("float16")
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.recovery.precision")


def test_the_scale_of_float16_survives_a_checkpoint():
    """The arithmetic of the scale is the same without a GPU; here it is only carried."""
    first, second = (Precision("float32", CPU) for _ in range(2))
    for precision, scale in ((first, 128.0), (second, 2.0)):
        precision._scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        precision._scaler.scale(torch.ones(()))
    second.load(first.state())
    assert float(second._scaler.scale(torch.ones(()))) == 128.0


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_falls():
    """The scaler on the CPU, whose arithmetic is that of the GPU."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], 0.1, fused=True)
    precision = Precision("float32", CPU)
    precision._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor, moved in ((1e38, False), (1.0, True)):
        optimizer.zero_grad()
        precision.backward((weight * factor).sum())
        precision.unscale(optimizer)
        if moved:
            assert torch.allclose(weight.grad, torch.ones(3))
        precision.step(optimizer)
        assert bool((weight != 1).all()) == moved
        assert float(precision.state()["scale"]) == 512.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_every_precision_trains_on_a_gpu(precision):
    _, loss = run(precision, GPU)
    _, plain = run("float32")
    assert loss == pytest.approx(plain, rel=0.05)

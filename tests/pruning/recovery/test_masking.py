"""One pass over the gradients keeps removed weights and their moments at zero."""

import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.recovery import masking as masking_module
from pruning.recovery.masking import Masking
from pruning.recovery.setting import At

torch.set_num_threads(1)
AT = At(0, 1, 0.1)
MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "sgd, plain": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1, fused=True),
    "adam, loop": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1, fused=True),
    "adamw, decay beyond 1": lambda p: torch.optim.AdamW(p, 2.0, weight_decay=0.8, fused=True),
}


def weights(dtype=torch.float32, shape=(7, 11)):
    g = torch.Generator().manual_seed(0)
    kept = torch.rand(shape, generator=g) > 0.6
    return nn.Parameter(torch.randn(shape, generator=g).to(dtype)), kept


def bits(tensor):
    return tensor.detach().contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MAKERS)
def test_removed_weights_end_at_positive_zero_with_moments_of_zero(kind, dtype):
    weight, kept = weights(dtype)
    optimizer = MAKERS[kind]([weight])
    masking = Masking([(weight, kept)])
    masking.begin()
    g = torch.Generator().manual_seed(1)
    for _ in range(8):
        weight.grad = torch.randn(weight.shape, generator=g).to(dtype)
        masking.gradients(AT)
        assert (bits(weight.grad[~kept]) == 0).all()
        optimizer.step()
        masking.stepped(AT)
        assert (weight.detach()[~kept] == 0).all()
    masking.end(optimizer)
    assert (bits(weight[~kept]) == 0).all()
    moments = [v for v in optimizer.state[weight].values() if v.shape == kept.shape]
    assert len(moments) == (1 if kind.startswith("sgd") else 2)
    assert all((m[~kept] == 0).all() and (m[kept] != 0).all() for m in moments)


@pytest.mark.parametrize("wide", [0, 1 << 20])
@pytest.mark.parametrize("shape", [(5,), (400, 700), (3, 2, 3, 3)])
def test_survivors_keep_their_gradients_bit_for_bit_and_nan_goes(shape, wide, monkeypatch):
    monkeypatch.setattr(masking_module, "WIDE", wide)
    weight, kept = weights(shape=shape)
    weight.grad = torch.randn(shape)
    before = weight.grad.clone()
    weight.grad[~kept] = torch.tensor([float("nan"), float("inf"), -1.0])[
        torch.arange(int((~kept).sum())) % 3
    ]
    Masking([(weight, kept)]).gradients(AT)
    assert torch.equal(weight.grad[kept], before[kept])
    assert (bits(weight.grad[~kept]) == 0).all()


def test_gradients_in_another_layout_are_masked_where_they_should():
    weight, kept = weights(shape=(4, 6, 3, 3))
    weight.data = weight.data.to(memory_format=torch.channels_last)
    weight.grad = torch.ones_like(weight)
    assert not weight.grad.is_contiguous()
    Masking([(weight, kept)]).gradients(AT)
    assert torch.equal(weight.grad != 0, kept)


def test_pieces_of_a_large_weight_are_masked_like_the_whole(monkeypatch):
    monkeypatch.setattr(masking_module, "CHUNK", 13)
    monkeypatch.setattr(masking_module, "WIDE", 0)
    weight, kept = weights()
    weight.grad = torch.ones_like(weight)
    Masking([(weight, kept)]).gradients(AT)
    assert torch.equal(weight.grad != 0, kept)


@pytest.mark.parametrize("what", ["weight", "exp_avg", "exp_avg_sq"])
def test_the_end_refuses_a_removed_weight_or_moment_that_is_not_zero(what):
    weight, kept = weights()
    optimizer = torch.optim.Adam([weight])
    masking = Masking([(weight, kept)])
    masking.begin()
    weight.grad = torch.ones_like(weight)
    masking.gradients(AT)
    optimizer.step()
    spoiled = weight.data if what == "weight" else optimizer.state[weight][what]
    index = (~kept).nonzero()[3].tolist()
    spoiled[tuple(index)] = float("nan")
    with pytest.raises(SecateurError, match=what) as caught:
        masking.end(optimizer)
    assert caught.value.code == "mask_not_kept"


def test_large_masks_are_looked_at_and_not_copied(monkeypatch):
    monkeypatch.setattr(masking_module, "WIDE", 0)
    weight, kept = weights()
    masking = Masking([(weight, kept)])
    held = [tensor for _, tensor in masking._kept] + masking._factors
    assert {tensor.data_ptr() for tensor in held} == {kept.data_ptr()}

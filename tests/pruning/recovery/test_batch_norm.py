"""Statistics of BatchNorm against direct computations over all samples, in float64."""

import pytest
import torch
from torch import nn

from pruning.curvature.losses import LOSSES
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.recovery.batch_norm import Pooled, recover
from pruning.recovery.masking import Masking
from pruning.recovery.setting import Setting
from pruning.spec import BatchNorm

torch.set_num_threads(1)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(12, 2),
        ).double().eval()  # fmt: skip


def samples(count):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(count, 2, 6, 6, generator=g).double()
    return ArrayData({"x": x + torch.arange(count)[:, None, None, None] / count})


def run(module, data, batch_size, seed=5):
    setting = Setting(module, data, LOSSES["match_dense"], Masking([]), seed)
    return recover(setting, BatchNorm(batch_size=batch_size))


def normalised(x, layer):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    scale, shift = (p[None, :, None, None] for p in (layer.weight, layer.bias))
    return (x - mean) / (variance + layer.eps).sqrt() * scale + shift


@pytest.mark.parametrize(("count", "size"), [(23, 23), (23, 8), (24, 6), (25, 8), (3, 2)])
def test_statistics_are_those_of_all_samples_pooled_layer_by_layer(count, size):
    """Each layer's inputs written out and joined over batches; 25 by 8 leaves one sample over."""
    module, data = network(), samples(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    batches = list(order.split(size))
    if len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    first = [module[0](data.inputs["x"][index]) for index in batches]
    second = [module[4](normalised(x, module[1]).relu()) for x in first]
    assert run(module, data, size) == []
    for layer, inputs in ((module[1], first), (module[5], second)):
        joined = torch.cat(inputs)
        assert torch.allclose(layer.running_mean, joined.mean((0, 2, 3)), rtol=1e-12)
        assert torch.allclose(layer.running_var, joined.var((0, 2, 3)), rtol=1e-12)


def test_one_batch_of_all_samples_makes_every_layer_normal_in_evaluation_mode():
    """The fixed point: what a layer sees then has the mean and variance that it keeps."""
    module, data = network(), samples(40)
    run(module, data, 64)
    x = data.inputs["x"]
    for index in (1, 5):
        # Statistics are kept with n - 1, and batches are normalised with n.
        seen = module[:index](x)
        assert torch.allclose(seen.mean((0, 2, 3)), module[index].running_mean, atol=5e-3)
        assert torch.allclose(seen.var((0, 2, 3)), module[index].running_var, rtol=5e-3)


def test_nothing_else_of_the_module_changes_and_it_ends_in_evaluation_mode():
    module, data = network(), samples(20)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    run(module, data, 7)
    changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"{n}.running_{s}" for n in (1, 5) for s in ("mean", "var")}
    assert not any(m.training or m._forward_pre_hooks for m in module.modules())


def test_sorted_samples_are_drawn_in_a_seeded_order():
    found = []
    for seed in (1, 1, 2):
        module = network()
        run(module, samples(40), 10, seed=seed)
        found.append(module[5].running_var)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_pooling_is_exact_whatever_the_parts():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double() * 3 + 1e6
    pooled = Pooled()
    for part in x.split([1, 20, 2, 27]):
        pooled.add(part)
    assert torch.allclose(pooled.mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(pooled.variance, x.var(0), rtol=1e-9)


def test_a_model_without_batch_norm_is_refused():
    with pytest.raises(SecateurError) as caught:
        run(nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).double(), samples(9), 4)
    assert (caught.value.code, caught.value.where) == ("spec_conflict", "spec.recovery.kind")


def test_one_sample_is_too_few():
    with pytest.raises(SecateurError) as caught:
        run(network(), samples(1), 4)
    assert caught.value.code == "data_empty"

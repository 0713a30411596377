"""Modules of half types: computed in float32, given back in their own, unchanged bits kept."""

import copy as copying

import pytest
import torch
from torch import nn

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, codes, pair, same_roles, zeros

torch.set_num_threads(1)

OTHERS = {k: v for k, v in MAGNITUDE.items() if k != "criterion"}
HALF = [torch.bfloat16, torch.float16]
SPECS = {
    "magnitude": MAGNITUDE,
    "obs": {**MAGNITUDE, "criterion": {"kind": "obs", "damping": 0.1}},
    "layerwise": {**OTHERS, "compensation": {"kind": "layerwise"}},
    "recovery": {**MAGNITUDE, "recovery": {"kind": "fine_tune", "epochs": 2}},
}


def rounded(data, dtype):
    part = ArrayData({k: v.to(dtype) for k, v in data.calibration.inputs.items()},
                     data.calibration.target)  # fmt: skip
    return Data(part, part, part)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", SPECS)
def test_the_same_weights_go_as_of_the_module_in_float32(name, dtype, copy):
    net, data = Net().to(dtype), rounded(same_roles(), dtype)
    wide = copying.deepcopy(net).float()
    expected = prune(wide, rounded(data, torch.float32), SPECS[name])
    first = net.m[0].weight
    outcome = prune(net, data, SPECS[name], copy=copy)
    assert outcome.report.loss == expected.report.loss
    assert all(torch.equal(m, expected.masks[k]) for k, m in outcome.masks.items())
    assert zeros(outcome) == 36
    assert codes(outcome) == ["computed_in_float32", "weights_rounded"]
    for key, value in outcome.module.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(value, expected.module.state_dict()[key].to(dtype))
    assert (outcome.module.m[0].weight is first) is not copy
    assert outcome.module(data.calibration.inputs["x"]).dtype == dtype


@pytest.mark.parametrize("copy", [True, False])
def test_what_did_not_change_keeps_its_bits_and_what_went_is_plus_zero(copy):
    net = Net().bfloat16()
    with torch.no_grad():
        net.m[0].bias[0] = -0.0
        net.m[2].bias.view(torch.int16)[1] = 1  # the smallest subnormal
        net.m[0].weight[0, 0] = -0.0
    before = {k: v.clone().view(torch.int16) for k, v in net.state_dict().items()}
    outcome = prune(net, pair(), MAGNITUDE, copy=copy)
    assert zeros(outcome) == 36
    for key, value in outcome.module.state_dict().items():
        kept = outcome.masks.get(key, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value.view(torch.int16)[kept], before[key][kept])


def test_mixed_types_and_buffers_come_back_in_their_own():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    net[0].to(torch.bfloat16)
    net[1].to(torch.float16)
    types = {k: v.dtype for k, v in net.state_dict().items()}
    spec = {**MAGNITUDE, "recovery": {"kind": "batch_norm"}}
    outcome = prune(net, pair(), spec)
    assert {k: v.dtype for k, v in outcome.module.state_dict().items()} == types
    assert not torch.equal(outcome.module[1].running_mean, net[1].running_mean)
    assert "bfloat16 or float16" in outcome.report.warnings[0].message


def test_other_runs_of_a_study_can_be_put_into_a_half_module():
    spec = {**MAGNITUDE, "curve": {"points": [0.25]}}
    net, expected = Net().bfloat16(), Net().bfloat16().float()
    outcome, wide = prune(net, pair(), spec), prune(expected, pair(), spec)
    for done in (outcome, wide):
        done.study.runs.show(done.study.points[0][1])
    for key, value in outcome.module.state_dict().items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, wide.module.state_dict()[key].bfloat16())


def test_bytes_are_counted_in_the_module_s_own_type():
    """A target of as many bytes leaves about twice as many weights of half the size."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 400), nn.ReLU(), nn.Linear(400, 3))
    spec = {**MAGNITUDE, "target": {"bytes": 9000}}
    single = prune(copying.deepcopy(net), pair(), spec).report.sparsity
    half = prune(net.bfloat16(), pair(), spec).report.sparsity
    assert half.total - half.removed > 1.5 * (single.total - single.removed)


def test_a_value_that_float16_can_not_hold_is_refused_and_nothing_is_changed():
    net = nn.Linear(6, 1, bias=False).half()
    x = pair()[0]
    spec = {
        **MAGNITUDE,
        "objective": {"loss": "mse"},
        "recovery": {"kind": "fine_tune", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e5}},
    }
    before = net.weight.clone()
    with pytest.raises(SecateurError) as caught:
        prune(net, (x, torch.full((60, 1), 100.0)), spec, copy=False)
    assert caught.value.code in ("weights_non_finite", "loss_non_finite")
    assert torch.equal(net.weight, before)
    assert net.weight.dtype == torch.float16


def test_a_forward_that_casts_to_a_half_type_is_refused_with_the_reason():
    class Casting(Net):
        def forward(self, x):
            return self.m(x.bfloat16())

    with pytest.raises(SecateurError, match=r"module_failed.*computed in float32"):
        prune(Casting().bfloat16(), pair(), MAGNITUDE)

"""Modules that can't be pruned as they are: refused by code, with the place and what to do."""

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import nn
from torch.nn.utils import parametrizations

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, pair, zeros

torch.set_num_threads(1)


def refused(module, **arguments):
    with pytest.raises(SecateurError) as caught:
        prune(module, pair(), MAGNITUDE, **arguments)
    return caught.value


def nine():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def masked(net):
    torch_prune.l1_unstructured(net[2], "weight", amount=0.5)
    return lambda: torch_prune.remove(net.get_submodule("2"), "weight")


def masked_bias(net):
    torch_prune.random_unstructured(net[2], "bias", amount=2)
    return lambda: torch_prune.remove(net.get_submodule("2"), "bias")


def normed(net):
    nn.utils.weight_norm(net[2])
    return lambda: torch.nn.utils.remove_weight_norm(net.get_submodule("2"), "weight")


def spectral(net):
    nn.utils.spectral_norm(net[2])
    return lambda: torch.nn.utils.remove_spectral_norm(net.get_submodule("2"), "weight")


def parametrised(kind):
    def change(net):
        kind(net[2], "weight")
        return lambda: torch.nn.utils.parametrize.remove_parametrizations(
            net.get_submodule("2"), "weight"
        )

    return change


CALLS = {
    masked: "torch.nn.utils.prune.remove(",
    masked_bias: "torch.nn.utils.prune.remove(",
    normed: "torch.nn.utils.remove_weight_norm(",
    spectral: "torch.nn.utils.remove_spectral_norm(",
    parametrised(parametrizations.weight_norm): "torch.nn.utils.parametrize.remove_parametriz",
    parametrised(parametrizations.orthogonal): "torch.nn.utils.parametrize.remove_parametriz",
    parametrised(parametrizations.spectral_norm): "torch.nn.utils.parametrize.remove_parametriz",
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("change", CALLS)
def test_computed_weights_are_refused_and_the_call_in_the_hint_is_what_helps(change, copy):
    net = nine()
    remove = change(net)
    error = refused(net, copy=copy)
    assert (error.code, error.where) == ("weights_computed", "2")
    assert CALLS[change] in error.hint
    assert "module.get_submodule('2')" in error.hint
    remove()
    assert zeros(prune(net, pair(), MAGNITUDE, copy=copy)) == 68


def test_all_layers_with_computed_weights_are_named():
    net = nine()
    for index in (0, 4):
        parametrizations.weight_norm(net[index])
    assert "0, 4 are computed" in refused(net).message


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_normed_recurrent_layer_is_refused_and_a_parametrised_bias_is_not():
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.LSTM(6, 4, batch_first=True))
    nn.utils.weight_norm(net[1], "weight_hh_l0")
    assert refused(net).where == "1"
    net = nine()
    parametrizations.weight_norm(net[2], "bias", dim=None)
    assert zeros(prune(net, pair(), MAGNITUDE)) == 68


def quantised():
    return torch.ao.quantization.quantize_dynamic(nine(), {nn.Linear})


def on_meta():
    net = nine()
    net[2].to("meta")
    return net


def sparse():
    net = nine()
    net[2].weight = nn.Parameter(net[2].weight.detach().to_sparse())
    return net


def integers():
    net = nine()
    net[2].weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)
    return net


def complex_weights():
    net = nine()
    net[2].weight = nn.Parameter(torch.ones(8, 8, dtype=torch.complex64))
    return net


def eight_bits():
    net = nine()
    net[2].weight = nn.Parameter(net[2].weight.detach().to(torch.float8_e4m3fn))
    return net


class Wrapped(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self):
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(func)


def wrapped():
    net = nine()
    net[2].weight = nn.Parameter(Wrapped(torch.randn(8, 8)))
    return net


KINDS = {
    "scripted": (lambda: torch.jit.script(nine()), "module_unsupported", "made from"),
    "traced": (
        lambda: torch.jit.trace(nine(), torch.randn(2, 6)), "module_unsupported", "made from",
    ),
    "traced part": (
        lambda: nn.Sequential(torch.jit.script(nine()), nn.Linear(3, 3)), "module_unsupported",
        "made from",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3)), "module_unsupported",
        "Run the module once",
    ),
    "quantised": (quantised, "module_unsupported", "quantise the result"),
    "meta": (on_meta, "module_unsupported", "Load the weights"),
    "sparse": (sparse, "module_unsupported", "to_dense"),
    "integers": (integers, "module_unsupported", "floating-point"),
    "complex": (complex_weights, "module_unsupported", "floating-point"),
    "float8": (eight_bits, "module_unsupported", "floating-point"),
    "wrapped": (wrapped, "module_unsupported", "plain tensors"),
    "empty": (lambda: nn.ReLU(), "no_prunable_layers", "trained network"),
    "no layers": (lambda: nn.BatchNorm1d(6), "no_prunable_layers", "layers"),
    "a dict": (lambda: nine().state_dict(), "module_unsupported", "nn.Module"),
    "no entries": (
        lambda: nn.Sequential(nn.Linear(6, 0), nn.Linear(0, 3)), "module_unsupported", "a size",
    ),
    "an exported program": (
        lambda: torch.export.export(nine(), (pair()[0],)), "module_unsupported",
        "torch.export.save",
    ),
    "a function": (lambda: torch.relu, "module_unsupported", "nn.Module"),
    "a class": (lambda: Net, "module_unsupported", "nn.Module"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_kinds_that_are_not_pruned_are_refused_with_what_to_do(name, copy):
    make, code, hint = KINDS[name]
    error = refused(make(), copy=copy)
    assert error.code == code
    assert hint in error.hint


def test_shards_and_several_devices_are_refused_by_name():
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = nine()
    net[2].__class__ = type("Sharded", (FullyShardedDataParallel,), {"forward": lambda s, x: x})
    error = refused(net)
    assert (error.code, error.where) == ("module_unsupported", "2")
    assert "several processes" in error.message


def test_weights_made_in_inference_mode_are_copied_and_not_changed_in_place():
    with torch.inference_mode():
        net = nine()
    error = refused(net, copy=False)
    assert (error.code, error.where) == ("module_unsupported", "0.weight")
    assert zeros(prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obd"}})) == 68


def test_frozen_weights_are_pruned_and_stay_frozen():
    net = nine().requires_grad_(False)
    outcome = prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obs", "damping": 0.1}})
    assert zeros(outcome) == 68
    assert not any(p.requires_grad for p in outcome.module.parameters())


@pytest.mark.parametrize("spec", ["spec.yaml", [("target", 0.5)], 3])
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(SecateurError, match="spec_invalid"):
        prune(nine(), pair(), spec)


def test_checkpoints_may_be_named_by_a_string(tmp_path):
    prune(nine(), pair(), MAGNITUDE, checkpoints=str(tmp_path / "kept"))
    assert any((tmp_path / "kept").iterdir())


REWOUND = {
    **MAGNITUDE,
    "schedule": {"kind": "rounds", "rounds": 2, "rewind": {"kind": "weights"}},
    "recovery": {"kind": "fine_tune", "epochs": 1},
}


@pytest.mark.parametrize("earlier", [3, nine(), {"0.weight": [1.0]}, {}])
def test_what_is_no_earlier_checkpoint_is_refused(earlier):
    with pytest.raises(SecateurError, match="rewind_invalid"):
        prune(nine(), pair(), REWOUND, rewind_to=earlier)


def test_an_earlier_checkpoint_of_a_wrapped_module_has_the_names_of_the_module_inside():
    earlier = nine()
    wrapped = nn.DataParallel(earlier).state_dict()
    expected = prune(nine(), pair(), REWOUND, rewind_to=earlier.state_dict())
    outcome = prune(nine(), pair(), REWOUND, rewind_to=wrapped)
    assert outcome.report.loss == expected.report.loss


def test_a_module_that_stays_in_training_mode_is_refused_by_name():
    class Stubborn(nn.Linear):
        def train(self, mode=True):
            return super().train(True)

    error = refused(nn.Sequential(nn.Linear(6, 8), Stubborn(8, 3)))
    assert (error.code, error.where) == ("module_unsupported", "1")


def test_a_computed_weight_outside_of_a_layer_is_refused():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.f = nn.Parameter(torch.randn(6, 8)), nn.Linear(8, 3)

        def forward(self, x):
            return self.f(x @ self.w)

    net = Product()
    nn.utils.parametrize.register_parametrization(net, "w", nn.Tanh())
    error = refused(net)
    assert (error.code, error.where) == ("weights_computed", "module")
    nn.utils.parametrize.remove_parametrizations(net, "w")
    assert zeros(prune(net, pair(), MAGNITUDE)) == 36


def test_batch_statistics_in_evaluation_mode_mix_the_samples():
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False))
    assert refused(nn.Sequential(net, nn.Linear(8, 3))).code == "samples_mixed"


def test_backward_hooks_in_the_way_of_derivatives_are_named():
    net = nine()
    net[1].register_full_backward_hook(lambda module, taken, given: None)
    with pytest.raises(SecateurError, match="backward hooks, such as that of 1") as caught:
        prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obs", "damping": 0.1}})
    assert caught.value.code == "operator_unsupported"

"""What was the caller's is the caller's again: the module after a failure, torch after any call."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, pair, same_roles, zeros

torch.set_num_threads(1)

DIVERGING = {
    **MAGNITUDE,
    "criterion": {"kind": "obd"},
    "recovery": {"kind": "fine_tune", "epochs": 3, "optimizer": {"kind": "sgd", "lr": 1e30}},
}


def whole(dtype):
    """Everything a module can lose: hooks, a patched forward, gradients, modes, frozen weights."""
    net = nn.Sequential(*Net().m, nn.BatchNorm1d(3), nn.Dropout(0.5)).to(dtype)
    net[3].running_var.fill_(2.0)
    net.train()
    net[3].eval()
    net[0].bias.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[2].register_forward_hook(lambda m, i, o: o * 2)
    net.forward = nn.Sequential.forward.__get__(net)
    return net


def seen(net):
    return {
        "values": {k: v.detach().clone() for k, v in net.state_dict().items()},
        "objects": [id(t) for t in (*net.parameters(), *net.buffers())],
        "memory": [t.data_ptr() for t in (*net.parameters(), *net.buffers())],
        "modes": [m.training for m in net.modules()],
        "required": [p.requires_grad for p in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "own": [sorted(vars(m)) for m in net.modules()],
        "kinds": [type(m) for m in net.modules()],
    }


def same(a, b):
    for key, value in a.items():
        if key == "values":
            assert all(v.dtype == b[key][k].dtype for k, v in value.items())
            assert all(torch.equal(v, b[key][k]) for k, v in value.items())
        elif key == "gradients":
            assert all((x is None and y is None) or torch.equal(x, y)
                       for x, y in zip(value, b[key], strict=True))  # fmt: skip
        else:
            assert value == b[key], key


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_is_as_it_was_after_a_job_that_fails_late(dtype, copy):
    net = whole(dtype)
    before = seen(net)
    with pytest.raises(SecateurError, match="loss_non_finite"):
        prune(net, pair(), DIVERGING, copy=copy)
    same(before, seen(net))


@pytest.mark.parametrize("phase", ["scoring", "recovering"])
def test_a_module_is_as_it_was_after_an_interrupt(phase):
    def interrupt(event):
        if event.type == "phase" and event.phase == phase:
            raise KeyboardInterrupt

    net = whole(torch.bfloat16)
    net[2].weight.data = net[2].weight.data  # its own memory
    before = seen(net)
    spec = {**MAGNITUDE, "recovery": {"kind": "fine_tune", "epochs": 1}}
    with pytest.raises(KeyboardInterrupt):
        prune(net, pair(), spec, copy=False, emit=interrupt)
    same(before, seen(net))


def test_of_a_module_pruned_in_place_only_weights_and_mode_change():
    net = whole(torch.float32)
    before = seen(net)
    outcome = prune(net, pair(), MAGNITUDE, copy=False)
    after = seen(net)
    assert outcome.module is net
    assert not any(after["modes"])
    assert zeros(outcome) == 36
    for key in ("values", "modes"):
        del before[key], after[key]
    same(before, after)


def test_the_copy_has_no_gradients_and_the_original_keeps_its_own():
    net = whole(torch.float32)
    before = seen(net)
    outcome = prune(net, pair(), {**MAGNITUDE, "recovery": {"kind": "fine_tune", "epochs": 1}})
    assert all(p.grad is None for p in outcome.module.parameters())
    assert [p.requires_grad for p in outcome.module.parameters()] == before["required"]
    same(before, seen(net))


def test_random_states_and_modes_of_torch_are_the_caller_s_own_afterwards():
    spec = {**DIVERGING, "recovery": {"kind": "fine_tune", "epochs": 1}}
    net = whole(torch.float32)
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    settings = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
                torch.are_deterministic_algorithms_enabled(),
                torch.backends.mha.get_fastpath_enabled())  # fmt: skip
    prune(net, pair(), spec)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert settings == (torch.get_num_threads(), torch.get_default_dtype(),
                        torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
                        torch.backends.mha.get_fastpath_enabled())  # fmt: skip


def around_default_float64():
    class Around:
        def __enter__(self):
            torch.set_default_dtype(torch.float64)

        def __exit__(self, *args):
            torch.set_default_dtype(torch.float32)

    return Around()


SURROUNDINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default float64": around_default_float64,
}


@pytest.mark.parametrize("around", SURROUNDINGS)
@pytest.mark.parametrize("criterion", ["magnitude", "obd", "obs"])
def test_what_the_caller_has_switched_on_changes_nothing(around, criterion):
    spec = {
        **MAGNITUDE,
        "criterion": {"kind": criterion},
        "recovery": {"kind": "fine_tune", "epochs": 1},
    }
    net, data = Net(), pair()
    expected = prune(net, data, spec)
    with SURROUNDINGS[around]():
        outcome = prune(net, data, spec)
    assert outcome.report.loss == expected.report.loss
    assert all(torch.equal(v, outcome.module.state_dict()[k])
               for k, v in expected.module.state_dict().items())  # fmt: skip
    assert not outcome.module.m[0].weight.is_inference()


class Counting(Net):
    """Keeps a count of its calls, an average and its last activations."""

    last = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(8, dtype=torch.bfloat16))
        self.seen = [torch.zeros(2)]

    def forward(self, x):
        self.calls += 1
        h = self.m[0](x)
        self.average = 0.9 * self.average + 0.1 * h.detach().mean(0).to(self.average.dtype)
        self.last, self.seen = h, [h]
        return self.m[2](self.m[1](h))


@pytest.mark.parametrize("copy", [True, False])
def test_what_calls_leave_in_a_module_is_not_in_the_result(copy):
    net = Counting()
    net.calls += 7
    seen = net.seen
    outcome = prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obd"}}, copy=copy)
    found = outcome.module
    assert (int(found.calls), int(net.calls)) == (7, 7)
    assert not found.average.any()
    assert found.average.dtype == torch.bfloat16
    assert found.last is None
    assert (found.seen is seen) is not copy
    assert torch.equal(found.seen[0], torch.zeros(2))
    deepcopy(found)
    (warning,) = [w for w in outcome.report.warnings if w.code == "buffers_put_back"]
    assert "calls, average" in warning.message
    assert outcome.report.loss == prune(Net(), pair(), {
        **MAGNITUDE, "criterion": {"kind": "obd"}}).report.loss  # fmt: skip


class WithMore(Net):
    """Adds an object to its state_dict, and a hook that drops what it does not save."""

    def __init__(self) -> None:
        super().__init__()
        self._register_state_dict_hook(
            lambda module, state, prefix, local: state.pop(f"{prefix}m.0.bias", None) and None
        )

    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        raise AssertionError("a job puts tensors back and nothing else")


STUDY = {
    **MAGNITUDE,
    "schedule": {"kind": "rounds", "rounds": 2, "rewind": {"kind": "weights"}},
    "recovery": {"kind": "fine_tune", "epochs": 2, "early_stop": {"patience": 1}},
    "comparison": {"criteria": [{"kind": "random"}]},
}


def test_what_a_module_makes_of_its_state_dict_does_not_matter(tmp_path):
    outcomes = [
        prune(net, pair(), STUDY, rewind_to=earlier, checkpoints=tmp_path / str(number))
        for number, (net, earlier) in enumerate(
            [
                (Net(), Net().state_dict()),
                (WithMore(), Net().state_dict() | {"_extra_state": {"version": 2}}),
            ]
        )
    ]
    plain, more = (outcome.report for outcome in outcomes)
    assert more.loss == plain.loss
    assert [w.code for w in more.warnings] == [w.code for w in plain.warnings]


def test_a_default_device_of_the_caller_s_does_not_reach_the_job():
    net, data = Net(), pair()
    expected = prune(net, data, MAGNITUDE).report.loss
    torch.set_default_device("meta")
    try:
        assert prune(net, data, MAGNITUDE).report.loss == expected
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


class Remembering(Net):
    """Keeps what it computed in a dict and a list that are there from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.log = {"kept": 1}, ["kept"]

    def forward(self, x):
        h = self.m(x)
        self.cache["h"] = h
        self.log.append(h)
        self.last = h
        return h


@pytest.mark.parametrize("copies", [True, False])
def test_what_calls_put_into_containers_is_taken_out_again(copies):
    spec = {**MAGNITUDE, "recovery": {"kind": "fine_tune", "epochs": 1, "distill": {}}}
    module = Remembering()
    done = prune(module, same_roles(), spec, copy=copies).module
    assert (done.cache, done.log, hasattr(done, "last")) == ({"kept": 1}, ["kept"], False)
    deepcopy(done)

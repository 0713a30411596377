"""How a caller's module is called: patched, hooked, compiled, wrapped, by name."""

import functools
import types

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from tests.pruning.library.networks import MAGNITUDE, Net, codes, pair, same_roles, zeros

torch.set_num_threads(1)

SHIFT = torch.tensor([9.0, 0.0, 0.0])


def five_fold(module: nn.Module, x: Tensor) -> Tensor:
    return 5 * module.m(x) + SHIFT


def by_method(module):
    module.forward = types.MethodType(five_fold, module)


def by_partial(module):
    """As accelerate does it."""
    module._old_forward = module.forward
    module.forward = functools.update_wrapper(
        functools.partial(lambda m, x: 5 * m._old_forward(x) + SHIFT, module), module._old_forward
    )


def by_hook(module):
    module.register_forward_hook(lambda m, inputs, output: 5 * output + SHIFT)


def by_both_hooks(module):
    module.m[0].register_forward_pre_hook(lambda m, inputs: (inputs[0] * 1.0,))
    module.m.register_forward_hook(lambda m, inputs, output: 5 * output + SHIFT)


PATCHES = [by_method, by_partial, by_hook, by_both_hooks]


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("criterion", ["magnitude", "obd"])
def test_a_patched_module_is_pruned_as_it_computes_and_stays_patched(patch, copy, criterion):
    net = Net()
    patch(net)
    x, y = pair()
    dense = nn.functional.cross_entropy(net(x), y).item()
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    spec = {**MAGNITUDE, "criterion": {"kind": criterion}}
    outcome = prune(net, same_roles(), spec, copy=copy)
    assert outcome.report.loss.dense == pytest.approx(dense, rel=1e-5)
    assert zeros(outcome) == 36
    assert torch.allclose(outcome.module(x), 5 * functools.reduce(
        lambda v, layer: layer(v), outcome.module.m, x) + SHIFT)  # fmt: skip
    assert (outcome.module is net) is not copy
    if copy:
        assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
        assert not torch.allclose(outcome.module(x), net(x))


def by_closure(module):
    module.forward = lambda x: 5 * module.m(x) + SHIFT


def by_closure_in_a_hook(module):
    module.register_forward_hook(lambda m, inputs, output: output + module.m(inputs[0]))


def by_a_method_of_another(module):
    other = Net()
    other.m = module.m
    module.forward = lambda x: other.forward(x)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("patch", [by_closure, by_closure_in_a_hook, by_a_method_of_another])
def test_a_function_that_holds_the_original_is_refused_by_name(patch, copy):
    net = Net()
    patch(net)
    with pytest.raises(SecateurError) as caught:
        prune(net, pair(), MAGNITUDE, copy=copy)
    assert (caught.value.code, caught.value.where) == ("module_unsupported", "m.0.weight")
    assert "MethodType" in caught.value.hint


def test_a_module_that_can_not_be_copied_is_refused_or_pruned_in_place():
    net = Net()
    net.stream = (n for n in range(3))
    with pytest.raises(SecateurError, match=r"module_unsupported.*copy=False"):
        prune(net, pair(), MAGNITUDE)
    assert zeros(prune(net, pair(), MAGNITUDE, copy=False)) == 36


def test_compiled_modules_are_pruned_uncompiled_and_it_is_said():
    whole, inner, in_place = Net(), Net(), Net()
    inner.m[0] = torch.compile(inner.m[0])
    in_place.compile()
    plain = prune(Net(), pair(), MAGNITUDE)
    for net, names in (
        (torch.compile(whole), ["m.0.weight", "m.2.weight"]),
        (inner, ["m.0._orig_mod.weight", "m.2.weight"]),
        (in_place, ["m.0.weight", "m.2.weight"]),
    ):
        outcome = prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obd"}})
        assert list(outcome.masks) == names
        assert zeros(outcome) == 36
        assert outcome.report.loss.dense == plain.report.loss.dense
    assert codes(prune(torch.compile(whole), pair(), MAGNITUDE)) == ["module_unwrapped"]
    outcome = prune(torch.compile(whole), pair(), MAGNITUDE, copy=False)
    assert outcome.module is whole


@pytest.mark.parametrize("copy", [True, False])
def test_a_compiled_forward_stays_with_its_module_and_copies_are_plain(copy):
    net = Net()
    net.forward = torch.compile(net.forward)
    patched = Net()
    by_partial(patched)
    patched.forward = torch.compile(patched.forward)
    spec = {**MAGNITUDE, "criterion": {"kind": "obd"}}
    for given, fresh in ((net, Net()), (patched, Net())):
        if given is patched:
            by_partial(fresh)
        compiled = given.forward
        expected = prune(fresh, pair(), spec)
        outcome = prune(given, pair(), spec, copy=copy)
        assert outcome.report.loss == expected.report.loss
        assert zeros(outcome) == 36
        assert given.forward is compiled
        assert (getattr(outcome.module.forward, "_torchdynamo_orig_callable", None) is None) is copy


def test_data_parallel_is_taken_off():
    net = Net()
    outcome = prune(nn.DataParallel(net), pair(), MAGNITUDE, copy=False)
    assert outcome.module is net
    assert codes(outcome) == ["module_unwrapped"]
    hooked = nn.DataParallel(Net())
    hooked.register_forward_hook(lambda m, i, o: 2 * o)
    with pytest.raises(SecateurError, match="module_unsupported"):
        prune(hooked, pair(), MAGNITUDE)


class TwoInputs(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: Tensor | None = None):
        y = self.m(x if mask is None else x * mask)
        return y if scale is None else {"loss": None, "logits": y * scale}


@pytest.mark.parametrize("order", [("x", "scale"), ("scale", "x")])
def test_inputs_whose_names_are_parameters_are_given_by_name(order):
    net, (x, y) = TwoInputs(), pair()
    values = {"x": x, "scale": torch.full((60, 1), 3.0)}
    part = ArrayData({name: values[name] for name in order}, y)
    outcome = prune(net, Data(part, part, part), {**MAGNITUDE, "criterion": {"kind": "obd"}})
    dense = nn.functional.cross_entropy(3 * net.m(x), y).item()
    assert outcome.report.loss.dense == pytest.approx(dense, rel=1e-5)
    assert codes(outcome) == ["output_chosen", "inputs_by_name"]
    by_mapping = prune(net, (part.inputs, y), MAGNITUDE)
    assert codes(by_mapping) == ["output_chosen", "inputs_by_name"]


def test_names_that_are_parameters_in_part_and_elsewhere_are_refused():
    x, y = pair()
    with pytest.raises(SecateurError) as caught:
        prune(TwoInputs(), ArrayData({"x": x, "scale": x, "other": x}, y), MAGNITUDE)
    assert (caught.value.code, caught.value.where) == ("data_names", "other")


def test_a_module_that_works_on_its_input_in_place_leaves_the_data_alone():
    net = nn.Sequential(nn.ReLU(inplace=True), *Net().m)
    x, y = pair()
    before = x.clone()
    outcome = prune(net, (x, y), {**MAGNITUDE, "criterion": {"kind": "obd"}})
    assert torch.equal(x, before)
    alike = nn.Sequential(nn.ReLU(), *Net().m)
    expected = prune(alike, (x, y), {**MAGNITUDE, "criterion": {"kind": "obd"}})
    assert outcome.report.loss == expected.report.loss
    assert torch.equal(x, before)


def test_calls_that_raise_are_told_with_the_layer_and_the_reason():
    x, y = pair()
    for given in (torch.randn(60, 5), x.to(torch.uint8), x.long(), x > 0):
        with pytest.raises(SecateurError) as caught:
            prune(Net(), (given, y), MAGNITUDE)
        assert (caught.value.code, caught.value.where) == ("module_failed", "m.0")
        assert "RuntimeError" in caught.value.message
    with pytest.raises(SecateurError, match=r"module_failed.*TypeError"):
        prune(Net(), ArrayData({"a": x, "b": x}, y), MAGNITUDE)


def test_a_module_that_draws_random_numbers_or_counts_its_calls_is_refused():
    class Random(Net):
        def forward(self, x):
            return nn.functional.dropout(self.m(x))

    class Counting(Net):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return self.m(x) * self.calls

    for kind in (Random, Counting):
        with pytest.raises(SecateurError, match="outputs_vary"):
            prune(kind(), pair(), MAGNITUDE)
    training = nn.Sequential(Net(), nn.Dropout(0.9)).train()
    assert prune(training, pair(), MAGNITUDE).report.loss.dense == pytest.approx(
        prune(Net(), pair(), MAGNITUDE).report.loss.dense
    )
    assert training.training


class ByNameAlone(Net):
    def forward(self, **inputs):
        return {"logits": self.m(inputs["x"] * inputs["scale"])}


class Anything(Net):
    def forward(self, *args, **kwargs):
        return self.m(*args, **kwargs)


class OtherInput(Net):
    def forward(self, x, input=None):
        return self.m(x if input is None else input * 0)


def test_inputs_without_names_are_given_by_their_order():
    x, y = pair()
    dense = nn.functional.cross_entropy(Net().m(x), y).item()
    for kind in (Anything, OtherInput):
        outcome = prune(kind(), Data((x, y), (x, y), (x, y)), MAGNITUDE)
        assert outcome.report.loss.dense == pytest.approx(dense, rel=1e-5)
    named = {"x": x, "scale": torch.full((60, 1), 1.0)}
    outcome = prune(ByNameAlone(), Data(*[(named, y)] * 3), MAGNITUDE)
    assert outcome.report.loss.dense == pytest.approx(dense, rel=1e-5)


def test_models_of_transformers_take_a_mapping_and_return_their_own_kind_of_dict():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=50, max_position_embeddings=20, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    bert = transformers.BertForSequenceClassification(config)
    tokens = torch.randint(50, (40, 8))
    batch = transformers.BatchEncoding({
        "input_ids": tokens, "token_type_ids": torch.ones_like(tokens),
        "attention_mask": (torch.arange(8) < torch.arange(40)[:, None] % 7 + 1).long(),
    })  # fmt: skip
    labels = torch.arange(40) % 3
    dense = bert.eval()(**batch, labels=labels).loss.item()
    part = (batch, labels)
    outcome = prune(bert, Data(part, part, part), {**MAGNITUDE, "criterion": {"kind": "obd"}})
    assert outcome.report.loss.dense == pytest.approx(dense, rel=1e-5)
    assert codes(outcome) == ["output_chosen", "inputs_by_name"]
    assert "refer to logits" in outcome.report.warnings[0].message
    assert type(outcome.module(**batch)).__name__ == "SequenceClassifierOutput"


class Checkpointed(Net):
    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.m, x, use_reentrant=False)


class Mixed(Net):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.m(x).float()


@pytest.mark.parametrize("around", [False, True])
def test_a_forward_with_autocast_of_its_own_is_measured_with_the_pruned_weights(around):
    data = pair()
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        outcome = prune(Mixed(), Data(data, data, data), MAGNITUDE)
    for module, told in (
        (Mixed(), outcome.report.loss.dense),
        (outcome.module, outcome.report.loss.pruned),
    ):
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(module(data[0]), data[1]).item()
        assert told == pytest.approx(expected, rel=1e-5)


class Picky(Net):
    def forward(self, x):
        if len(x) not in (2, 3):
            raise ZeroDivisionError("no such batch")
        return self.m(x)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Checkpointed, "operator_unsupported"),
        (Mixed, "module_failed"),
        (Picky, "internal_error"),
    ],
)
def test_what_goes_wrong_later_has_a_code_too_and_the_cause(kind, code):
    net = kind()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(SecateurError) as caught:
        prune(net, pair(), {**MAGNITUDE, "criterion": {"kind": "obd"}}, copy=False)
    assert caught.value.code == code
    assert caught.value.__cause__ is not None
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_what_emit_raises_is_the_caller_s_own():
    class StopError(Exception):
        pass

    def emit(event):
        if event.type == "phase" and event.phase == "pruning":
            raise StopError

    with pytest.raises(StopError):
        prune(Net(), pair(), MAGNITUDE, emit=emit)

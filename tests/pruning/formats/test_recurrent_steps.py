"""Recurrent layers over many steps: priced before they are run, since each step takes its time."""

import time

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from pruning.dispatch import Watching
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.counting import Counted, TooLongError
from pruning.formats.facts import module_facts
from pruning.formats.limits import Limits
from pruning.recurrence import operations


class Network(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(x)[0][:, -1])


class Calls(Watching):
    """How many operations torch makes, and what was expected of recurrent layers."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def facts(layer: nn.Module, steps: int):
    module = Network(layer).eval()
    names = {name: name for name, _ in module.named_parameters()}
    return module_facts(
        module,
        [TensorFact(name="x", dtype="float32", shape=["N", steps, 4])],
        format="pt2",
        version="",
        weight_names=names,
        dtypes=dict.fromkeys(names, "float32"),
        limits=Limits(),
    )


@pytest.mark.parametrize("layer", [nn.GRU, nn.RNN])
def test_steps_that_take_too_long_are_refused_before_the_first(layer):
    begun = time.process_time()
    with pytest.raises(SecateurError) as caught:
        facts(layer(4, 8, batch_first=True), 40_000)
    assert (caught.value.code, caught.value.where) == ("model_too_large", "inputs")
    assert time.process_time() - begun < 2


def test_what_goes_over_all_steps_at_once_has_as_many_as_it_likes():
    assert facts(nn.LSTM(4, 8, batch_first=True), 20_000).macs


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN, nn.LSTM])
@pytest.mark.parametrize(
    "more", [{}, {"bidirectional": True}, {"num_layers": 2}, {"batch_first": True}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("packed", [False, True])
def test_the_price_of_a_step_is_what_torch_makes_of_it(kind, more, dtype, packed):
    layer = kind(4, 8, **more).to(dtype).eval()
    steps = 40
    shape = (2, steps, 4) if more.get("batch_first") else (steps, 2, 4)
    x = torch.zeros(shape, dtype=dtype)
    given = pack_padded_sequence(x, [steps] * 2, more.get("batch_first", False)) if packed else x
    expected = []

    class Seen(Counted):
        def expect(self, calls: int) -> None:
            expected.append(calls)

    with torch.no_grad(), Calls() as calls, Seen(Limits(), 2).run():
        layer(given)
    few = 60 * layer.num_layers * (2 if layer.bidirectional else 1) + 20
    assert calls.count - few <= max(expected) <= calls.count


def test_a_call_without_recurrent_layers_has_no_steps():
    assert operations("linear", (torch.zeros(2),)) == 0
    assert operations("gru", (torch.zeros(2), torch.zeros(2))) == 0


def test_what_is_left_is_what_counts():
    layer = nn.GRU(4, 8)
    with torch.no_grad(), Counted(Limits(), 2, 200).run(), pytest.raises(TooLongError):
        layer(torch.zeros(20, 2, 4))

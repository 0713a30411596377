"""Recurrent layers as ONNX calls them: with sequence lengths, directions apart, and any state."""

from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.values import TRIAL, TooDear, Value, ints, tensors
from pruning.recurrence import unrolled

TRIED_STEPS = 5_000
"""Steps up to which intake tries a recurrent layer on data."""


class Sequence(nn.Module):
    """What the layers share: the arrangement of inputs and outputs around `run`.

    Inputs are [steps, samples, entries], states [directions, samples, units] and outputs [steps,
    directions, samples, units]; with `batch_first` samples come first everywhere.
    """

    reverse = False
    samples_first = False
    units: int

    def arrange(self, *, reverse: bool, batch_first: bool) -> None:
        """Sets the order of the steps and of the axes."""
        self.reverse, self.samples_first = reverse, batch_first

    def run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [steps, samples, directions * units] and the last states."""
        raise NotImplementedError

    def forward(self, x: Value, lengths: Value | None, *states: Value | None) -> Any:
        """Outputs of all steps and the last states, one of them or two."""
        given = [x, *(state for state in states if state is not None)]
        placed = iter(tensors(*given))
        x = next(placed)
        if self.samples_first:
            x = x.transpose(0, 1)
        _check_lengths(lengths, x.shape[0])
        ways = len(list(self.directions()))
        zero = x.new_zeros((ways, x.shape[1], self.units))
        first = [zero if state is None else self._turned(next(placed)) for state in states]
        if x.is_meta:
            # torch runs recurrent layers step by step there, at milliseconds each.
            y, last = x.new_empty((x.shape[0], x.shape[1], ways * self.units)), first
        else:
            if TRIAL.get() is not None and x.shape[0] > TRIED_STEPS:
                raise TooDear
            y, last = self.run(x.flip(0) if self.reverse else x, first)
        y = y.flip(0) if self.reverse else y
        y = y.reshape((x.shape[0], x.shape[1], ways, self.units))
        y = y.transpose(0, 1) if self.samples_first else y.transpose(1, 2)
        return (y, *map(self._turned, last))

    def directions(self) -> range:
        """One number a direction."""
        raise NotImplementedError

    def _turned(self, state: Tensor) -> Tensor:
        return state.transpose(0, 1) if self.samples_first else state


def _check_lengths(lengths: Value | None, steps: int) -> None:
    if lengths is None:
        return
    if set(ints(lengths, "sequence_lens")) - {steps}:
        raise SecateurError(
            "operator_attribute_unsupported",
            f"sequence_lens differ from the {steps} steps of the input, which is not read.",
            hint="Export the layer without packed sequences.",
        )


class _Flat(Sequence, nn.RNNBase):
    """torch's recurrent layer, whose parameters may be replaced one by one.

    RNNBase keeps a second list of its parameters, which would hold on to replaced ones.
    """

    @property
    def _flat_weights(self) -> list[Any]:  # type: ignore[override]
        return [getattr(self, name) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[Any]) -> None:
        pass

    @property
    def units(self) -> int:  # type: ignore[override]
        return self.hidden_size

    def directions(self) -> range:
        return range(2 if self.bidirectional else 1)


class LSTM(_Flat, nn.LSTM):  # type: ignore[misc]
    """Long short-term memory without peepholes (Hochreiter and Schmidhuber 1997)."""

    def run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [steps, samples, directions * units] and the last states."""
        with unrolled():
            y, last = nn.LSTM.forward(self, x, (states[0], states[1]))
        return y, list(last)


class GRU(_Flat, nn.GRU):  # type: ignore[misc]
    """Gated recurrent units that reset after the recurrent product (linear_before_reset)."""

    def run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [steps, samples, directions * units] and the last states."""
        with unrolled():
            y, last = nn.GRU.forward(self, x, states[0])
        return y, [last]


class RNN(_Flat, nn.RNN):  # type: ignore[misc]
    """A plain recurrent layer."""

    def run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [steps, samples, directions * units] and the last states."""
        with unrolled():
            y, last = nn.RNN.forward(self, x, states[0])
        return y, [last]


class Gru(Sequence):
    """Gated recurrent units that reset before the recurrent product (Cho et al. 2014).

    For z, r = sigmoid(W x + R h), n = tanh(W x + R (r * h)) and h' = (1 - z) n + z h.
    """

    def __init__(self, entries: int, units: int, bias: bool, bidirectional: bool) -> None:
        super().__init__()
        self.units = units
        self.ways = nn.ModuleList(
            _Way(entries, units, bias) for _ in range(2 if bidirectional else 1)
        )

    def directions(self) -> range:
        """One number a direction."""
        return range(len(self.ways))

    def run(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs [steps, samples, directions * units] and the last states."""
        outputs, last = [], []
        for index, way in enumerate(self.ways):
            y, state = way(x.flip(0) if index else x, states[0][index])
            outputs.append(y.flip(0) if index else y)
            last.append(state)
        return torch.cat(outputs, -1), [torch.stack(last)]


class _Way(nn.Module):
    """One direction of `Gru`."""

    def __init__(self, entries: int, units: int, bias: bool) -> None:
        super().__init__()
        self.input = plain(nn.Linear, entries, 3 * units, bias)
        self.gates = plain(nn.Linear, units, 2 * units, bias)
        self.new = plain(nn.Linear, units, units, bias)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for entries in self.input(x):
            update, reset, new = entries.chunk(3, -1)
            more, less = self.gates(state).chunk(2, -1)
            update, reset = torch.sigmoid(update + more), torch.sigmoid(reset + less)
            new = torch.tanh(new + self.new(reset * state))
            state = (1 - update) * new + update * state
            outputs.append(state)
        return torch.stack(outputs), state

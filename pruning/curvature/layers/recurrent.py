"""LSTM, GRU and plain recurrent layers: the gates before their activations are linear maps.

The gates of a step are W_ih x_t + W_hh h_(t-1) + biases, so the columns of W_ih are the layer's
inputs and those of W_hh the states before each step; of an LSTM with projection, h = W_hr m with
m = o * tanh(c). States come from torch's own function, run for one layer and direction at a time.
Packed sequences are not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEQUENCES = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
CELLS = (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)
FUNCTIONS = (*SEQUENCES, *CELLS)


@dataclass(frozen=True)
class _Arguments:
    """A call of torch.lstm or its kin; `states` holds h_0 and, of an LSTM, c_0."""

    input: Tensor
    states: tuple[Tensor, ...]
    parameters: list[Tensor]
    biases: bool
    layers: int
    both: bool
    batch_first: bool

    @property
    def stride(self) -> int:
        """Parameters a layer and direction."""
        return len(self.parameters) // (self.layers * self.directions)

    @property
    def directions(self) -> int:
        return 2 if self.both else 1

    @property
    def matrices(self) -> list[int]:
        """Where the weights of one layer and direction lie among its parameters."""
        return [i for i in range(self.stride) if self.parameters[i].ndim == 2]


def weights(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The weight matrices of a call in the order of their use; none of packed sequences."""
    if function in CELLS:
        return list(args[2:4])
    call = _read(function, args)
    return [] if call is None else [w for w in call.parameters if w.ndim == 2]


def sequence(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], index: int) -> Tensor:
    """What the weight of that index is applied to, [samples, steps, entries]."""
    if function in CELLS:
        state = args[1] if isinstance(args[1], Tensor) else args[1][0]
        return (args[0], state)[index].unsqueeze(-2)
    call = _read(function, args)
    assert call is not None
    inputs = call.input.transpose(0, 1) if call.batch_first else call.input
    block, position = divmod(index, len(call.matrices))
    layer, direction = divmod(block, call.directions)
    for below in range(layer):
        parts = [_run(function, call, inputs, below, way) for way in range(call.directions)]
        inputs = torch.cat(parts, -1)
    if position == 0:
        found = inputs
    else:
        found = _states(function, call, inputs, layer, direction, projected=position == 1)
    return found.transpose(0, 1)


def _read(function: Any, args: tuple[Any, ...]) -> _Arguments | None:
    inputs, hidden, parameters, biases, layers, _, _, both, *rest = args
    if isinstance(parameters, Tensor):
        return None
    states = (hidden,) if isinstance(hidden, Tensor) else tuple(hidden)
    first = bool(rest[0]) if rest else False
    return _Arguments(inputs, states, list(parameters), biases, layers, both, first)


def _block(call: _Arguments, layer: int, direction: int) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and initial states (each [1, samples, entries]) of one layer and direction."""
    block = layer * call.directions + direction
    own = call.parameters[block * call.stride : (block + 1) * call.stride]
    return own, [state[block : block + 1] for state in call.states]


def _run(function: Any, call: _Arguments, inputs: Tensor, layer: int, direction: int) -> Tensor:
    """Outputs [steps, samples, entries] of one layer in one direction."""
    own, states = _block(call, layer, direction)
    hidden = states if function is torch.lstm else states[0]
    sequence = inputs.flip(0) if direction else inputs
    outputs = function(sequence, hidden, own, call.biases, 1, 0.0, False, False, False)[0]
    return outputs.flip(0) if direction else outputs


def _states(
    function: Any, call: _Arguments, inputs: Tensor, layer: int, direction: int, projected: bool
) -> Tensor:
    """h_(t-1), or the m_t that the projection is applied to, for every step."""
    own, states = _block(call, layer, direction)
    if not projected:
        return torch.stack(
            list(_memories(call, inputs.flip(0) if direction else inputs, own, states))
        )
    outputs = _run(function, call, inputs, layer, direction)
    if direction:
        outputs = outputs.flip(0)
    before = torch.cat([states[0].to(outputs.dtype), outputs[:-1]])
    # In the order in which the inputs lie, so that a step's padding is found at its place.
    return before.flip(0) if direction else before


def _memories(
    call: _Arguments, inputs: Tensor, own: list[Tensor], states: list[Tensor]
) -> Iterator[Tensor]:
    """m_t = o_t * tanh(c_t) of an LSTM with projection (Sak et al. 2014, equations 1 to 6)."""
    hidden, cell = states[0][0], states[1][0]
    offset: Any = own[2] + own[3] if call.biases else 0.0
    for step in inputs:
        gates = step @ own[0].T + hidden @ own[1].T + offset
        entry, forget, new, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + entry.sigmoid() * new.tanh()
        memory = leave.sigmoid() * cell.tanh()
        hidden = memory @ own[-1].T
        yield memory

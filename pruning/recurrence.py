"""Recurrent layers out of plain operations, for transforms that torch's kernels have no rules for.

torch computes LSTM, GRU and RNN, and one step of each, by kernels that `torch.func` can't map over
samples or weights, and some of which have no forward derivative. Within `unrolled` such a call is
taken step by step instead, wherever in a module it stands; without a transform nothing changes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, Tensor, State], State]


def unrolled() -> AbstractContextManager[Any]:
    """A context in which calls of recurrent layers can be transformed by `torch.func`.

    Entered inside of a transform; elsewhere it does nothing.
    """
    return _Unrolled() if transforming() else nullcontext()


def transforming() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None


class _Unrolled(TorchFunctionMode):
    def __torch_function__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        # Operators of a graph carry their overload: gru.input.
        call = _CALLS.get(getattr(func, "__name__", "").partition(".")[0])
        # Packed sequences come with their batch sizes in place of a state.
        if call is None or kwargs or not _transformed(args) or not _is_padded(args):
            return func(*args, **(kwargs or {}))
        return call(*args)


def _is_padded(args: Sequence[Any]) -> bool:
    return len(args) != 9 or isinstance(args[3], bool)


def _transformed(part: Any) -> bool:
    if isinstance(part, Tensor):
        return bool(torch._C._functorch.is_functorch_wrapped_tensor(part))
    return isinstance(part, list | tuple) and any(map(_transformed, part))


def lstm_cell(entries: Tensor, gates: Tensor, state: State) -> State:
    """Long short-term memory (Hochreiter and Schmidhuber 1997): the next output and memory.

    Args:
        entries: What the input gives to the gates, [samples, 4 units], in torch's order of gates.
        gates: What the last output gives to them, of the same shape.
        state: Output and memory before.
    """
    entry, forget, new, leave = (entries + gates).chunk(4, -1)
    memory = forget.sigmoid() * state[1] + entry.sigmoid() * new.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def gru_cell(entries: Tensor, gates: Tensor, state: State) -> State:
    """Gated recurrent units that reset after the recurrent product; arguments as `lstm_cell`."""
    given, had = entries.chunk(3, -1), gates.chunk(3, -1)
    reset, update = ((given[i] + had[i]).sigmoid() for i in (0, 1))
    new = (given[2] + reset * had[2]).tanh()
    return ((1 - update) * new + update * state[0],)


def tanh_cell(entries: Tensor, gates: Tensor, state: State) -> State:
    """A plain recurrent unit; arguments as `lstm_cell`."""
    return ((entries + gates).tanh(),)


def relu_cell(entries: Tensor, gates: Tensor, state: State) -> State:
    """A plain recurrent unit with a rectifier; arguments as `lstm_cell`."""
    return ((entries + gates).relu(),)


def _layers(
    cell: Cell,
    x: Tensor,
    state: Tensor | Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """As torch's layer of the same arguments: the outputs, and the last states.

    Raises:
        NotImplementedError: For dropout between layers while training.
    """
    if train and dropout:
        raise NotImplementedError("dropout of a recurrent layer has no derivative sample by sample")
    first = (state,) if isinstance(state, Tensor) else tuple(state)
    batched = x.dim() == 3
    x = x if batched else x.unsqueeze(1)
    first = first if batched else tuple(part.unsqueeze(1) for part in first)
    x = x.transpose(0, 1) if batch_first and batched else x
    ways = 2 if bidirectional else 1
    each = len(weights) // (layers * ways)
    last: list[State] = []
    for layer in range(layers):
        outputs = []
        for way in range(ways):
            number = layer * ways + way
            own = list(weights[number * each : (number + 1) * each])
            projection = own.pop() if each in (3, 5) else None
            biases = own[2:] if has_biases else [None, None]
            entries = F.linear(x.flip(0) if way else x, own[0], biases[0])
            now: State = tuple(part[number] for part in first)
            seen = []
            for step in entries:
                now = cell(step, F.linear(now[0], own[1], biases[1]), now)
                if projection is not None:
                    now = (F.linear(now[0], projection), *now[1:])
                seen.append(now[0])
            outputs.append(torch.stack(seen[::-1] if way else seen))
            last.append(now)
        x = torch.cat(outputs, -1)
    x = x if batched else x.squeeze(1)
    states = [torch.stack(parts) for parts in zip(*last, strict=True)]
    states = states if batched else [part.squeeze(1) for part in states]
    return (x.transpose(0, 1) if batch_first and batched else x, *states)


def _step(
    cell: Cell,
    x: Tensor,
    state: Tensor | Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor | State:
    """As torch's cell of the same arguments: the next state."""
    before = (state,) if isinstance(state, Tensor) else tuple(state)
    found = cell(F.linear(x, w_ih, b_ih), F.linear(before[0], w_hh, b_hh), before)
    return found if len(found) > 1 else found[0]


def _of_layers(cell: Cell) -> Callable[..., Any]:
    return lambda *args: _layers(cell, *args)


def _of_steps(cell: Cell) -> Callable[..., Any]:
    return lambda *args: _step(cell, *args)


_CALLS = {
    "lstm": _of_layers(lstm_cell),
    "gru": _of_layers(gru_cell),
    "rnn_tanh": _of_layers(tanh_cell),
    "rnn_relu": _of_layers(relu_cell),
    "lstm_cell": _of_steps(lstm_cell),
    "gru_cell": _of_steps(gru_cell),
    "rnn_tanh_cell": _of_steps(tanh_cell),
    "rnn_relu_cell": _of_steps(relu_cell),
}
"""torch's kernels by name to the same out of plain operations."""

_OPERATIONS = {"lstm": 13, "gru": 14, "rnn_tanh": 4, "rnn_relu": 4}
"""What torch's kernels make of one step in one direction, where they go step by step."""


def operations(name: str, args: Sequence[Any]) -> int:
    """Operations that a call makes for its steps; 0 of one that goes over them at once.

    Args:
        name: Of the function, with or without an overload.
        args: Its arguments.
    """
    each = _OPERATIONS.get(name.partition(".")[0])
    if each is None or len(args) < 9 or not isinstance(args[0], Tensor):
        return 0
    x = args[0]
    at_once = x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if at_once and name.startswith("lstm"):
        return 0
    if _is_padded(args):
        layers, ways = args[4], 2 if args[7] else 1
        steps = x.shape[1 if args[8] and x.dim() == 3 else 0]
    else:
        layers, ways, steps = args[5], 2 if args[8] else 1, len(args[1])
    return int(each * steps * layers * ways)

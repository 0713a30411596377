"""The network of an architecture.json: real layers at their own paths, called step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.architecture.arguments import Parameter, references, resolve
from pruning.formats.architecture.functions import FUNCTIONS
from pruning.formats.architecture.schema import shown
from pruning.formats.failures import FAILURES, Accepted, step_failed


@dataclass(frozen=True)
class Step:
    """One node of the graph.

    `target` is a path of the module for a layer, a parameter or a constant, else the function's
    name; `args` holds values and references; `last` names the values nobody reads afterwards.
    """

    name: str
    op: Literal["layer", "function", "tensor"]
    target: str
    parameters: tuple[Parameter, ...] = ()
    args: tuple[tuple[str, Any], ...] = ()
    last: tuple[str, ...] = ()

    def reads(self) -> list[str]:
        """The nodes that this one refers to."""
        return [name for _, value in self.args for name in references(value)]


class Group(nn.Module):
    """A module that holds others under their names."""


class ArchitectureModule(Group):
    """Runs the graph; called with the inputs in order, gives its output or a tuple of them.

    Half-precision inputs are computed in float32. The graph lies in one attribute, so that layers
    may have any name that torch allows.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str], steps: list[Step]) -> None:
        super().__init__()
        self._secateur_accepted: Accepted | None = None
        self._secateur_graph = (tuple(inputs), tuple(outputs), _with_last(steps, set(outputs)))

    @property
    def graph(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Step, ...]]:
        """Names of the inputs, nodes of the outputs, and all steps."""
        return self._secateur_graph

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The network's outputs.

        Raises:
            SecateurError: `data_names` for a wrong number of inputs, and what `step_failed` makes
                of a node that can't be computed, with its name.
        """
        names, wanted, steps = self._secateur_graph
        if len(inputs) != len(names):
            raise SecateurError(
                "data_names", f"The model takes {len(names)} inputs, not {len(inputs)}."
            )
        values: dict[str, Any] = {}
        for name, value in zip(names, inputs, strict=True):
            half = value.dtype in (torch.float16, torch.bfloat16)
            values[name] = value.float() if half else value
        for step in steps:
            values[step.name] = self._run(step, values, inputs)
            for name in step.last:
                values.pop(name, None)
        outputs = tuple(_output(values[name], name) for name in wanted)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, step: Step, values: Mapping[str, Any], inputs: Sequence[Tensor]) -> Any:
        if step.op == "tensor":
            return tensor_at(self, step.target)
        args = {}
        for parameter, (name, value) in zip(step.parameters, step.args, strict=True):
            args[name] = resolve(value, values)
            if args[name] is not value and not parameter.admits(args[name]):
                raise _failed(
                    step, f"{name} is {_kind(args[name])}, which {parameter.kind} does not allow"
                )
        try:
            if step.op == "layer":
                # nn.LSTM asks for a tuple where the file has a list.
                given = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}
                return _called(self.get_submodule(step.target), given)
            function = FUNCTIONS[step.target]
            return function.call(*((inputs[0].device,) if function.placed else ()), *args.values())
        except SecateurError:
            raise
        except FAILURES as error:
            raise step_failed(
                error, shown(step.target), shown(step.name), inputs, self._secateur_accepted
            ) from error


def _called(layer: nn.Module, args: dict[str, Any]) -> Any:
    """A layer's result; without data, a recurrent layer takes one step for all of them.

    Torch runs it step by step in Python there, ten thousand times slower than with data.
    """
    given = args.get("input")
    if not isinstance(layer, nn.RNNBase) or given is None or given.device.type != "meta":
        return layer(**args)
    axis = 1 if layer.batch_first and given.dim() == 3 else 0
    result, state = layer(given.narrow(axis, 0, 1), args["hx"])
    shape = list(result.shape)
    shape[axis] = given.shape[axis]
    # What its gates leave behind, in each of the layers, is part of the price.
    gates = {"LSTM": 5, "GRU": 4}.get(layer.mode, 2)
    whole = result.new_empty([gates * layer.num_layers, *shape])
    return whole[0], state


def tensor_at(module: nn.Module, path: str) -> Tensor:
    """The parameter or buffer at a path, also while functional calls replace it."""
    owner, _, leaf = path.rpartition(".")
    holder = module.get_submodule(owner)
    value = holder._parameters.get(leaf)
    found = holder._buffers.get(leaf) if value is None else value
    if found is None:
        raise KeyError(path)
    return found


def _with_last(steps: list[Step], kept: set[str]) -> tuple[Step, ...]:
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name in (step.name, *step.reads()):
            if name not in kept:
                last[name] = index
    gone: dict[int, list[str]] = {}
    for name, index in last.items():
        gone.setdefault(index, []).append(name)
    return tuple(replace(s, last=tuple(gone.get(i, ()))) for i, s in enumerate(steps))


def _output(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise SecateurError(
            "model_invalid", f"The output {shown(name)!r} is {_kind(value)}, no tensor.",
            where=shown(name),
        )  # fmt: skip
    return value


def _failed(step: Step, reason: str) -> SecateurError:
    return SecateurError(
        "model_invalid",
        f"{shown(step.target)} can't be computed here: {reason}",
        where=shown(step.name),
        hint="Check the sizes of the inputs against those the model was exported with.",
    )


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"

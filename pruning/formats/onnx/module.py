"""The imported network: a list of steps over an environment of values, run in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.failures import FAILURES, Accepted, misfit, step_failed
from pruning.formats.onnx.binding import Route
from pruning.formats.onnx.values import DEVICE, Value, tensor

_CPU = torch.device("cpu")
Observer = Callable[["Step", tuple[Any, ...]], None]


@dataclass(slots=True)
class Step:
    """One computation: a function of values, or the layer at the path `layer`.

    `inputs` holds None where an optional input is left out; `last` names the values nobody reads
    after this step. Functions are module-level functions, partials and closures over plain
    values, so that a deep copy of the module shares nothing that can change.
    """

    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    label: str
    operator: str
    function: Callable[..., Any] | None = None
    layer: str | None = None
    last: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """A value that is a parameter of some layer, arranged anew and times a factor."""

    path: str
    route: Route
    factor: float


@dataclass(frozen=True)
class Scaling:
    """Sizes that were written down for one number of samples, and follow the samples given.

    Args:
        origin: The input whose samples count.
        axis: Where it holds them.
        batch: Their number in the file.
        places: Host constants, and which of their numbers grows with the samples.
    """

    origin: int
    axis: int
    batch: int
    places: dict[str, int]

    def at(self, count: int, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The constants for that many samples."""
        found = {}
        for name, place in self.places.items():
            sizes = constants[name].copy()
            sizes[place] = sizes[place] * count // self.batch
            found[name] = sizes
        return found


class OnnxModule(nn.Module):
    """Runs the steps; called with the graph's inputs in order, gives its output or a tuple.

    float16 inputs are computed in float32.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.input_names = tuple(inputs)
        self.output_names = tuple(outputs)
        self.steps: list[Step] = []
        self.host_constants: dict[str, np.ndarray] = {}
        self.constant_buffers: dict[str, str] = {}
        self.references: dict[str, Reference] = {}
        self.scaling: Scaling | None = None
        self.accepted: Accepted | None = None

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's outputs for the given inputs."""
        return self.run(inputs)

    def run(
        self, inputs: Sequence[Tensor], observer: Observer | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """As `forward`; `observer` sees each step with its results.

        Raises:
            SecateurError: `data_names` for a wrong number of inputs, and what `step_failed` makes
                of a step that can't be computed, with the node's name.
        """
        if len(inputs) != len(self.input_names):
            raise SecateurError(
                "data_names", f"The model takes {len(self.input_names)} inputs, not {len(inputs)}."
            )
        values = self.constants()
        if self.scaling is not None:
            count = inputs[self.scaling.origin].shape[self.scaling.axis]
            values.update(self.scaling.at(count, self.host_constants))
        for name, value in zip(self.input_names, inputs, strict=True):
            values[name] = value.float() if value.dtype == torch.float16 else value
        device = inputs[0].device if inputs else torch.device("cpu")
        token = DEVICE.set(device)
        try:
            for step in self.steps:
                results = self.step(step, values, inputs)
                if observer:
                    observer(step, results)
                values.update(zip(step.outputs, results, strict=True))
                for name in step.last:
                    del values[name]
        finally:
            DEVICE.reset(token)
        outputs = tuple(tensor(values[name], device) for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def constants(self) -> dict[str, Value]:
        """The values that are there before any step."""
        values: dict[str, Value] = dict(self.host_constants)
        for name, path in self.constant_buffers.items():
            values[name] = self._buffers[path]  # type: ignore[assignment]
        for name, reference in self.references.items():
            parameter: Tensor = _attribute(self, reference.path)
            value = reference.route.apply(parameter)
            values[name] = value if reference.factor == 1.0 else value * reference.factor
        return values

    def step(
        self, step: Step, values: dict[str, Value], inputs: Sequence[Tensor] = ()
    ) -> tuple[Any, ...]:
        """The results of one step.

        Raises:
            SecateurError: What `step_failed` makes of one that can't be computed.
        """
        device = inputs[0].device if inputs else _CPU
        arguments = [None if name is None else values[name] for name in step.inputs]
        call: Any = step.function
        if step.layer:
            # A layer computes with tensors, also where its input comes from shapes alone;
            # integers on the host are lengths, which it reads itself.
            call = layer_at(self, step.layer)
            arguments = [
                tensor(value, device)
                if isinstance(value, np.ndarray) and value.dtype.kind == "f"
                else value
                for value in arguments
            ]
        try:
            result = call(*arguments)
        except SecateurError as error:
            if error.code == "model_invalid" and self.accepted and not self.accepted.fits(inputs):
                raise misfit(error.message, step.label, inputs) from None
            raise _placed(error, step) from None
        except FAILURES as error:
            raise step_failed(error, step.operator, step.label, inputs, self.accepted) from error
        # Optional outputs that the file leaves out are computed all the same.
        return result[: len(step.outputs)] if isinstance(result, tuple) else (result,)

    def finish(self, steps: list[Step]) -> None:
        """Takes the steps and notes after which of them each value can go."""
        kept = {*self.output_names, *self.host_constants, *self.constant_buffers, *self.references}
        last: dict[str, int] = {}
        for index, step in enumerate(steps):
            for name in (*step.inputs, *step.outputs):
                if name is not None and name not in kept:
                    last[name] = index
        gone: dict[int, list[str]] = {}
        for name, index in last.items():
            gone.setdefault(index, []).append(name)
        for index, step in enumerate(steps):
            step.last = tuple(gone.get(index, ()))
        self.steps = steps

    def extra_repr(self) -> str:
        """Inputs, outputs and the number of steps."""
        return f"{self.input_names} -> {self.output_names}, {len(self.steps)} steps"


def layer_at(module: nn.Module, path: str) -> nn.Module:
    """The layer that is registered under a path."""
    for part in path.split("."):
        module = module._modules[part]  # type: ignore[assignment]
    return module


def _attribute(module: nn.Module, path: str) -> Any:
    return reduce(getattr, path.split("."), module)


def _placed(error: SecateurError, step: Step) -> SecateurError:
    return SecateurError(
        error.code, error.message, where=error.where or step.label, hint=error.hint, **error.details
    )

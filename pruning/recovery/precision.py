"""The number format of forward and backward passes; weights, moments and losses keep theirs."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.optim import Optimizer

from pruning.errors import SecateurError

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve(precision: str, device: torch.device) -> str:
    """The format that `auto` stands for: bfloat16 on a GPU that has it, float32 elsewhere.

    Raises:
        SecateurError: `spec_conflict` for float16 on a CPU.
    """
    if precision == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if half else "float32"
    if precision == "float16" and device.type != "cuda":
        raise SecateurError(
            "spec_conflict",
            f"Training in float16 needs a GPU, and the model lies on {device.type}.",
            where="spec.recovery.precision",
            hint="Use bfloat16, which a CPU can do, or auto.",
        )
    return precision


class Precision:
    """Passes in one format. Gradients of float16 are scaled so that small ones survive.

    Args:
        precision: As the spec has it.
        device: Where the weights lie.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self._half = HALF.get(resolve(precision, device))
        self._device = device.type
        scaled = self._half == torch.float16
        self._scaler = torch.amp.GradScaler(device.type) if scaled else None

    def autocast(self) -> AbstractContextManager[object]:
        """Around forward passes."""
        if self._half is None:
            return nullcontext()
        return torch.autocast(self._device, self._half)

    def backward(self, value: Tensor) -> None:
        """Add the value's gradients to those that are there."""
        (value if self._scaler is None else self._scaler.scale(value)).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Gradients at their true size, before anything looks at them."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """A step, left out where gradients of float16 overflowed, which lowers the scale."""
        if self._scaler is None:
            optimizer.step()
            return
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """What a training that goes on has to know."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""
        if self._scaler is not None:
            self._scaler.load_state_dict(state)


def full(outputs: Tensor) -> Tensor:
    """Outputs of a half type in float32, in which losses are taken."""
    return outputs.float() if outputs.dtype in HALF.values() else outputs

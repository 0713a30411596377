"""Weights of the half types, computed in float32 and given back in their own.

The differences that pruning looks at, of a network with and without a layer's change, drown in the
rounding of float16 and bfloat16. Files of these types are computed in float32 too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError

HALF = (torch.float16, torch.bfloat16)


class InFloat32:
    """The half tensors of a module while they are computed in float32.

    Attributes:
        types: Names of their types, as `bfloat16`; empty where the module has none.
        own: The type of each, by its path in the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._pairs: list[tuple[str, Tensor, Tensor]] = []
        tensors = (
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        )
        self.own = {name: t.dtype for name, t in tensors if t.dtype in HALF}
        self._parameters = [(n, p) for n, p in module.named_parameters() if p.dtype in HALF]
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        found: dict[int, Tensor] = {}
        for name, parameter in self._parameters:
            self._pairs.append((name, parameter.data, parameter.data.float()))
            parameter.data = self._pairs[-1][2]
        for owner in module.modules():
            for name, buffer in owner._buffers.items():
                if buffer is None or buffer.dtype not in HALF:
                    continue
                if id(buffer) not in found:
                    found[id(buffer)] = buffer.float()
                    self._pairs.append((name, buffer, found[id(buffer)]))
                self._buffers.append((owner, name, buffer))
                owner._buffers[name] = found[id(buffer)]
        self.types = sorted({_name(half) for _, half, _ in self._pairs})

    @torch.no_grad()
    def round(self) -> None:
        """Bring the float32 values to those that will be given back.

        Raises:
            SecateurError: `weights_non_finite` where a half type can't hold a value.
        """
        for name, half, value in self._pairs:
            value.copy_(_rounded(name, half, value))

    @torch.no_grad()
    def write(self) -> None:
        """Put the float32 values into the tensors of the module's own types."""
        for name, half, value in self._pairs:
            half.copy_(_rounded(name, half, value))

    def end(self) -> None:
        """Give the module its own tensors back."""
        for (_, half, _), (_, parameter) in zip(self._pairs, self._parameters, strict=False):
            parameter.data = half
        for owner, name, buffer in self._buffers:
            owner._buffers[name] = buffer


@contextmanager
def in_float32(module: nn.Module) -> Iterator[InFloat32]:
    """Half tensors of the module are float32 meanwhile; their new values are kept if all is well.

    Elements that did not change keep their bits; removed ones are +0. It takes twice the memory of
    the half tensors more.
    """
    held = InFloat32(module)
    try:
        yield held
        held.write()
    finally:
        held.end()


def _rounded(name: str, half: Tensor, value: Tensor) -> Tensor:
    changed = value.view(torch.int32) != half.float().view(torch.int32)
    new = torch.where(value == 0, torch.zeros_like(value), value).to(half.dtype)
    if not bool(torch.isfinite(new[changed]).all()):
        raise SecateurError(
            "weights_non_finite",
            f"A value of {name} is not finite or too large for {_name(half)}.",
            where=name,
            hint="Give the module in float32: module.float().",
        )
    return torch.where(changed, new, half)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

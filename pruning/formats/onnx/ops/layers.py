"""torch's layers without the random weights that they would start with."""

from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Layer = TypeVar("Layer", bound=nn.Module)
_bare: dict[type[nn.Module], type[nn.Module]] = {}


_SIMPLE = (_ConvNd, _BatchNorm, nn.Linear, nn.LayerNorm)
"""Layers whose attributes are plain values and parameters, each set for the first time."""


def _set(layer: nn.Module, name: str, value: Any) -> None:
    """Sets what a constructor sets without a module's search for what the name meant before."""
    if isinstance(value, nn.Parameter):
        layer._parameters[name] = value
    else:
        layer.__dict__[name] = value


def plain(kind: type[Layer], *arguments: Any, **options: Any) -> Layer:
    """A layer on the meta device, its parameters to be replaced."""
    if kind not in _bare:
        members: dict[str, Any] = {"reset_parameters": lambda self: None}
        if issubclass(kind, _SIMPLE):
            members["__setattr__"] = _set
        _bare[kind] = type(f"Bare{kind.__name__}", (kind,), members)
    layer = _bare[kind](*arguments, device="meta", **options)
    object.__setattr__(layer, "__class__", kind)
    return layer  # type: ignore[return-value]

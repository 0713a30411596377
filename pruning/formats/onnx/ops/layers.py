"""torch's layers without the random weights that they would start with."""

from typing import Any, TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)
_bare: dict[type[nn.Module], type[nn.Module]] = {}


def plain(kind: type[Layer], *arguments: Any, **options: Any) -> Layer:
    """A layer on the meta device, its parameters to be replaced."""
    if kind not in _bare:
        _bare[kind] = type(f"Bare{kind.__name__}", (kind,), {"reset_parameters": lambda self: None})
    layer = _bare[kind](*arguments, device="meta", **options)
    layer.__class__ = kind
    return layer  # type: ignore[return-value]

"""What several runs from the same weights share, so that it is computed once."""

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pruning.state import state_of

T = TypeVar("T")


def known(
    store: dict[Any, Any], what: str, about: object, key: Hashable, make: Callable[[], T]
) -> T:
    """The newest value of its kind if it is the one asked for, else a new one in its place.

    One value of a kind is kept, on the CPU: curvature can be larger than the network.

    Args:
        store: Where it is kept.
        what: Its kind.
        about: The data it was made from, the very same object.
        key: What else it depends on.
        make: Makes it.
    """
    found = store.get(what)
    if found is not None and found[0] is about and found[1] == key:
        value, device = found[2:]
        return value if device.type == "cpu" else _moved(value, device)  # type: ignore[no-any-return]
    store.pop(what, None)
    made = make()
    device = _device(made)
    kept = made if device.type == "cpu" else _moved(made, torch.device("cpu"))
    store[what] = (about, key, kept, device)
    return made


def digest(module: nn.Module) -> str:
    """Of everything in a network's state."""
    found = hashlib.sha256()
    for name, tensor in state_of(module).items():
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {list(plain.shape)};".encode())
        if plain.numel():
            found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _moved(value: Any, device: torch.device) -> Any:
    """The same with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _moved(getattr(value, f.name), device)
                                 for f in fields(value) if f.init})  # fmt: skip
    if isinstance(value, dict):
        return {k: _moved(v, device) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(v, device) for v in value)
    return value


def _device(value: Any) -> torch.device:
    """Where the first tensor of a value lies."""
    if isinstance(value, Tensor):
        return value.device
    parts: list[Any] = []
    if is_dataclass(value):
        parts = [getattr(value, f.name) for f in fields(value)]
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    found = (d for d in map(_device, parts) if d.type != "cpu")
    return next(found, torch.device("cpu"))

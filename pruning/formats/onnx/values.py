"""The two kinds of value in a running graph: tensors, and host arrays for shape arithmetic.

`Shape` gives a NumPy array of Python ints and everything computed from shapes and constants alone
stays one, so that no size ever has to be read back from a tensor. That keeps a graph usable under
`torch.func.vmap`, on the meta device and without synchronising a GPU.
"""

import math
from collections.abc import Iterable
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError

Host = np.ndarray
Value = Tensor | Host

LARGEST = 1 << 22
"""Numbers of a computed host array: those are made while a graph is priced, also on meta."""


TRIAL: ContextVar[int | None] = ContextVar("TRIAL", default=None)
"""Numbers of one value while intake tries a graph on data: fewer than a job may take."""


DEVICE: ContextVar[torch.device | None] = ContextVar("DEVICE", default=None)
"""Where the running graph's inputs lie; None while constants are folded."""


class TooDear(Exception):  # noqa: N818 - no error: shapes are believed instead
    """Intake does not afford to try this graph."""


def affordable(shape: Iterable[int], what: str) -> tuple[int, ...]:
    """The shape of a host array about to be computed.

    Raises:
        SecateurError: `model_too_large` over `LARGEST` numbers, of which a few bytes of graph could
            otherwise ask for any amount.
    """
    sizes = tuple(shape)
    if math.prod(sizes) > LARGEST:
        raise SecateurError(
            "model_too_large", f"{what} makes a constant of shape {list(sizes)[:16]}."
        )
    return sizes


def is_host(*values: Value | None) -> bool:
    """True where no value given is a tensor."""
    return not any(isinstance(value, Tensor) for value in values)


def tensor(value: Value, device: torch.device) -> Tensor:
    """The value as a tensor on `device`."""
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(np.array(value, order="C")).to(device)


def tensors(*values: Value) -> tuple[Tensor, ...]:
    """All values as tensors on the device of the first that is one, of the graph where none is."""
    found = next((v.device for v in values if isinstance(v, Tensor)), DEVICE.get())
    device = torch.get_default_device() if found is None else found
    return tuple(tensor(value, device) for value in values)


def ints(value: Value, what: str) -> list[int]:
    """The host array as a flat list of Python ints.

    Raises:
        SecateurError: `operator_attribute_unsupported` where the value depends on data.
    """
    return [int(v) for v in host(value, what).reshape(-1)]


def number(value: Value, what: str) -> float:
    """The host array's only element.

    Raises:
        SecateurError: `operator_attribute_unsupported` where the value depends on data or has
            several elements.
    """
    array = host(value, what)
    if array.size != 1:
        raise SecateurError(
            "operator_attribute_unsupported", f"{what} has {array.size} elements instead of one."
        )
    return array.reshape(-1)[0].item()


def host(value: Value, what: str) -> Host:
    """The value as a host array.

    Raises:
        SecateurError: `operator_attribute_unsupported` where the value depends on data.
    """
    if isinstance(value, Tensor):
        raise SecateurError(
            "operator_attribute_unsupported",
            f"{what} is computed from data.",
            hint="Export the model with this value fixed or computed from shapes alone.",
        )
    return value


def axis_of(axis: int, rank: int, what: str) -> int:
    """The axis counted from the front.

    Raises:
        SecateurError: `model_invalid` for an axis the value does not have.
    """
    if not -rank <= axis < rank:
        raise SecateurError("model_invalid", f"{what}: axis {axis} of a value with {rank} axes.")
    return axis % rank

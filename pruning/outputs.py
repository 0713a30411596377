"""The tensors in whatever a module returns."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def named_tensors(result: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a result in its own order, each with where it lies.

    Tuples, lists, mappings (ModelOutput of transformers among them) and dataclasses are looked
    into; None and objects of other kinds hold none.

    Args:
        result: What a module returned.

    Returns:
        Pairs of a dotted path and the tensor: `logits`, `0`, `hidden.1`; empty for a bare tensor.
    """
    return list(_walk(result, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, part in _parts(value):
        yield from _walk(part, f"{path}.{key}" if path else key)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", None) or range(len(value))
        yield from ((str(name), part) for name, part in zip(names, value, strict=True))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in fields(value))

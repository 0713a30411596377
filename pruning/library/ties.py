"""Parameters that share their memory: one weight under several names, or two that overlap."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pruning.errors import SecateurError


@dataclass(frozen=True)
class _Held:
    """A tensor of a module, and where it is; `kind` is parameter, buffer or attribute."""

    path: str
    kind: str
    tensor: Tensor

    @property
    def place(self) -> tuple[Any, ...]:
        """Equal for tensors that are the same numbers in the same order."""
        t = self.tensor
        strides = tuple(n for n, size in zip(t.stride(), t.shape, strict=True) if size > 1)
        return t.dtype, t.storage_offset(), tuple(t.shape), strides

    @property
    def span(self) -> tuple[int, int]:
        """The first byte of the storage that it may use, and the one after the last."""
        t = self.tensor
        reach: int = sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
        start = int(t.storage_offset())
        return start * t.itemsize, (start + reach + 1) * t.itemsize

    def bytes(self) -> Tensor:
        """The positions of all its bytes in the storage, each as often as it is used."""
        t = self.tensor
        length = self.span[1] // t.itemsize
        positions = torch.arange(length).as_strided(t.shape, t.stride(), t.storage_offset())
        return (positions.reshape(-1, 1) * t.itemsize + torch.arange(t.itemsize)).flatten()


def storage_ties(module: nn.Module) -> list[list[str]]:
    """Names of parameters that are several objects over the very same numbers, in groups.

    Slices of one storage that have nothing in common, as of flattened recurrent layers, are no
    ties.

    Args:
        module: With plain tensors as parameters.

    Returns:
        Groups of two or more names, as `named_parameters` has them.

    Raises:
        SecateurError: `weights_overlap` for a parameter that shares only part of its memory with
            another tensor of the module, or in another order, or with itself.
    """
    groups: dict[tuple[str, int], list[_Held]] = defaultdict(list)
    for held in _tensors(module):
        if held.tensor.numel():
            pointer = held.tensor.untyped_storage().data_ptr()
            groups[str(held.tensor.device), pointer].append(held)
    ties = []
    for group in groups.values():
        same: dict[tuple[Any, ...], list[_Held]] = defaultdict(list)
        for held in group:
            if held.kind == "parameter":
                same[held.place].append(held)
        weights = [found[0] for found in same.values()]
        _check_apart(weights, [held for held in group if held.kind != "parameter"])
        ties += [[held.path for held in found] for found in same.values() if len(found) > 1]
    return ties


@contextmanager
def merged(module: nn.Module, ties: list[list[str]]) -> Iterator[None]:
    """One parameter object for each group meanwhile, so that all of the loop sees one weight.

    Args:
        module: Changed in place.
        ties: Of `storage_ties`.
    """
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    for first, *others in ties:
        kept = module.get_parameter(first)
        gone = {id(module.get_parameter(name)) for name in others}
        for owner in module.modules():
            for name, parameter in list(owner._parameters.items()):
                if parameter is not None and id(parameter) in gone:
                    replaced.append((owner, name, parameter))
                    setattr(owner, name, kept)
    try:
        yield
    finally:
        for owner, name, parameter in reversed(replaced):
            setattr(owner, name, parameter)


def tie(module: nn.Module, ties: list[list[str]]) -> None:
    """Let the parameters of each group share their memory again, after a copy."""
    for first, *others in ties:
        for name in others:
            module.get_parameter(name).data = module.get_parameter(first).data


def _check_apart(weights: list[_Held], others: list[_Held]) -> None:
    for number, held in enumerate(weights):
        if held.tensor.numel() * held.tensor.itemsize > held.span[1] - held.span[0]:
            raise _overlap(held, None)
        for other in (*weights[:number], *others):
            if _meet(held, other):
                raise _overlap(held, other)


def _meet(a: _Held, b: _Held) -> bool:
    """Whether two tensors of one storage have a byte in common."""
    (low, high), (start, end) = a.span, b.span
    if high <= start or end <= low:
        return False
    if a.tensor.is_contiguous() and b.tensor.is_contiguous():
        return True
    return bool(torch.isin(a.bytes(), b.bytes()).any())


def _overlap(weight: _Held, other: _Held | None) -> SecateurError:
    if other is None:
        message = f"Several entries of {weight.path} are the same number in memory."
        hint = "Give each its own memory: torch.nn.Parameter(weight.detach().clone())."
    elif other.kind == "parameter":
        message = (
            f"{other.path} and {weight.path} share memory, as views of one tensor in other shapes "
            "or orders: zeros of one would be zeros of the other in other places."
        )
        hint = (
            f"Use one Parameter for both, turned in forward, or give {weight.path} its own memory "
            "with torch.nn.Parameter(weight.detach().clone())."
        )
    else:
        message = (
            f"The {other.kind} {other.path} is a view of the parameter {weight.path}, and would "
            "change with it."
        )
        hint = f"Take the view in forward, or give {other.path} its own memory with clone()."
    return SecateurError("weights_overlap", message, where=weight.path, hint=hint)


def _tensors(module: nn.Module) -> Iterator[_Held]:
    seen = set()
    for path, parameter in module.named_parameters():
        seen.add(id(parameter))
        yield _Held(path, "parameter", parameter.detach())
    for path, buffer in module.named_buffers():
        seen.add(id(buffer))
        yield _Held(path, "buffer", buffer.detach())
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            for tensor in tree_leaves(value):
                if not isinstance(tensor, Tensor) or id(tensor) in seen:
                    continue
                # Not of the kinds that `kinds` has looked at.
                if tensor.layout == torch.strided and not tensor.is_meta:
                    seen.add(id(tensor))
                    yield _Held(f"{path}.{name}" if path else name, "attribute", tensor.detach())

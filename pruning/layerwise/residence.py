"""Where the tensors of a call lie: the module's own are fetched for each call, the rest stay.

The module may lie on the CPU, or in memory-mapped files, while its calls run on another device: of
its parameters and buffers only those of the call at hand are copied there, so that the device never
holds the model.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError


def tensors(values: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors(value)
    elif isinstance(values, dict):
        yield from tensors(tuple(values.values()))


def mapped(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with every tensor changed."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, dict):
        return {key: mapped(value, change) for key, value in values.items()}
    if isinstance(values, tuple | list):
        parts = [mapped(value, change) for value in values]
        if all(new is old for new, old in zip(parts, values, strict=True)):
            return values
        if hasattr(values, "_fields"):
            return type(values)(*parts)
        return type(values)(parts)
    return values


@dataclass
class Originals:
    """The dense weights that were replaced, for calls that still want them.

    Found by address, so that a view made of a weight before it was replaced finds them too.
    """

    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def keep(self, name: str, weight: Tensor, dense: Tensor | None = None) -> None:
        """Remember a weight as it is now, or as it was: `dense`."""
        copy = weight.detach().clone() if dense is None else torch.empty_like(weight).copy_(dense)
        self.kept[name] = (weight, copy)

    def drop(self, name: str) -> None:
        """No call wants this weight any more."""
        self.kept.pop(name, None)

    def of(self, tensor: Tensor) -> Tensor:
        """The dense weight behind a weight or a view of it; any other tensor as it is."""
        for weight, copy in self.kept.values():
            if tensor is weight:
                return copy
            past = tensor.data_ptr() - weight.data_ptr()
            if tensor.device == weight.device and 0 <= past < weight.nbytes:
                offset = copy.storage_offset() + past // weight.element_size()
                return copy.as_strided(tensor.shape, tensor.stride(), offset)
        return tensor


class Residence:
    """Runs calls on a device, wherever the module lies.

    Args:
        module: Its parameters and buffers are the tensors that are fetched.
        device: Where calls run; where the module lies without one.

    Attributes:
        elsewhere: Whether some of the module lies on another device than that of the calls.
    """

    def __init__(self, module: nn.Module, device: torch.device | None = None) -> None:
        own = [*module.parameters(), *module.buffers()]
        self.device = device or (own[0].device if own else torch.device("cpu"))
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._own = {t.untyped_storage().data_ptr() for t in own}
        self.elsewhere = any(not self.here(t) for t in own)
        self._limit = 2 * max((t.nbytes for t in own), default=0)
        self._fetched: OrderedDict[Any, Tensor] = OrderedDict()

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor is the module's, or a view of one."""
        return tensor.untyped_storage().data_ptr() in self._own

    def here(self, tensor: Tensor) -> bool:
        """Whether a tensor lies where calls run."""
        return tensor.device == self.device

    def bring(self, tensor: Tensor) -> Tensor:
        """A tensor where calls run: itself if it lies there."""
        return tensor.to(self.device)

    def arguments(self, values: Any, originals: Originals | None) -> Any:
        """The arguments of a call where it runs, with the dense weights of `originals`."""

        def place(tensor: Tensor) -> Tensor:
            if not self.owns(tensor):
                return self.bring(tensor)
            return self._fetch(tensor if originals is None else originals.of(tensor))

        return mapped(values, place)

    def run(self, func: Any, args: Any, kwargs: Any, originals: Originals | None) -> Any:
        """Call `func` on the device.

        Raises:
            SecateurError: `operator_unsupported` for a call that changes the module in place while
                it lies elsewhere.
        """
        if not self.elsewhere and (originals is None or not originals.kept):
            return func(*args, **kwargs)
        given = list(tensors((args, kwargs)))
        if given and all(self.owns(t) for t in given):
            # Views stay views of the module, so that they are fetched when they are used.
            return mapped(func(*args, **kwargs), self._settle)
        used = self.arguments((args, kwargs), originals)
        placed = list(tensors(used))
        versions = [t._version for t in placed]
        result = func(*used[0], **used[1])
        for before, here, version in zip(given, placed, versions, strict=True):
            if here is not before and here._version != version:
                raise SecateurError(
                    "operator_unsupported",
                    f"{getattr(func, '__name__', func)} changes a parameter or buffer of the model "
                    "in place, which is not read while the model lies on another device.",
                    hint="Put the model on the device, or write the layer without that.",
                )
        return result if not self.elsewhere else mapped(result, self._settle)

    def forget(self) -> None:
        """Drop the fetched copies: the weights have changed."""
        self._fetched.clear()

    def _settle(self, tensor: Tensor) -> Tensor:
        return tensor if self.owns(tensor) else self.bring(tensor)

    def _fetch(self, tensor: Tensor) -> Tensor:
        if self.here(tensor):
            return tensor
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version)
        found = self._fetched.pop(key, None)
        if found is None:
            found = self.bring(tensor)
        self._fetched[key] = found
        while (
            len(self._fetched) > 1 and sum(t.nbytes for t in self._fetched.values()) > self._limit
        ):
            self._fetched.popitem(last=False)
        return found

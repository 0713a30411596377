"""What a pass takes, counted while it runs, with data or without: bytes of results, and work."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import flop_registry

from pruning.dispatch import Watching
from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.recurrence import operations

_OF_WINDOWS = 1_000  # multiplications in the time that pooling takes for one number of a window


class TooLongError(Exception):
    """A pass of more operations than it may have, each of which takes time whatever its size."""


class Counted(Watching):
    """Counts the bytes that operations allocate and their work; ends a pass that takes too much.

    Args:
        limits: What one sample may take before `model_too_large` is raised.
        batch: Samples of the pass.
        calls: Operations after which `TooLongError` is raised.
    """

    def __init__(self, limits: Limits, batch: int, calls: int | None = None) -> None:
        super().__init__()
        self.bytes, self._limit, self._left = 0, limits.activation_bytes * batch, calls
        self._work, self._most_work = 0, limits.operations * batch

    @contextmanager
    def run(self) -> Iterator[None]:
        """Counts what is called inside, and recurrent layers by their steps before they begin."""
        with _Steps(self), self:
            yield

    def expect(self, calls: int) -> None:
        """Ends the pass where so many operations are not left.

        Raises:
            TooLongError: They are not.
        """
        if self._left is not None and calls > self._left:
            raise TooLongError

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise TooLongError
        result = func(*args, **(kwargs or {}))
        self._work += _work(func, args, kwargs or {}, result)
        if self._work > self._most_work:
            raise SecateurError(
                "model_too_large",
                f"One pass takes more than {self._most_work} operations.",
                where=str(func),
                hint="Use smaller inputs or kernels.",
            )
        if not func.is_view:
            for part in torch.utils._pytree.tree_leaves(result):
                if isinstance(part, Tensor):
                    self.bytes += part.nbytes
        if self.bytes > self._limit:
            raise SecateurError(
                "model_too_large",
                f"One pass leaves more than {self._limit} bytes of results behind.",
                where=str(func),
                hint="Use smaller inputs.",
            )
        return result


class _Steps(TorchFunctionMode):
    """Sees recurrent layers as they are called: below, their steps are many operations."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self._counted.expect(operations(getattr(func, "__name__", ""), args))
        return func(*args, **(kwargs or {}))


def _work(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Multiplications of products and convolutions, as many for windows as take the same time."""
    known = flop_registry.get(func.overloadpacket)
    if known is not None:
        return int(known(*args, **kwargs, out_val=result)) // 2
    if not func.overloadpacket.__name__.startswith(("avg_pool", "max_pool")) or len(args) < 2:
        return 0
    first = result[0] if isinstance(result, tuple) else result
    window = args[1] if isinstance(args[1], list | tuple) else [args[1]]
    # A window of one size for all axes is a number, or a list of one.
    axes = int(func.overloadpacket.__name__.partition("pool")[2][:1])
    size = prod(window) if len(window) == axes else window[0] ** axes
    return _OF_WINDOWS * int(first.numel()) * size

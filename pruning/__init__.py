"""Second-order pruning of trained networks, as a plain PyTorch library.

Importing this package imports no torch: `prune` and `Outcome` are loaded on first use, so that
the API can import `pruning.spec` and `pruning.catalogue` in a process that never needs a tensor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.loop import Outcome, prune

__all__ = ["Outcome", "prune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pruning import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

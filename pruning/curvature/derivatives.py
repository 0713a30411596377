"""Derivatives that torch doesn't have, as an error that says so rather than one of torch's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import Node

from pruning.errors import SecateurError
from pruning.memory_errors import out_of_memory

CODE = "operator_unsupported"
"""Of the error."""

WITHOUT = (
    "Use a criterion without derivatives (magnitude, random, wanda), or write the layer with plain "
    "tensor operations."
)
"""What helps."""

_WORDS = ("derivative", "in-place operation", "inplace operation", "autograd", "forward ad")
"""One of which torch uses where it can't differentiate."""


def lacks_derivative(failure: Exception) -> bool:
    """Whether torch has no such derivative, rather than anything else being wrong."""
    if isinstance(failure, SecateurError):
        cause = failure.__cause__
        return failure.code == CODE or (isinstance(cause, Exception) and lacks_derivative(cause))
    if out_of_memory(failure):
        return False
    words = str(failure).lower()
    return isinstance(failure, NotImplementedError) or (
        isinstance(failure, RuntimeError) and any(word in words for word in _WORDS)
    )


@contextmanager
def differentiating() -> Iterator[None]:
    """Turns torch's refusal of a derivative within the block into a `SecateurError`.

    Raises:
        SecateurError: `operator_unsupported` with torch's reason.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError, SecateurError) as failure:
        if getattr(failure, "code", "") == CODE or not lacks_derivative(failure):
            raise
        raise SecateurError(
            CODE,
            f"torch can't differentiate this network: {reason(failure)}",
            where=getattr(failure, "where", None),
            hint=WITHOUT,
        ) from failure


def graph(tensor: Tensor) -> Iterator[Node]:
    """Every node of the graph that a tensor was computed by, once."""
    seen: set[Node] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]


def reason(failure: Exception) -> str:
    """The first line of an error, at most 300 characters."""
    return (str(failure).splitlines() or [type(failure).__name__])[0][:300]

"""Bytes of the sparse file, never less than it takes."""

from collections.abc import Callable, Sequence

from pruning.budget import Part
from pruning.formats.sparse import stored_bytes
from pruning.formats.sparse.choice import coded_bytes, least_bytes

SLACK = 64
"""Bytes by which the rest of a file may grow where tensors are coded: digits, and alignment."""


def cost(part: Part, kept: int) -> int:
    """Of the codec that takes the fewest, its part of the header included."""
    return stored_bytes(kept, part.shape, part.itemsize, name_bytes=len(part.name.encode()) + 8)


def cost_within(whole: int) -> Callable[[Part, int], int]:
    """The cost where the upload's own sparse file is known to take `whole` bytes."""
    digits = len(str(whole)) + 1

    def within(part: Part, kept: int) -> int:
        return coded_bytes(kept, part.shape, part.itemsize, digits)

    return within


def rest_of(whole: int, parts: Sequence[Part], kept: Sequence[int]) -> int:
    """Bytes beside the weights in scope, of the upload's own sparse file.

    Args:
        whole: Bytes of that file.
        parts: The weights in scope.
        kept: Entries of each that are not zero in the upload.
    """
    held = sum(least_bytes(k, p.shape, p.itemsize) for p, k in zip(parts, kept, strict=True))
    return whole - held + SLACK

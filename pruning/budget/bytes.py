"""Bytes of the sparse file, never less than it takes."""

from pruning.budget import Part
from pruning.formats.sparse import stored_bytes


def cost(part: Part, kept: int) -> int:
    """Of the codec that takes the fewest, its part of the header included."""
    return stored_bytes(kept, part.shape, part.itemsize, name_bytes=len(part.name.encode()) + 8)

"""Which weights may go."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.spec.extent import MOST_PATTERNS, Pattern
from pruning.spec.part import Part


class Scope(Part):
    """Which weights may go.

    Args:
        exclude: Shell patterns matched against layer names; what they match stays as it is.
        biases: Not pruned.
        embeddings: Not pruned.
        output_head: Whether the last layers may be pruned.
        existing_zeros: What becomes of weights that are zero in the upload. `keep`: they stay zero,
            also through recovery and compensation, and count among the removed ones. `free`: they
            are weights like others.
    """

    exclude: Annotated[tuple[Pattern, ...], Field(max_length=MOST_PATTERNS)] = ()
    biases: Literal[False] = False
    embeddings: Literal[False] = False
    output_head: bool = True
    existing_zeros: Literal["keep", "free"] = "keep"

"""Which weights may go, and how many."""

from typing import Literal

from pydantic import Field

from pruning.spec.part import Part


class Target(Part):
    """How much goes: the share of the weights in scope that will be zero."""

    sparsity: float = Field(0.5, ge=0.0, lt=1.0)


class Scope(Part):
    """Which weights may go. `exclude` holds shell patterns matched against layer names."""

    exclude: tuple[str, ...] = ()
    biases: Literal[False] = False
    embeddings: Literal[False] = False
    output_head: bool = True

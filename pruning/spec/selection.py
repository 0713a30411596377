"""Which weights may go, how many, and how they are shared among layers."""

from typing import Literal

from pydantic import Field

from pruning.spec.part import Part


class Unstructured(Part):
    """Single weights, anywhere."""

    kind: Literal["unstructured"] = "unstructured"


class Target(Part):
    """How much goes: the share of the weights in scope that will be zero."""

    sparsity: float = Field(0.5, ge=0.0, lt=1.0)


class GlobalAllocation(Part):
    """One threshold for the whole network."""

    kind: Literal["global"] = "global"


class UniformAllocation(Part):
    """The same sparsity in every layer."""

    kind: Literal["uniform"] = "uniform"


class Scope(Part):
    """Which weights may go. `exclude` holds shell patterns matched against layer names."""

    exclude: tuple[str, ...] = ()
    biases: Literal[False] = False
    embeddings: Literal[False] = False
    output_head: bool = True

"""Which weights stay or go together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pruning.spec.part import Part


class Unstructured(Part):
    """Single weights, anywhere."""

    kind: Literal["unstructured"] = "unstructured"

    @property
    def unit(self) -> int:
        """Weights that go at once."""
        return 1


class NM(Part):
    """Exactly `n` weights stay of every `m` neighbours along the input channels."""

    kind: Literal["nm"] = "nm"
    n: int = Field(2, ge=1)
    m: int = Field(4, ge=2, le=64)

    @property
    def sparsity(self) -> float:
        """The share that goes, which the pattern fixes."""
        return 1.0 - self.n / self.m

    @property
    def unit(self) -> int:
        """Weights that go at once: one, but of each m neighbours the same number."""
        return 1

    @model_validator(mode="after")
    def _some_go(self) -> "NM":
        if self.n >= self.m:
            raise ValueError("pattern.n is how many of each m stay, so it must be less than m")
        return self


class Block(Part):
    """Blocks of outputs x input channels stay or go as a whole."""

    kind: Literal["block"] = "block"
    shape: tuple[Annotated[int, Field(ge=1, le=256)], Annotated[int, Field(ge=1, le=256)]] = (1, 4)

    @property
    def unit(self) -> int:
        """Weights that go at once."""
        return self.shape[0] * self.shape[1]

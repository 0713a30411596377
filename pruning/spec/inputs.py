"""What the spec says of the model's inputs, where the model itself does not."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.spec.part import Part


class Input(Part):
    """One input.

    `samples` is the axis along which the model wants the samples, counted from 0; `shared` is for
    one value that all samples have in common. Data have the samples first in any case.
    """

    samples: Annotated[int, Field(ge=0, lt=64)] | Literal["shared"]

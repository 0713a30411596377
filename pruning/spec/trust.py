"""What is found out about how far the numbers can be trusted."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.spec.part import Part


class Trust(Part):
    """What is found out, at the dense weights, about how far the report's numbers can be trusted.

    Args:
        budget: `auto` leaves out what would make trust take longer than the rest of the job, both
            counted in operations; `all` leaves out nothing.
        checks: Whether the theory's assumptions are checked.
        bootstrap: Resamples of the calibration batches; 0 leaves the bootstrap out. `auto` is 16
            where a resample costs little beside the job, and none where each would invert a
            matrix over more than 1,024 weights.
        batches: Batches that the calibration data are cut into to be drawn from.
        ladder: Whether loss is predicted and measured at ten heights on the way to the target.
        factor: Predicted and measured increase may differ this much for the model to hold.
        layers: The ladder of each layer alone is measured with at most so many layers in scope.
    """

    budget: Literal["auto", "all"] = "auto"
    checks: bool = True
    bootstrap: Literal["auto"] | Annotated[int, Field(ge=0, le=1_000)] = "auto"
    batches: int = Field(12, ge=2, le=64)
    ladder: bool = True
    factor: float = Field(2.0, gt=1.0, le=100.0)
    layers: int = Field(8, ge=0, le=1_000)

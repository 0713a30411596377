"""Limits that the result must keep; a job that misses one ends `rejected`, its artifacts kept."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pruning.spec.amount import WholeNumber
from pruning.spec.extent import MOST_PATTERNS, Pattern
from pruning.spec.objective import Metric
from pruning.spec.part import Part

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Latency(Part):
    """How long the delivered file may take, measured beside the upload in the same run.

    Args:
        ratio: The most that its median may be of the upload's.
        milliseconds: The most its median may be.
    """

    ratio: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    milliseconds: float | None = Field(None, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _something(self) -> "Latency":
        if self.ratio is None and self.milliseconds is None:
            raise ValueError("gates.latency needs ratio or milliseconds")
        return self


class Between(Part):
    """Bounds of a layer's sparsity, both allowed themselves."""

    min: Share = 0.0
    max: Share = 1.0


class Gates(Part):
    """Limits the result must keep.

    Args:
        max_drop: The largest allowed drop of a metric, by its name.
        max_bytes: The largest allowed size of the delivered model's files (`native`), of these
            after gzip (`native_gzip`), or of the sparse file (`sparse`).
        latency: How long the delivered file may take.
        layer_sparsity: Bounds by layer, shell patterns over layer names; every layer in scope that
            a pattern matches must keep them.
    """

    max_drop: dict[Metric, Share] = {}
    max_bytes: dict[Literal["native", "native_gzip", "sparse"], WholeNumber] = {}
    latency: Latency | None = None
    layer_sparsity: Annotated[dict[Pattern, Between], Field(max_length=MOST_PATTERNS)] = {}

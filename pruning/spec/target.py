"""How much goes, said in one of six ways."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pruning.spec.amount import Amount
from pruning.spec.objective import Metric
from pruning.spec.part import Part


class MaxDrop(Part):
    """The most sparsity at which a metric drops by no more than `drop`.

    A bracketing search: each probe runs the whole schedule from the dense network at one sparsity.

    Args:
        metric: What must not drop; measured on the evaluation data, against the dense network.
        drop: The largest drop, in units of the metric: .01 of an accuracy is one point.
        judged_by: `estimate` accepts a probe whose measured drop is allowed, `upper_bound` only one
            whose drop is allowed at the upper end of its interval too.
        probes: The most probes.
        resolution: The search ends once the weights kept at the two ends of the bracket differ by
            at most this share.
    """

    metric: Metric = "accuracy"
    drop: float = Field(0.01, ge=0.0, le=1.0)
    judged_by: Literal["estimate", "upper_bound"] = "estimate"
    probes: int = Field(8, ge=2, le=64)
    resolution: float = Field(0.05, gt=0.0, le=1.0)


class Target(Part):
    """How much goes: exactly one of the fields; `sparsity: 0.5` without any.

    Args:
        sparsity: The share of the weights in scope that will be zero.
        weights: The most weights in scope that stay: a count, or a share of them.
        bytes: The most bytes of the model's sparse file (`outputs: [sparse]`), or a share of the
            bytes of all its weights.
        flops: The most multiply-adds a sample of the layers in scope, zeros left out, or a share of
            what they are without any zeros.
        max_drop: The most sparsity within an allowed drop of a metric, by a search.
    """

    sparsity: float | None = Field(None, ge=0.0, lt=1.0)
    weights: Amount | None = None
    bytes: Amount | None = None
    flops: Amount | None = None
    max_drop: MaxDrop | None = None

    @model_validator(mode="before")
    @classmethod
    def _half_without_any(cls, data: Any) -> Any:
        if isinstance(data, dict) and not any(v is not None for v in data.values()):
            return {**data, "sparsity": 0.5}
        return data

    @model_validator(mode="after")
    def _one_alone(self) -> "Target":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"a target is one thing, and {' and '.join(given)} are given; keep one, and hold "
                "the result to the others by gates"
            )
        return self

    @property
    def kind(self) -> str:
        """The field that is given."""
        return next(name for name, value in self if value is not None)


class Curve(Part):
    """Further sparsities that the same job prunes to, for the trade-off curve.

    Each point is what a job with that target would deliver, and is delivered too.

    Args:
        points: Sparsities, ascending.
        keep: Whether the model of each point, probes of `max_drop` included, is delivered.
    """

    points: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = Field((), max_length=64)
    keep: bool = True

    @model_validator(mode="after")
    def _ascending(self) -> "Curve":
        if list(self.points) != sorted(set(self.points)):
            raise ValueError("curve.points must ascend, each sparsity once")
        return self

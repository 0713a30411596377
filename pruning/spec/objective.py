"""What is to be kept low, what is measured, and what must not be lost."""

from typing import Literal

from pydantic import model_validator

from pruning.spec.part import Part

Metric = Literal["accuracy", "agreement", "cosine"]
"""`accuracy` needs labels. `agreement` (of the largest output) and `cosine` (of the outputs) are
taken with the dense model, for objective match_dense. The larger the better, 1 at best."""

_LABELLED, _UNLABELLED = ("accuracy",), ("agreement", "cosine")


class Objective(Part):
    """The loss that curvature and predictions refer to, and the metrics that are measured.

    `loss`: `cross_entropy` of class scores, `mse`, `bce` (binary cross-entropy of scores, one an
    output), `causal_lm` (next-token cross-entropy, label -100 for positions that do not count), or
    `match_dense`, which needs no labels: the distance to the dense model's own outputs, squared or
    the Kullback-Leibler divergence of their softmax.
    """

    loss: Literal["cross_entropy", "mse", "bce", "causal_lm", "match_dense"] = "cross_entropy"
    distance: Literal["squared", "kl"] = "squared"
    metrics: tuple[Metric, ...] = ("accuracy",)

    @property
    def needs_labels(self) -> bool:
        """Whether the loss is defined by labels."""
        return self.loss != "match_dense"

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that have a meaning for the loss."""
        if not self.needs_labels:
            return tuple(m for m in self.metrics if m in _UNLABELLED)
        classes = self.loss in ("cross_entropy", "bce", "causal_lm")
        return tuple(m for m in self.metrics if m in _LABELLED) if classes else ()

    @model_validator(mode="after")
    def _distance_is_of_match_dense(self) -> "Objective":
        if self.distance != "squared" and self.loss != "match_dense":
            raise ValueError("objective.distance belongs to loss match_dense alone")
        return self

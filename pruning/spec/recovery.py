"""What is done for the survivors after a step."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from pruning.spec.extent import MOST_PATTERNS, Pattern
from pruning.spec.part import Part


class SGD(Part):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)


class Adam(Part):
    """Adam (L2 penalty inside the gradient)."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)


class AdamW(Part):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)


class Constant(Part):
    """The optimizer's rate throughout, after a linear warm-up over a share of all steps."""

    kind: Literal["constant"] = "constant"
    warmup: float = Field(0.0, ge=0.0, lt=1.0)


class Cosine(Part):
    """Warm-up, then half a cosine down to `final` times the rate (Loshchilov, Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = Field(0.0, ge=0.0, lt=1.0)
    final: float = Field(0.0, ge=0.0, le=1.0)


class OneCycle(Part):
    """Up from rate / 25 to the rate over a share `warmup`, then down to `final` (Smith 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(0.3, gt=0.0, lt=1.0)
    final: float = Field(1e-4, ge=0.0, le=1.0)


class EarlyStop(Part):
    """Training ends when the loss on a split has not fallen for `patience` epochs.

    The split is a seeded `share` of the training data that training does not see, and not the
    evaluation data, which stay unseen; the weights of the best epoch are kept.
    """

    share: float = Field(0.1, gt=0.0, le=0.5)
    patience: int = Field(2, ge=1, le=1_000)


class Distill(Part):
    """The dense model as teacher (Hinton, Vinyals, Dean 2015, eq. 1 and section 2).

    Args:
        temperature: Scores are divided by it before softmax; the gradient is rescaled by its
            square. Outputs that are no class scores are compared by their squared distance.
        weight: Of soft targets, the labels having 1 - weight; without labels it is 1.
        features: Layers (shell patterns over layer names) whose outputs are drawn towards the dense
            model's (Romero et al. 2015), by squared distance relative to their mean square.
        feature_weight: Of the features' mean distance, added to the rest.
    """

    temperature: float = Field(4.0, gt=0.0, le=100.0)
    weight: float = Field(0.5, ge=0.0, le=1.0)
    features: Annotated[tuple[Pattern, ...], Field(max_length=MOST_PATTERNS)] = ()
    feature_weight: float = Field(1.0, ge=0.0, allow_inf_nan=False)


class NoRecovery(Part):
    """The pruned network is the result."""

    kind: Literal["none"] = "none"


class BatchNorm(Part):
    """The running statistics of BatchNorm layers are measured anew; no weight is trained.

    Mean and variance over all training samples, layer by layer in one pass a batch, averaged
    without decay. No labels are needed.
    """

    kind: Literal["batch_norm"] = "batch_norm"
    batch_size: int = Field(256, ge=2, le=65_536)


class FineTune(Part):
    """Training of the survivors under the mask, after each step of the schedule that asks for it.

    Args:
        epochs: Passes over the training data.
        batch_size: Samples whose mean gradient makes a step: `accumulate` parts of it at a time.
        accumulate: Parts that a batch is cut into to save memory.
        optimizer: And its rate.
        rates: How the rate changes over the steps.
        clip: The gradient's norm is held below this; null leaves it.
        precision: Of the forward and backward pass; `auto` is bfloat16 on a GPU that has it and
            float32 elsewhere. Weights, moments and losses stay in float32.
        batch_norm: `train` updates the statistics of BatchNorm layers, `freeze` leaves them.
        early_stop: Whether training ends early.
        distill: Whether the dense model teaches; `true` stands for the defaults.
    """

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(3, ge=1, le=1_000)
    batch_size: int = Field(64, ge=1, le=65_536)
    accumulate: int = Field(1, ge=1, le=1_024)
    optimizer: Annotated[SGD | Adam | AdamW, Field(discriminator="kind")] = AdamW()
    rates: Annotated[Constant | Cosine | OneCycle, Field(discriminator="kind")] = Constant()
    clip: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_norm: Literal["train", "freeze"] = "train"
    early_stop: EarlyStop | None = None
    distill: Distill | None = None

    @field_validator("distill", "early_stop", mode="before")
    @classmethod
    def _switched(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

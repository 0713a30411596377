"""What is done for the survivors after a step."""

from typing import Annotated, Literal

from pydantic import Field

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


class NoRecovery(Part):
    """The pruned network is the result."""

    kind: Literal["none"] = "none"


class FineTune(Part):
    """Training of the survivors under the mask, after each step of the schedule."""

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(3, ge=1, le=1_000)
    batch_size: int = Field(64, ge=1, le=65_536)
    optimizer: Annotated[SGD | Adam | AdamW, Field(discriminator="kind")] = AdamW()

"""What a declaration says of itself: formula, paper, needs and cost, all without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Need = Literal["labels", "gradients", "inputs"]


@dataclass(frozen=True)
class Size:
    """The numbers a cost depends on.

    `weights`: prunable weights in scope; `parameters`: all parameters; `samples`: calibration
    samples; `outputs`: network outputs a sample; `macs`: multiply-adds a sample; `layers`: groups,
    outputs and inputs of a group for each layer in scope, where they are known.
    """

    weights: int
    parameters: int
    samples: int
    outputs: int
    macs: int
    layers: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class Cost:
    """Peak bytes beyond the network itself, and floating-point operations."""

    bytes: int
    flops: int


@dataclass(frozen=True)
class About:
    """How a method presents itself in `GET /v1/criteria` and in the docs.

    `unit` is "loss" where the saliency is a predicted increase of the loss, else "score".
    `cost` prices the method, given the parameters of its declaration, before it runs.
    `scorings` is how often schedule one_shot scores weights on the way where the spec leaves it
    open: 1 where scoring anew changes nothing, as for magnitude, or nothing for the better.
    """

    title: str
    summary: str
    formula: str
    paper: str
    unit: Literal["loss", "score"]
    needs: tuple[Need, ...]
    cost_formula: str
    scorings: int = 4


class Declaration(BaseModel):
    """Base of everything the spec can choose by `kind`: its fields are the method's parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    about: ClassVar[About]
    price: ClassVar[Callable[..., Cost]]


def no_cost(_self: Declaration, _size: Size) -> Cost:
    """For methods whose cost is lost in that of one forward pass."""
    return Cost(bytes=0, flops=0)

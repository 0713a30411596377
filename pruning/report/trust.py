"""The part of report.json that says how far its numbers can be trusted. Torch-free."""

from typing import Literal

from pydantic import Field

from pruning.report.section import Number, Section


class Rung(Section):
    """One height of the ladder: so much removed by what is known at the dense weights."""

    sparsity: float = Field(description="Share removed, of the weights in scope or of the layer.")
    removed: int = Field(description="Weights removed.")
    first_order: Number = Field(default=None, description="g.dw.")
    second_order: Number = Field(
        default=None, description="1/2 dw'Hdw, H undamped, as in `rounds`."
    )
    predicted: Number = Field(default=None, description="first_order + second_order.")
    measured: Number = Field(default=None, description="Loss afterwards minus dense loss.")
    own: Number = Field(
        default=None,
        description="The criterion's own prediction: for obs 1/2 dw'(H + damping I)dw of the whole "
        "change with its own matrix H, else the sum of the removed weights' saliencies; null where "
        "these are not in units of the loss.",
    )
    error: str | None = Field(default=None, description="Why nothing could be measured.")


class LayerLadder(Section):
    """The ladder of one layer: only its part of each rung's change is made."""

    name: str = Field(description="Module path of the layer.")
    rungs: list[Rung] = Field(description="One a height, empty rungs included.")
    holds_up_to: Number = Field(
        description="Sparsity of the layer up to which the model holds; 0 if nowhere."
    )
    own_holds_up_to: Number = Field(
        default=None, description="The same for the criterion's own prediction; null without one."
    )


class Ladder(Section):
    """Predicted and measured increase of the loss on the way to the target, one model for all."""

    samples: int = Field(description="Calibration samples it was measured on.")
    factor: float = Field(
        description="The model holds while predicted and measured increase have one sign and "
        "differ by at most this factor of the increase itself."
    )
    own_factor: float = Field(description="The same for the criterion's own prediction.")
    resolution: float = Field(
        description="Increases of at most this size decide nothing: rounding of the loss, or 1e-5 "
        "of the largest increase on the ladder."
    )
    rungs: list[Rung] = Field(description="The whole network.")
    holds_up_to: Number = Field(
        description="Sparsity up to which the model, gradient term included, holds; 0 if nowhere."
    )
    own_holds_up_to: Number = Field(
        default=None, description="The same for the criterion's own prediction; null without one."
    )
    layers: list[LayerLadder] = Field(default=[], description="Each layer alone.")
    not_predicted: str | None = Field(
        default=None, description="Why nothing is predicted, where torch can't differentiate."
    )
    layers_left_out: str | None = Field(default=None, description="Why `layers` is empty.")


class LayerInterval(Section):
    """How one layer's saliencies depend on the samples."""

    name: str = Field(description="Module path of the layer.")
    median: Number = Field(description="Median saliency, all calibration samples.")
    low: Number = Field(description="5 % quantile of that median over the resamples.")
    high: Number = Field(description="95 % quantile.")
    coin_tosses: int = Field(description="Weights removed in 25 % to 75 % of the resamples.")


class Bootstrap(Section):
    """Saliencies with the calibration batches drawn again, with replacement (Efron 1979)."""

    resamples: int = Field(description="Resamples that could be scored; 0 if not available.")
    failed: int = Field(default=0, description="Resamples whose curvature was singular.")
    batches: int = Field(default=0, description="Batches that were drawn from.")
    reason: str | None = Field(default=None, description="Why it is not available.")
    removed: int = Field(default=0, description="Weights a resample removes.")
    coin_tosses: int = Field(
        default=0, description="Weights removed in 25 % to 75 % of the resamples."
    )
    layers: list[LayerInterval] = Field(default=[], description="Layers in scope.")


class DeadInputs(Section):
    """Inputs of a layer that are zero for every calibration sample."""

    name: str = Field(description="Module path of the layer.")
    inputs: int = Field(description="Input features or channels.")
    dead: int = Field(description="Those that are always zero.")
    weights: int = Field(description="Weights that see nothing but these.")


Part = Literal[
    "gradient_and_inputs",
    "ladder",
    "curvature_rank",
    "negative_curvature",
    "bootstrap",
    "ladder_by_layer",
]
"""What trust is made of, in the order in which its budget is spent."""


class LeftOut(Section):
    """A part that would have made trust take longer than the rest of the job."""

    part: Part = Field(description="Which.")
    operations: int = Field(description="Operations it would have taken.")


class Trust(Section):
    """How far the numbers can be trusted, assessed at the dense weights before the first step.

    Operations are counted and not timed, so that the same parts are done on every run.
    """

    dead_inputs: list[DeadInputs] = Field(default=[], description="Layers in scope.")
    bootstrap: Bootstrap | None = Field(default=None, description="Null where switched off.")
    ladder: Ladder | None = Field(
        default=None, description="Null where switched off, or left out: see `left_out`."
    )
    operations: int = Field(default=0, description="Operations that trust took, as counted.")
    rest: int = Field(
        default=0,
        description="Operations of the rest of the job, comparison and search aside. With trust: "
        "{budget: auto}, trust takes no more than these, or than are done in about a second.",
    )
    left_out: list[LeftOut] = Field(
        default=[], description="Parts that were left out, since they would have taken more."
    )


class Check(Section):
    """One thing that was checked."""

    name: str = Field(description="Stable name.")
    group: Literal["file", "gate", "trust"] = Field(
        default="file",
        description="`file`: on the result as written; `gate`: a limit of the spec; `trust`: an "
        "assumption of the theory, at the dense weights. Trust checks pass or warn and never fail: "
        "they say how far numbers can be trusted, not that the result is wrong.",
    )
    status: Literal["pass", "warn", "fail"] = Field(description="Outcome.")
    value: Number = Field(default=None, description="What was found.")
    threshold: Number = Field(default=None, description="What was allowed.")
    message: str = Field(description="Plain words.")

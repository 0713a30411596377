"""Declaration of Optimal Brain Surgeon."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pruning.catalogue.about import About, Cost, Declaration, Size
from pruning.catalogue.curvature import RESTRICTED_LIMIT

FULL_AUTO = 4_096
"""`inverse: auto` forms the full matrix up to this many weights in scope."""

FULL_LIMIT = 16_384
"""`inverse: full` is refused above this many weights in scope (2 GiB a float64 matrix)."""

BLOCK_LIMIT = 2**30
"""Entries of all blocks of `block_fisher` together beyond which it is refused (8 GiB in float64,
of which a damping sweep holds several copies)."""

TRIED = 6
"""Times that a step solves with `damping: auto`: five values at least, and the chosen one."""

STEPS = 500
"""Steps of conjugate gradients that are priced; few dampings take more than a few times as many."""

Inverse = Literal["full", "block_fisher", "low_rank", "kfac", "ekfac"]


class OBS(Declaration):
    """Optimal Brain Surgeon: second-order saliency with the off-diagonal curvature.

    Args:
        inverse: `full` inverts a dense matrix over all weights in scope; `block_fisher` inverts
            diagonal blocks of the empirical Fisher matrix; `low_rank` inverts the empirical Fisher
            matrix of a few samples, never formed; `kfac` and `ekfac` invert Kronecker factors of
            the Gauss-Newton matrix, layer by layer; `auto` takes `full` while the network is small
            enough, else `block_fisher`.
        curvature: What `full` inverts: `ggn` (Gauss-Newton), `hessian` (exact, at most 4,096
            weights, may be indefinite) or `empirical_fisher`.
        block: Weights a block of `block_fisher`.
        gradients: Samples of `low_rank`.
        damping: Added to the diagonal before inverting, in units of its mean. `auto` takes the
            value whose pruned network has the lowest loss on a held-out share of the calibration
            data; the report holds the whole sweep.
    """

    kind: Literal["obs"] = "obs"
    inverse: Literal["auto", "full", "block_fisher", "low_rank", "kfac", "ekfac"] = "auto"
    curvature: Literal["ggn", "hessian", "empirical_fisher"] = "ggn"
    block: int = Field(50, ge=1, le=4_096)
    gradients: int = Field(256, ge=1, le=100_000)
    damping: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"

    about = About(
        title="Optimal Brain Surgeon",
        summary="Predicted increase of the loss when one weight is set to zero and all the others "
        "move to make up for it.",
        formula="s_q = w_q^2 / (2 [H^-1]_qq)",
        paper="Hassibi and Stork 1992, eq. 5; blocks: Singh and Alistarh 2020 (WoodFisher); kfac: "
        "Martens and Grosse 2015, Grosse and Martens 2016; ekfac: George et al. 2018",
        unit="loss",
        needs=("labels", "gradients"),
        cost_formula="N samples, C outputs, M multiply-adds a sample, t = 6 with damping: auto "
        "(five values tried, and the chosen one), else 1; full (at most 16,384 weights): bytes "
        "48 W^2, operations 2 N C W^2 + 2 t W^3 (hessian, at most 4,096: 12 N W M instead of "
        "2 N C W^2); block_fisher: bytes 48 W B, operations 2 N W B + 2 t W B^2; low_rank: bytes "
        "24 m W (at most 2 GiB a copy), operations 6 m M + 4 t m^2 W; kfac, ekfac, for layers of "
        "o x i weights with F = o^2 + i^2 (at most 8,192 a side): bytes 80 (W + F) + 48 R^2 with "
        "R <= 2,048 weights of one layer, operations 6 N C M + 30 (o^3 + i^3) + 4,000 t o i (o + "
        "i); layers above 4,096 weights in one step alone. damping: auto adds 24 N M, and forms "
        "low_rank, kfac and ekfac twice; ekfac takes its passes twice",
    )

    @model_validator(mode="after")
    def _curvature_is_of_full(self) -> "OBS":
        if self.curvature != "ggn" and self.inverse != "full":
            raise ValueError("criterion.curvature is what inverse: full inverts; set both")
        return self

    @model_validator(mode="after")
    def _parameters_are_of_the_inverse(self) -> "OBS":
        fields = type(self).model_fields
        for name, inverses in (
            ("block", ("auto", "block_fisher")),
            ("gradients", ("low_rank",)),
        ):
            if getattr(self, name) != fields[name].default and self.inverse not in inverses:
                raise ValueError(
                    f"criterion.{name} is of inverse: {inverses[-1]}; inverse: {self.inverse} "
                    "would ignore it"
                )
        return self

    def resolve(self, weights: int) -> Inverse:
        """The inverse that `auto` stands for, given the weights in scope."""
        if self.inverse != "auto":
            return self.inverse
        return "full" if weights <= FULL_AUTO else "block_fisher"

    def kind_of_curvature(self, weights: int) -> str:
        """The module of `pruning.curvature` that computes it."""
        inverse = self.resolve(weights)
        if inverse != "full":
            return inverse
        return {"ggn": "full", "hessian": "hessian", "empirical_fisher": "fisher"}[self.curvature]

    def price(self, size: Size) -> Cost:
        """Copies for two parts of the data and all of it, the factors, and each damping tried."""
        w, n = size.weights, size.samples
        inverse = self.resolve(w)
        # Trials measure and predict the loss on the held-out fifth of the data.
        tried, trials = (TRIED, 24 * n * size.macs) if self.damping == "auto" else (1, 0)
        # Curvature that is no mean over samples is computed for a part of the data and for all.
        parts = 2 if self.damping == "auto" else 1
        if inverse == "full":
            columns = size.outputs if self.curvature == "ggn" else 1
            form = 12 * n * w * size.macs if self.curvature == "hessian" else 2 * n * columns * w**2
            return Cost(bytes=48 * w * w, flops=form + 2 * tried * w**3 + trials)
        if inverse == "low_rank":
            m = min(self.gradients, n)
            flops = 6 * parts * m * size.macs + 4 * tried * m * m * w
            return Cost(bytes=24 * m * w, flops=flops + trials)
        if inverse in ("kfac", "ekfac"):
            return self._price_of_factors(size, parts, tried, trials)
        b = min(self.block, w)
        return Cost(bytes=48 * w * b, flops=2 * n * w * b + 2 * tried * w * b * b + trials)

    def _price_of_factors(self, size: Size, parts: int, tried: int, trials: int) -> Cost:
        side = math.isqrt(size.weights - 1) + 1 if size.weights else 0
        layers = size.layers or ((1, side, side),)
        entries = sum(g * (o * o + i * i) for g, o, i in layers)
        widest = min(RESTRICTED_LIMIT, max(g * o * i for g, o, i in layers))
        passes = 6 * (2 if self.inverse == "ekfac" else 1) * size.samples * size.outputs * size.macs
        decompose = 30 * sum(g * (o**3 + i**3) for g, o, i in layers)
        solve = 8 * STEPS * sum(g * o * i * (o + i) for g, o, i in layers)
        return Cost(
            bytes=80 * (size.weights + entries) + 48 * widest**2,
            flops=parts * (passes + decompose) + tried * solve + trials,
        )

"""Declaration of Optimal Brain Surgeon."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pruning.catalogue.about import About, Cost, Declaration, Size

FULL_AUTO = 4_096
"""`inverse: auto` forms the full matrix up to this many weights in scope."""

FULL_LIMIT = 16_384
"""`inverse: full` is refused above this many weights in scope (2 GiB a float64 matrix)."""

BLOCK_LIMIT = 2**30
"""Entries of all blocks of `block_fisher` together beyond which it is refused (8 GiB in float64,
of which a damping sweep holds several copies)."""


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
        cost_formula="a damping tried, N samples, C outputs, M multiply-adds a sample; full (at "
        "most 16,384 weights): bytes 48 W^2, operations 2 N C W^2 + 2 W^3 (hessian, at most 4,096: "
        "12 N W M instead of 2 N C W^2); block_fisher: bytes 48 W B, operations 2 N W B + 2 W B^2; "
        "low_rank: bytes 24 m W (at most 2 GiB a copy), operations 6 m M + 4 m^2 W; kfac, ekfac: "
        "bytes 48 W and both factors of each layer (at most 8,192 a side), operations 6 N C M and "
        "8 W^1.5; layers above 4,096 weights in one step alone",
    )

    @model_validator(mode="after")
    def _curvature_is_of_full(self) -> "OBS":
        if self.curvature != "ggn" and self.inverse != "full":
            raise ValueError("criterion.curvature is what inverse: full inverts; set both")
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
        """Copies for two parts of the data and all of it, and the factors."""
        w, n = size.weights, size.samples
        inverse = self.resolve(w)
        if inverse == "full":
            columns = size.outputs if self.curvature == "ggn" else 1
            form = 12 * n * w * size.macs if self.curvature == "hessian" else 2 * n * columns * w**2
            return Cost(bytes=48 * w * w, flops=form + 2 * w**3)
        if inverse == "low_rank":
            m = min(self.gradients, n)
            return Cost(bytes=24 * m * w, flops=6 * m * size.macs + 4 * m * m * w)
        if inverse in ("kfac", "ekfac"):
            turning = 8 * int(w**1.5)
            return Cost(bytes=64 * w, flops=6 * n * size.outputs * size.macs + turning)
        b = min(self.block, w)
        return Cost(bytes=48 * w * b, flops=2 * n * w * b + 2 * w * b * b)

"""Declaration of Optimal Brain Surgeon."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.catalogue.about import About, Cost, Declaration, Size

FULL_AUTO = 4_096
"""`inverse: auto` forms the full matrix up to this many weights in scope."""

FULL_LIMIT = 16_384
"""`inverse: full` is refused above this many weights in scope (2 GiB a float64 matrix)."""

BLOCK_LIMIT = 2**30
"""Entries of all blocks of `block_fisher` together beyond which it is refused (8 GiB in float64,
of which a damping sweep holds several copies)."""


class OBS(Declaration):
    """Optimal Brain Surgeon: second-order saliency with the off-diagonal curvature.

    Args:
        inverse: `full` inverts the Gauss-Newton matrix over all weights in scope; `block_fisher`
            inverts diagonal blocks of the empirical Fisher matrix; `auto` takes `full` while the
            network is small enough.
        block: Weights a block of `block_fisher`.
        damping: Added to the diagonal before inverting, in units of its mean. `auto` takes the
            value whose pruned network has the lowest loss on a held-out share of the calibration
            data; the report holds the whole sweep.
    """

    kind: Literal["obs"] = "obs"
    inverse: Literal["auto", "full", "block_fisher"] = "auto"
    block: int = Field(50, ge=1, le=4_096)
    damping: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"

    about = About(
        title="Optimal Brain Surgeon",
        summary="Predicted increase of the loss when one weight is set to zero and all the others "
        "move to make up for it.",
        formula="s_q = w_q^2 / (2 [H^-1]_qq)",
        paper="Hassibi and Stork 1992, eq. 5; blocks: Singh and Alistarh 2020 (WoodFisher)",
        unit="loss",
        needs=("labels", "gradients"),
        cost_formula="full: bytes 48 W^2, operations 2 N C W^2 + 2 W^3 a "
        "damping tried; block_fisher: bytes 48 W B, operations 2 N W B + 2 W B^2",
    )

    def resolve(self, weights: int) -> Literal["full", "block_fisher"]:
        """The inverse that `auto` stands for, given the weights in scope."""
        if self.inverse != "auto":
            return self.inverse
        return "full" if weights <= FULL_AUTO else "block_fisher"

    def price(self, size: Size) -> Cost:
        """Six copies of the matrix or of the blocks: two parts of the data, all of it, factors."""
        w, n = size.weights, size.samples
        if self.resolve(w) == "full":
            return Cost(bytes=48 * w * w, flops=2 * n * size.outputs * w * w + 2 * w**3)
        b = min(self.block, w)
        return Cost(bytes=48 * w * b, flops=2 * n * w * b + 2 * w * b * b)

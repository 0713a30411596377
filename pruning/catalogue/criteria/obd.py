"""Declaration of Optimal Brain Damage."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class OBD(Declaration):
    """Optimal Brain Damage: a diagonal second-order saliency.

    Args:
        curvature: `ggn_diagonal`, the exact diagonal of the Gauss-Newton matrix (one backward pass
            an output), or `empirical_fisher`, the mean of squared per-sample gradients.
    """

    kind: Literal["obd"] = "obd"
    curvature: Literal["ggn_diagonal", "empirical_fisher"] = "ggn_diagonal"

    about = About(
        title="Optimal Brain Damage",
        summary="Predicted increase of the loss when one weight is set to zero, with the curvature "
        "taken as diagonal and the gradient as zero.",
        formula="s_q = 1/2 h_qq w_q^2",
        paper="LeCun, Denker, Solla 1989, eq. 5",
        unit="loss",
        needs=("labels", "gradients"),
        cost_formula="bytes: 8 W; operations: 6 N C M (ggn_diagonal) or 6 N M (empirical_fisher), "
        "N samples, C outputs, M multiply-adds a sample",
    )

    def price(self, size: Size) -> Cost:
        """One backward pass an output (Gauss-Newton) or one in all (Fisher)."""
        passes = size.outputs if self.curvature == "ggn_diagonal" else 1
        return Cost(bytes=8 * size.weights, flops=6 * size.samples * passes * size.macs)

"""Declaration of GraSP pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class GraSP(Declaration):
    """Gradient signal preservation."""

    kind: Literal["grasp"] = "grasp"

    about = About(
        title="GraSP",
        summary="Half of what the squared norm of the gradient loses, to first order, when the "
        "weight is set to zero; may be negative. The paper states the negative of it "
        "and removes the largest. H is the exact Hessian of the mean loss over the "
        "weights left, never formed; made for networks at initialisation.",
        formula="s_q = w_q [H g]_q",
        paper="Wang, Zhang, Grosse 2020, eq. 8",
        unit="score",
        needs=("labels", "gradients"),
        cost_formula="bytes: 40 W; operations: 18 N M, N samples, M multiply-adds a sample",
    )

    def price(self, size: Size) -> Cost:
        """A gradient, then a Hessian-vector product of twice its cost."""
        return Cost(bytes=40 * size.weights, flops=18 * size.samples * size.macs)

"""Declaration of magnitude pruning, the baseline."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class Magnitude(Declaration):
    """Remove the smallest weights."""

    kind: Literal["magnitude"] = "magnitude"

    about = About(
        title="Magnitude",
        summary="The absolute value of the weight. The baseline everything is measured against.",
        formula="s_q = |w_q|",
        paper="Janowsky 1989; Han et al. 2015",
        unit="score",
        needs=(),
        cost_formula="bytes: 4 W; time: one pass over the weights",
        scorings=1,
    )

    def price(self, size: Size) -> Cost:
        """One score a weight."""
        return Cost(bytes=4 * size.weights, flops=size.weights)

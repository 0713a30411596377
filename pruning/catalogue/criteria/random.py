"""Declaration of Random pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class Random(Declaration):
    """Remove weights at random: what any criterion must beat."""

    kind: Literal["random"] = "random"

    about = About(
        title="Random",
        summary="A uniform draw for each weight, by the seed of the spec; weights go in one "
        "order throughout a job. The control that any criterion must beat.",
        formula="s_q ~ U(0, 1)",
        paper="",
        unit="score",
        needs=(),
        cost_formula="bytes: 8 W; time: one draw a weight",
        scorings=1,
    )

    def price(self, size: Size) -> Cost:
        """One draw a weight."""
        return Cost(bytes=8 * size.weights, flops=size.weights)

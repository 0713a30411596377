"""Declaration of SynFlow pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class SynFlow(Declaration):
    """Synaptic flow; uses no data."""

    kind: Literal["synflow"] = "synflow"

    about = About(
        title="SynFlow",
        summary="Synaptic flow through the network of absolute values, fed with ones, in double "
        "precision; uses no data. Meant to be computed anew on the way down: the paper "
        "takes 100 steps (schedule one_shot has recomputations).",
        formula="s_q = (dR / d|w_q|) |w_q|, R = sum of the outputs of f(1; |w|)",
        paper="Tanaka et al. 2020, eq. 3",
        unit="score",
        needs=(),
        cost_formula="bytes: 16 P + 8 W; operations: 6 M, P parameters, M multiply-adds a sample",
    )

    def price(self, size: Size) -> Cost:
        """A float64 copy and its gradient; one forward and backward pass of one sample."""
        return Cost(
            bytes=16 * size.parameters + 8 * size.weights,
            flops=6 * size.macs,
        )

"""Declaration of First-order Taylor pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class Taylor(Declaration):
    """First-order Taylor expansion of the loss."""

    kind: Literal["taylor"] = "taylor"

    about = About(
        title="First-order Taylor",
        summary="The size of the first-order change of the loss when the weight is set to zero. "
        "It vanishes where the network is at a minimum, which is where the second-order "
        "criteria begin.",
        formula="s_q = |g_q w_q|",
        paper="Molchanov et al. 2017, eq. 7, for single weights",
        unit="score",
        needs=("labels", "gradients"),
        cost_formula="bytes: 24 W; operations: 6 N M, N samples, M multiply-adds a sample",
    )

    def price(self, size: Size) -> Cost:
        """One forward and one backward pass over the data."""
        return Cost(bytes=24 * size.weights, flops=6 * size.samples * size.macs)

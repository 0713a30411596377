"""Declaration of SNIP pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class SNIP(Declaration):
    """Connection sensitivity."""

    kind: Literal["snip"] = "snip"

    about = About(
        title="SNIP",
        summary="Connection sensitivity: the derivative of the loss in a gate on each weight, "
        "as a share of the sum over all weights left. The gradient is that of the whole "
        "calibration data, so the order is that of taylor; made for networks at "
        "initialisation.",
        formula="s_q = |g_q w_q| / sum_r |g_r w_r|",
        paper="Lee, Ajanthan, Torr 2019, eq. 6",
        unit="score",
        needs=("labels", "gradients"),
        cost_formula="bytes: 24 W; operations: 6 N M, N samples, M multiply-adds a sample",
    )

    def price(self, size: Size) -> Cost:
        """One forward and one backward pass over the data."""
        return Cost(bytes=24 * size.weights, flops=6 * size.samples * size.macs)

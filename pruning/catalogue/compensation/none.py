"""Declaration of pruning without compensation."""

from typing import Literal

from pruning.catalogue.about import About, Declaration, no_cost


class NoCompensation(Declaration):
    """Removed weights become zero; the others stay as they are."""

    kind: Literal["none"] = "none"

    about = About(
        title="None",
        summary="Removed weights become zero, the others stay as they are.",
        formula="dw_Q = -w_Q, dw_S = 0",
        paper="",
        unit="loss",
        needs=(),
        cost_formula="none",
    )
    price = no_cost

"""Declaration of the OBS update of the survivors."""

from typing import Literal

from pruning.catalogue.about import About, Declaration, no_cost


class OBSUpdate(Declaration):
    """All survivors move at once to make up for the whole removed set.

    Uses the curvature and damping of `criterion: obs`, with which alone it can be combined.
    """

    kind: Literal["obs"] = "obs"

    about = About(
        title="OBS update",
        summary="The minimum of the quadratic model over the survivors, given that the removed "
        "set is zero; for the set as a whole, not a sum of single deletions.",
        formula="dw = -[H^-1]_:Q ([H^-1]_QQ)^-1 w_Q, that is dw_S = H_SS^-1 H_SQ w_Q",
        paper="Hassibi and Stork 1992, eq. 5, for a set: Kurtic et al. 2022, eq. 5",
        unit="loss",
        needs=("labels", "gradients"),
        cost_formula="included in criterion obs",
    )
    price = no_cost

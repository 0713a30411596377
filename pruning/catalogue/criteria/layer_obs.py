"""Declaration of OBS on a layer's own output error."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.catalogue.about import About, Cost, Declaration, Size
from pruning.catalogue.compensation.layerwise import DAMPING


class LayerOBS(Declaration):
    """The saliency of Optimal Brain Surgeon with the Gram matrix of each layer's inputs.

    With `compensation: {kind: layerwise}` the solver chooses the mask, weight after weight or all
    at once, by what remains of it.

    Args:
        damping: Added to the diagonal of the Gram matrix before inverting, in units of its mean.
    """

    kind: Literal["layer_obs"] = "layer_obs"
    damping: Annotated[float, Field(ge=0, allow_inf_nan=False)] = DAMPING

    about = About(
        title="Layer-wise OBS",
        summary="The error of a layer's outputs when one weight is set to zero and the others of "
        "its row move to make up for it; in units of the squared output, not of the loss.",
        formula="s_q = w_q^2 / [H^-1]_qq, H = mean of x x' over the layer's inputs",
        paper="Hassibi and Stork 1992, eq. 5, by layer: Dong, Chen, Pan 2017, eq. 5",
        unit="score",
        needs=("inputs",),
        cost_formula="bytes: 32 d^2 for the widest layer's d inputs; operations: 2 N P d^2 + d^3 a "
        "layer, N samples, P positions",
        scorings=1,
    )

    def price(self, size: Size) -> Cost:
        """Gram matrices, with layers taken as square, and their inverses."""
        widest = max((d for _, _, d in size.layers), default=0)
        inverses = sum(g * d**3 for g, _, d in size.layers)
        gram = 4 * size.samples * size.macs
        return Cost(bytes=32 * widest**2 + 8 * size.weights, flops=gram + inverses)

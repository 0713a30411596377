"""Declaration of Optimal Brain Damage."""

from typing import Literal

from pydantic import Field, model_validator

from pruning.catalogue.about import About, Cost, Declaration, Size
from pruning.catalogue.curvature import DIAGONALS, diagonal_cost


class OBD(Declaration):
    """Optimal Brain Damage: a diagonal second-order saliency.

    Args:
        curvature: `ggn_diagonal`, the exact diagonal of the Gauss-Newton matrix (one backward pass
            an output); `ggn_mc`, the same estimated from drawn outcomes; `empirical_fisher`, the
            mean of squared per-sample gradients; `hessian_diagonal`, exact, for small networks;
            `hutchinson`, the same estimated with random signs; `second_backprop`, the
            back-propagation of second derivatives of the paper.
        samples: Outcomes drawn a sample by `ggn_mc`.
        probes: Products with the Hessian that `hutchinson` takes.
        second_derivatives: Whether `second_backprop` keeps the term with f'', which may make
            entries negative; without it, as the paper recommends, none is.
    """

    kind: Literal["obd"] = "obd"
    curvature: Literal[
        "ggn_diagonal",
        "ggn_mc",
        "empirical_fisher",
        "hessian_diagonal",
        "hutchinson",
        "second_backprop",
    ] = "ggn_diagonal"
    samples: int = Field(1, ge=1, le=10_000)
    probes: int = Field(100, ge=1, le=100_000)
    second_derivatives: bool = False

    about = About(
        title="Optimal Brain Damage",
        summary="Predicted increase of the loss when one weight is set to zero, with the curvature "
        "taken as diagonal and the gradient as zero.",
        formula="s_q = 1/2 h_qq w_q^2",
        paper="LeCun, Denker, Solla 1989, eq. 5",
        unit="loss",
        needs=("labels", "gradients"),
        cost_formula="bytes: 8 W and more; operations for N samples, C outputs, M multiply-adds a "
        "sample: "
        + ", ".join(
            f"{kind} {about.cost}" + (f" (at most {about.limit} weights)" if about.limit else "")
            for kind, about in DIAGONALS.items()
        ),
    )

    @model_validator(mode="after")
    def _parameters_are_of_the_curvature(self) -> "OBD":
        fields = type(self).model_fields
        for name, curvature in (
            ("samples", "ggn_mc"),
            ("probes", "hutchinson"),
            ("second_derivatives", "second_backprop"),
        ):
            if getattr(self, name) != fields[name].default and self.curvature != curvature:
                raise ValueError(
                    f"criterion.{name} is of curvature: {curvature}; curvature: {self.curvature} "
                    "would ignore it"
                )
        return self

    def price(self, size: Size) -> Cost:
        """Passes over the data that the diagonal takes."""
        return diagonal_cost(self.curvature, size, self.probes, self.samples)

"""Declaration of layer-wise pruning."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.catalogue.about import About, Cost, Declaration, Size

Solver = Literal["greedy", "sparsegpt", "admm", "least_squares"]

DAMPING = 0.01
"""Of the mean diagonal: what the literature on layer-wise pruning uses throughout."""


class Layerwise(Declaration):
    """Layer after layer, each solved for the least error of its own outputs.

    Args:
        solver: `admm` alternates between weights and mask and then solves for the survivors;
            `sparsegpt` goes through the columns once; `greedy` removes one weight of a row at a
            time by exact OBS; `least_squares` takes the mask from the criterion and solves for the
            survivors; `auto` is `admm`.
        effort: `high` refines the mask of `admm` by swaps, which takes longer.
        sequential: Whether each layer sees the inputs that the already pruned layers before it
            produce; else those of the dense network.
        aim: With `sequential`, what the layer's outputs are to match: those of the dense network
            (`dense`), also making up for how far the residual stream that they are added to lies
            from the dense network's (`stream`), or those of the layer's own dense weights on the
            inputs that it now sees (`layer`).
        damping: Added to the diagonal of the Gram matrix, in units of its mean. `auto` walks the
            network once for each value it tries, and takes the one whose pruned network has the
            lowest loss on a held-out share of the calibration data.
    """

    kind: Literal["layerwise"] = "layerwise"
    solver: Literal["auto", "greedy", "sparsegpt", "admm", "least_squares"] = "auto"
    effort: Literal["normal", "high"] = "normal"
    sequential: bool = True
    aim: Literal["layer", "dense", "stream"] = "stream"
    damping: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = DAMPING

    about = About(
        title="Layer-wise",
        summary="Each layer is pruned for the least error of its own outputs over the calibration "
        "data, the survivors moving to make up for what goes. Needs no labels and no gradients.",
        formula="min |X W - X A|^2 + damping |W - A|^2 over W with exactly k zeros; H = X'X",
        paper="Hassibi and Stork 1992 by layer: Frantar and Alistarh 2022 (greedy), Frantar and "
        "Alistarh 2023 (sparsegpt), Meng et al. 2024 (admm)",
        unit="score",
        needs=("inputs",),
        cost_formula="bytes: 40 d^2 for the widest layer's d inputs and 24 W of the largest layer; "
        "operations: 2 N P d^2 + 60 o d^2 a layer, N samples, P positions",
    )

    def resolve(self) -> Solver:
        """The solver that `auto` stands for."""
        return "admm" if self.solver == "auto" else self.solver

    @property
    def chooses(self) -> bool:
        """Whether the solver chooses the mask; else the criterion does."""
        return self.solver != "least_squares"

    def price(self, size: Size) -> Cost:
        """Gram matrices and solves, with layers taken as square."""
        most = max((40 * g * d * d + 24 * g * o * d for g, o, d in size.layers), default=0)
        solve = sum(60 * g * o * d * d for g, o, d in size.layers)
        return Cost(bytes=most, flops=8 * size.samples * size.macs + solve)

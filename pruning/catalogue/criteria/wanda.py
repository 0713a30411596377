"""Declaration of Wanda pruning."""

from typing import Literal

from pruning.catalogue.about import About, Cost, Declaration, Size


class Wanda(Declaration):
    """Weights and activations.

    Args:
        compare: `row` compares weights that lead to the same output, and takes the same share of
            each row; `allocation` compares them as the spec's allocation says.
    """

    kind: Literal["wanda"] = "wanda"
    compare: Literal["row", "allocation"] = "row"

    about = About(
        title="Wanda",
        summary="The weight times the norm of the input it meets. With compare: row the score "
        "is the weight's rank within its output row, as a share of that row, so that "
        "one threshold takes the same share of every row whatever the allocation, as "
        "the paper has it; compare: allocation leaves the product as it is. Padding (where "
        "attention_mask is zero, or behind the last label of causal_lm) counts for nothing.",
        formula="s_q = |w_q| |x_j(q)|_2, by rank in its row",
        paper="Sun, Liu, Bair, Kolter 2024, eq. 1; convolutions: their unfolded inputs",
        unit="score",
        needs=("inputs",),
        cost_formula="bytes: 40 W; operations: 4 N M, N samples, M multiply-adds a sample",
        scorings=1,
    )

    def price(self, size: Size) -> Cost:
        """One forward pass with the squares of what each layer sees; a sort."""
        return Cost(bytes=40 * size.weights, flops=4 * size.samples * size.macs)

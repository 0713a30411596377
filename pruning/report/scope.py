"""What of a model was in scope, as plans and reports say it. Torch-free."""

from typing import Literal

from pydantic import Field

from pruning.report.section import Section


class OutOfScope(Section):
    """Parameters that were not in scope."""

    name: str = Field(description="Path of the weight's layer, or of the weight.")
    kind: str = Field(description="Kind of the layer; `vectors` for all vectors together.")
    parameters: int = Field(description="Entries.")
    by: Literal["spec", "method", "kind"] = Field(
        description="`spec`: the spec excludes it. `method`: criterion, pattern or compensation "
        "can't prune it. `kind`: nothing prunes parameters of its kind."
    )
    reason: str = Field(description="Why, in words.")


class ScopeSection(Section):
    """Which share of the network the sparsity is of."""

    weights_in_scope: int = Field(description="Weights that could be removed.")
    weights: int = Field(
        description="Entries of all matrices, in scope or not: all parameters without the vectors."
    )
    parameters: int = Field(description="All parameters, tied ones once.")
    share: float = Field(description="weights_in_scope / weights.")
    removed_of_all: float | None = Field(
        default=None, description="Share of all `weights` that was removed; null in a plan."
    )
    left_out: list[OutOfScope] = Field(default=[], description="All that is not in scope, and why.")

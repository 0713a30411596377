"""How sparsity is shared among layers."""

from typing import Literal

from pydantic import Field

from pruning.spec.part import Part


class GlobalAllocation(Part):
    """One threshold for the whole network."""

    kind: Literal["global"] = "global"


class UniformAllocation(Part):
    """The same sparsity in every layer."""

    kind: Literal["uniform"] = "uniform"


class ERKAllocation(Part):
    """Erdős-Rényi-Kernel: a layer keeps a share in proportion to its dimensions' sum / product."""

    kind: Literal["erk"] = "erk"


class OWLAllocation(Part):
    """Layers with more outliers |w| |x| keep more.

    `threshold`: an outlier is this many times its layer's mean. `spread`: densities differ from
    each other by at most twice this.
    """

    kind: Literal["owl"] = "owl"
    threshold: float = Field(5.0, gt=1.0, allow_inf_nan=False)
    spread: float = Field(0.08, ge=0.0, le=0.5)


class SearchAllocation(Part):
    """The cheapest sparsities of all layers together for a budget, by dynamic programming.

    `budget`: what the target's share is a share of: the `weights` in scope, their `flops`
    (multiply-adds), or the `time` that each layer was measured to take, as far as it is in
    proportion to the weights kept.
    """

    kind: Literal["search"] = "search"
    budget: Literal["weights", "flops", "time"] = "weights"

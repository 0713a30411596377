"""Layer-wise pruning as a criterion's cut sees it: the survivors move later, layer after layer.

What a solver that leaves the choice to the criterion makes up for is `pruning.layerwise.step`.
"""

from pruning.solvers.none import compensate

__all__ = ["compensate"]

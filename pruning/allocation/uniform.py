"""The same sparsity in every layer."""

from pruning.allocation import Layers
from pruning.spec import UniformAllocation


def quotas(options: UniformAllocation, layers: Layers, target: int) -> list[float]:
    """The target in proportion to the sizes."""
    total = sum(layers.sizes)
    return [target * n / total for n in layers.sizes]

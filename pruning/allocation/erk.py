"""Erdős-Rényi-Kernel (Evci et al. 2020, after Mocanu et al. 2018): large layers are sparser.

The density of a layer is in proportion to (sum of its weight's dimensions) / (their product), at
most 1.
"""

from math import prod

from pruning.allocation import Layers
from pruning.allocation.density import scaled
from pruning.spec import ERKAllocation


def quotas(options: ERKAllocation, layers: Layers, target: int) -> list[float]:
    """Sizes times (1 - density)."""
    wishes = [sum(shape) / prod(shape) for shape in layers.shapes]
    sizes = layers.sizes
    densities = scaled(wishes, sizes, sum(sizes) - target)
    return [n * (1.0 - d) for n, d in zip(sizes, densities, strict=True)]

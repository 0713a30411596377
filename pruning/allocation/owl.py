"""Outlier-weighed layerwise sparsity (Yin et al. 2024): layers with more outliers keep more.

A layer's outlier share D is that of its weights with |w| |x| above M times the layer's mean. The
densities are D, spread over 2 lambda between its smallest and largest value, and shifted so that
they add up; here each weight matrix is a layer of its own.
"""

from pruning.allocation import Layers
from pruning.allocation.density import shifted
from pruning.spec import OWLAllocation


def quotas(options: OWLAllocation, layers: Layers, target: int) -> list[float]:
    """Sizes times (1 - density)."""
    found = layers.outliers(options.threshold)
    low, high = min(found), max(found)
    width = 2.0 * options.spread / (high - low) if high > low else 0.0
    wishes = [(d - low) * width for d in found]
    sizes = layers.sizes
    densities = shifted(wishes, sizes, sum(sizes) - target)
    return [n * (1.0 - d) for n, d in zip(sizes, densities, strict=True)]

"""Pruning layer by layer: what each layer is given to be solved on, and the walk through them.

`walk` goes through a network in the order in which its weights are used, with every layer
calibrated on the outputs of the already pruned layers before it.
"""

from pruning.layerwise.collected import Collected
from pruning.layerwise.walk import Layer, Options, Walk, walk

__all__ = ["Collected", "Layer", "Options", "Walk", "walk"]

"""What evidence is computed from."""

from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn

from pruning.curvature.losses import Loss
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData
from pruning.layers import FlatWeights, Prunable


@dataclass(frozen=True)
class View:
    """A network at its present weights, its data, and which weights are active.

    Args:
        network: The module with its weights in scope, W of them. Not to be changed; a criterion
            that wants to change it asks for `copy`.
        data: Calibration samples.
        loss: The loss of one sample.
        active: Flat positions of the weights not yet removed, ascending, shape [A].
        seed: The job's seed.
    """

    network: Network
    data: ArrayData
    loss: Loss
    active: Tensor
    seed: int = 0

    def copy(self) -> Network:
        """The network in float64, free to be changed; ties between its layers are kept."""
        module = deepcopy(self.network.module).double().eval()
        parameters = dict(module.named_parameters(remove_duplicate=False))
        layers = [
            Prunable(p.layer, p.kind, p.param, parameters[p.name], p.groups, p.aliases)
            for p in self.network.weights.layers
        ]
        return Network(module, FlatWeights(layers), cut_off=self.network.cut_off)


def layers_of(module: nn.Module, weights: FlatWeights) -> list[tuple[int, nn.Module]]:
    """Every layer that uses a weight in scope, once, with that weight's number."""
    by_name = dict(module.named_modules(remove_duplicate=False))
    found: dict[nn.Module, int] = {}
    for number, p in enumerate(weights.layers):
        for name in (p.layer, *p.aliases):
            if name in by_name:
                found.setdefault(by_name[name], number)
    return [(number, layer) for layer, number in found.items()]

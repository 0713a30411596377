"""All weights of a module that can be solved layer by layer.

More kinds than `pruning.layers` knows: transposed convolutions, the gates of recurrent layers and
the packed projections of attention are matrix problems too, while criteria over the whole network
do not describe them.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from pruning.errors import SecateurError
from pruning.layers import KINDS, Prunable

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def layer_weights(module: nn.Module) -> list[Prunable]:
    """The weights in module order, each tied parameter once; none that is also an embedding.

    Raises:
        SecateurError: `no_prunable_layers` if there is none.
    """
    found: dict[int, Prunable] = {}
    embedded = {
        id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
    }
    for name, layer in module.named_modules(remove_duplicate=False):
        for param in weight_names(layer):
            weight = getattr(layer, param)
            if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
                continue
            if id(weight) in embedded:
                continue
            known = found.get(id(weight))
            if known is None:
                groups = getattr(layer, "groups", 1)
                kind = next((k.__name__ for k in KINDS if isinstance(layer, k)), None)
                kind = kind or type(layer).__name__
                found[id(weight)] = Prunable(name, kind, param, weight, groups)
            elif name != known.layer:
                found[id(weight)] = replace(known, aliases=(*known.aliases, name))
    if not found:
        raise SecateurError(
            "no_prunable_layers",
            "The model has no linear, convolution, recurrent or attention layer with its own "
            "weights.",
            hint="Upload a model with such layers.",
        )
    return list(found.values())


def weight_names(layer: nn.Module) -> Iterator[str]:
    """The parameters of one module that are weight matrices."""
    if isinstance(layer, (*KINDS, *TRANSPOSED)):
        yield "weight"
    elif isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        yield from (n for n, p in layer.named_parameters(recurse=False) if p.ndim == 2)
    elif isinstance(layer, nn.MultiheadAttention):
        yield from (n for n in _ATTENTION if getattr(layer, n) is not None)

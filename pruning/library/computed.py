"""Weights that are no parameters of their layer but computed from other tensors at every call."""

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pruning.errors import SecateurError
from pruning.layers import weight_names

_SHOWN = 8


def check_computed(module: nn.Module) -> None:
    """Refuses weights that a hook or a parametrization makes out of other tensors.

    A mask over what is made would not outlive the next call, and one over what it is made from
    says nothing of the zeros in the result.

    Raises:
        SecateurError: `weights_computed`, naming the layers and the call that makes each weight a
            plain parameter again.
    """
    found = [
        (path, name, call)
        for path, layer in module.named_modules()
        for name, call in _computed(path, layer)
    ]
    if not found:
        return
    layers = [path or "the module" for path, _, _ in found]
    calls = dict.fromkeys(call for _, _, call in found)
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    raise SecateurError(
        "weights_computed",
        f"The weights of {', '.join(layers[:_SHOWN])}{more} are computed from other tensors at "
        "every call (a mask of torch.nn.utils.prune, weight_norm, spectral_norm or a "
        "parametrization).",
        where=found[0][0] or "module",
        hint=f"Make them plain parameters first: {'; '.join(list(calls)[:_SHOWN])}.",
    )


def _computed(path: str, layer: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of a layer's computed tensors, each with the call that makes it a parameter."""
    at = f"module.get_submodule({path!r})" if path else "module"
    hooked = set()
    for hook in layer._forward_pre_hooks.values():
        # These leave a result of autograd in the layer, which can't even be copied.
        if isinstance(hook, BasePruningMethod):
            hooked.add(hook._tensor_name)
            yield hook._tensor_name, f"torch.nn.utils.prune.remove({at}, {hook._tensor_name!r})"
        elif isinstance(hook, WeightNorm):
            hooked.add(hook.name)
            yield hook.name, f"torch.nn.utils.remove_weight_norm({at}, {hook.name!r})"
        elif isinstance(hook, SpectralNorm):
            hooked.add(hook.name)
            yield hook.name, f"torch.nn.utils.remove_spectral_norm({at}, {hook.name!r})"
    if parametrize.is_parametrized(layer):
        for name in _matrices(layer):
            hooked.add(name)
            yield name, f"torch.nn.utils.parametrize.remove_parametrizations({at}, {name!r})"
    for name in weight_names(layer):
        if name not in {*layer._parameters, *hooked} and getattr(layer, name, None) is not None:
            yield name, f"{at}.{name} = torch.nn.Parameter(...)"


def _matrices(layer: nn.Module) -> list[str]:
    """The parametrized tensors that could be pruned; a table of embeddings could not."""
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return []
    return [
        name
        for name in layer.parametrizations  # type: ignore[union-attr]
        if getattr(layer, name).ndim > 1
    ]

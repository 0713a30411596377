"""A module called with other tensors in place of its own."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def called_with(module: nn.Module, tensors: Mapping[str, Tensor], inputs: tuple[Any, ...]) -> Any:
    """The module's result with `tensors` in every place that holds what they stand for.

    torch.func's own ties take a module that is registered under two names for two places, and give
    it the wrong tensor back.

    Args:
        module: Has its own tensors again at the end.
        tensors: By path; a tied tensor under one of its paths.
        inputs: Of the call.
    """
    places: dict[int, list[str]] = defaultdict(list)
    known: dict[str, int] = {}
    seen = set()
    for path, part in module.named_modules(remove_duplicate=False):
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            place = f"{path}.{name}" if path else name
            known[place] = id(tensor)
            if id(part) not in seen:
                places[id(tensor)].append(place)
        seen.add(id(part))
    everywhere = {place: value for path, value in tensors.items() for place in places[known[path]]}
    return functional_call(module, everywhere, inputs, tie_weights=False)

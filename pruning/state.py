"""The numbers that a network keeps: what `state_dict` holds of it, whatever a module makes of that.

A module may add objects to its state_dict (`get_extra_state`), rename or drop entries in hooks, or
replace the method. What a job keeps and puts back are the tensors alone, by their paths.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by path, a shared one under each; not copied.

    Args:
        module: The network.
    """
    found = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None and name not in part._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = tensor.detach()
    return found


@torch.no_grad()
def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the numbers of `state_of` into a module, in place.

    Args:
        module: The network.
        state: Has every path of the module's own, with tensors of the same shape.
    """
    for path, tensor in state_of(module).items():
        tensor.copy_(state[path])

"""The earlier checkpoint that a caller gives to schedules that go back to it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _EXTRA_STATE_KEY_SUFFIX as _EXTRA

from pruning.errors import SecateurError
from pruning.schedule.earlier import WHERE
from pruning.state import state_of

_WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DataParallel put before every name."""


def earlier_state(given: Any, module: nn.Module) -> dict[str, Tensor] | None:
    """A state_dict by the names of the module, wrappers' prefixes taken off.

    Args:
        given: What the caller gave; None for nothing.
        module: Which it belongs to, wrappers taken off.

    Raises:
        SecateurError: `rewind_invalid` for what is no mapping of tensors.
    """
    if given is None:
        return None
    plain = isinstance(given, Mapping)
    if plain:
        # What a layer added to its state_dict by get_extra_state is no tensor of the network.
        given = {name: v for name, v in given.items() if not str(name).endswith(_EXTRA)}
    if not plain or not all(isinstance(value, Tensor) for value in given.values()):
        what = "hold values that are no tensors" if plain else f"are {type(given).__name__}"
        raise SecateurError(
            "rewind_invalid",
            f"The weights of the earlier checkpoint {what}; a state_dict was expected.",
            where=WHERE,
            hint="Pass module.state_dict() of the earlier checkpoint.",
        )
    found = {str(name): tensor.detach() for name, tensor in given.items()}
    own = state_of(module).keys()
    for prefix in _WRAPPERS:
        if found and all(name.startswith(prefix) for name in found) and not own & found.keys():
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found

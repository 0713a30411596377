"""Watching what torch computes, operation by operation."""

from torch.utils._python_dispatch import TorchDispatchMode


class Watching(TorchDispatchMode):
    """A mode that leaves torch's compiler alone.

    torch would import it, which takes a second and a half, only to tell it to skip the mode.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

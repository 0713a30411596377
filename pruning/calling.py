"""How a module takes its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Calling:
    """How a module takes its inputs.

    Args:
        keywords: Names of the inputs, in the data's order, where it takes them by name.
        copies: Whether it is given copies, since it works on its inputs in place.
    """

    keywords: tuple[str, ...] = ()
    copies: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is called as `module(*inputs)`."""
        return self == Calling()

    def of(self, call: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        """Call it.

        Args:
            call: The module.
            inputs: A batch, in the data's order.
        """
        if self.copies:
            inputs = tuple(x.clone() for x in inputs)
        if self.keywords:
            return call(**dict(zip(self.keywords, inputs, strict=True)))
        return call(*inputs)

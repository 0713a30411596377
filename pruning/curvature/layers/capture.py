"""Watches a forward pass for the functions that use a weight in scope."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from pruning.curvature.layers import conv, linear
from pruning.curvature.layers.call import Bound, Use

_Bind = Callable[[Any, tuple[Any, ...], dict[str, Any]], Bound]
KINDS: dict[Any, _Bind] = {f: kind.bind for kind in (linear, conv) for f in kind.FUNCTIONS}
"""How to read the arguments of each function that takes a weight."""


class Capture(TorchFunctionMode):
    """Records inputs and gradient edges of the calls that use a weight; results stay the same.

    Calls rather than modules are watched, so that a layer called twice, a weight in two layers and
    a weight used without calling its layer are all seen.

    Args:
        parameters: The weights to watch, by name; they need no gradients, and none is computed.

    Attributes:
        uses: The calls seen, in order.
        unknown: Weights that some other function took, with its name.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(weight): name for name, weight in parameters.items()}
        self.uses: list[Use] = []
        self.unknown: dict[str, str] = {}

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and record the call if one of its arguments is a watched weight."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        found = [
            self.names[id(t)]
            for t in _tensors((args, tuple(kwargs.values())))
            if id(t) in self.names
        ]
        if not found or not any(True for _ in _tensors(result)):
            return result
        bound = KINDS[func](func, args, kwargs) if func in KINDS else None
        if bound is None or len(found) > 1 or id(bound.weight) not in self.names:
            self.unknown.update(dict.fromkeys(found, getattr(func, "__name__", str(func))))
            return result
        if not result.requires_grad:
            # The first layer: nothing before it needs a gradient, but its output does.
            result = result + torch.zeros_like(result[..., :1]).requires_grad_()
        bound = replace(bound, inputs=bound.inputs.detach())
        self.uses.append(Use(found[0], bound, result.shape, get_gradient_edge(result)))
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)

"""LeCun's back-propagation of second derivatives (LeCun, Denker, Solla 1989, eq. 6 to 9).

With a = w x the net inputs of a layer and x' = f(a) its outputs, the diagonal of the second
derivatives goes backwards as h_a = f'(a)^2 h_x' [+ f''(a) dE/dx'] and h_x = sum_l w_l^2 h_a,l, and
a weight has h_w = sum x^2 h_a over its connections. Off-diagonal terms are dropped layer by layer;
without the f'' term (the Levenberg-Marquardt form) nothing is negative. It starts from the diagonal
of the loss's Hessian in the outputs. Operations without a rule in `pruning.curvature.second_rules`
are refused.
"""

from typing import Any

import torch
from torch import Tensor
from torch.func import grad
from torch.overrides import TorchFunctionMode

from pruning.curvature.losses import Loss, required
from pruning.curvature.matrix import Diagonal
from pruning.curvature.network import Network, first_output
from pruning.curvature.per_sample import ACTIVATION_BYTES
from pruning.curvature.second_rules import Call, Pair, check_place, rule_of
from pruning.curvature.whereabouts import named, watching
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError

BATCH = 128
"""Samples a pass, at most."""


_OUT_OF_PLACE = {
    "add_": torch.add,
    "__iadd__": torch.add,
    "sub_": torch.sub,
    "__isub__": torch.sub,
    "mul_": torch.mul,
    "__imul__": torch.mul,
    "relu_": torch.relu,
}
"""What stands in for operations that would overwrite a value that the tape still needs."""


class _Tape(TorchFunctionMode):
    """Records what happens to values that depend on weights in scope.

    Args:
        weights: By identity, the names of the weights.
        stack: The layers that are running.
    """

    def __init__(self, weights: dict[int, str], stack: list[Any]) -> None:
        super().__init__()
        self.weights, self.stack = weights, stack
        self.calls: list[Call] = []
        self._tracked: dict[int, Tensor] = {}

    def depends(self, value: Any) -> bool:
        """Whether a value is a weight in scope or made from one."""
        return isinstance(value, Tensor) and (
            id(value) in self.weights or id(value) in self._tracked
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("inplace"):
            # The same values; the tape needs the old ones.
            kwargs["inplace"] = False
        flat = [a for part in args for a in (part if isinstance(part, list | tuple) else [part])]
        depends = any(self.depends(a) for a in (*flat, *kwargs.values()))
        if not depends:
            return func(*args, **kwargs)
        func = _OUT_OF_PLACE.get(func.__name__, func)
        place, words = named(self.stack)
        call = Call(func, args, kwargs, place, words)
        check_place(call)
        result = func(*args, **kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        values = [r for r in results if isinstance(r, Tensor) and r.is_floating_point()]
        if not values or any(result is value for value in flat):
            return result
        rule_of(call)
        if len(values) != 1 or isinstance(result, tuple | list) or id(result) in self._tracked:
            raise call.refusal()
        call.output = result
        self._tracked[id(result)] = result
        self.calls.append(call)
        return result


def compute(
    network: Network,
    data: ArrayData,
    loss: Loss,
    active: Tensor,
    second_derivatives: bool = False,
) -> Diagonal:
    """The diagonal over the `active` flat positions, batches summed in float64.

    Args:
        network: The module with its weights in scope.
        data: Samples and targets.
        loss: The loss of one sample.
        active: Flat positions, ascending, shape [A].
        second_derivatives: Whether to keep the term f''(a) dE/dx'.

    Raises:
        SecateurError: `operator_unsupported` naming the operation and its layer.
    """
    weights = network.weights
    totals = [torch.zeros(n, dtype=torch.float64, device=weights.device) for n in weights.sizes]
    names = {id(p.weight): p.name for p in weights.layers}
    place = {p.name: total for p, total in zip(weights.layers, totals, strict=True)}
    inputs, _ = next(iter(data.batches(1, device=weights.device)))
    size = max(1, min(BATCH, ACTIVATION_BYTES // max(1, network.saved_bytes(inputs))))
    done = 0
    for inputs, target in data.batches(size, device=weights.device):
        with torch.no_grad():
            with watching(network.module) as stack, _Tape(names, stack) as tape:
                outputs = first_output(network.module(*inputs))
            plain = first_output(network.module(*inputs))
        if not torch.equal(plain, outputs):
            raise SecateurError(
                "operator_unsupported",
                "The module overwrites values in place that it uses again, so that second "
                "derivatives can't be passed back.",
                hint="Use curvature: ggn_diagonal or hutchinson, which take any operation.",
            )
        start = _start(loss, outputs, required(target, loss))
        for name, values in _backward(tape, outputs, start, second_derivatives).items():
            place[name] += values.flatten().double()
        done += len(inputs[0])
        network.progress(done, data.samples)
    return Diagonal(torch.cat(totals)[active] / data.samples)


def _start(loss: Loss, outputs: Tensor, target: Tensor) -> Pair:
    """Diagonal of the loss's Hessian in the outputs, and its gradient, sample by sample."""
    first = grad(lambda z: loss.samples(z, target).sum())(outputs)
    return loss.diagonal(outputs, target), first


def _backward(
    tape: _Tape, outputs: Tensor, start: Pair, second_derivatives: bool
) -> dict[str, Tensor]:
    known: dict[int, Pair] = {id(outputs): start}
    found: dict[str, Tensor] = {}
    for call in reversed(tape.calls):
        pair = known.pop(id(call.output), None)
        if pair is None:
            continue
        for value, (h, g) in rule_of(call)(call, pair, tape.depends, second_derivatives):
            name = tape.weights.get(id(value))
            if name is not None:
                found[name] = found[name] + h if name in found else h
            elif id(value) in known:
                known[id(value)] = (known[id(value)][0] + h, known[id(value)][1] + g)
            else:
                known[id(value)] = (h, g)
    return found

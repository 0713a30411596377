"""Keeps removed weights, and what an optimizer remembers of them, at zero."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.errors import SecateurError
from pruning.recovery.setting import At

CHUNK = 131_072
"""Entries at a time: torch widens a mask before it multiplies, which shall stay in the cache."""

WIDE = 4 << 20
"""Entries in all up to which masks are widened once instead, to 16 or 32 MiB at most."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Masking:
    """The removed positions of some parameters.

    One pass a step, over the gradients, is enough: where a weight and its moments are zero and its
    gradient is +0.0, a step of SGD, Adam and AdamW leaves zero, with momentum and weight decay too;
    its sign alone may change (AdamW with rate times decay above 1), which `end` takes back. `end`
    also makes sure of all that.

    Gradients are multiplied as integers, so that NaN and infinity become +0.0 as well. The masks
    are looked at, not copied, beyond `WIDE` entries: nothing of the size of the weights is added to
    the training of a large network.

    Args:
        masks: (parameter, keep mask of its shape: True = kept), each parameter once.
    """

    def __init__(self, masks: Iterable[tuple[nn.Parameter, Tensor]]) -> None:
        self._kept = [(parameter, kept.to(parameter.device)) for parameter, kept in masks]
        wide = sum(kept.numel() for _, kept in self._kept) <= WIDE
        self._factors = [
            kept.to(_BITS[parameter.element_size()]) if wide else kept.view(torch.int8)
            for parameter, kept in self._kept
        ]

    def begin(self) -> None:
        """Set removed weights to +0.0."""
        self.weights()

    def weights(self) -> None:
        """Set removed weights to +0.0."""
        for (parameter, _), factors in zip(self._kept, self._factors, strict=True):
            _clear(parameter.detach(), factors)

    def gradients(self, at: At) -> None:
        """Set the gradients of removed weights to +0.0."""
        for (parameter, _), factors in zip(self._kept, self._factors, strict=True):
            if parameter.grad is not None:
                _clear(parameter.grad, factors)

    def stepped(self, at: At) -> None:
        """Nothing is left to do."""

    @torch.no_grad()
    def end(self, optimizer: Optimizer) -> None:
        """Make sure that removed weights and their moments are zero, and set all signs to +.

        Raises:
            SecateurError: `mask_not_kept`, which would be an error of ours.
        """
        for number, (parameter, kept) in enumerate(self._kept):
            remembered = optimizer.state.get(parameter, {})
            values = {"weight": parameter, **remembered}
            for name, value in values.items():
                if not isinstance(value, Tensor) or value.shape != kept.shape:
                    continue
                wrong = _wrong(value, kept)
                if wrong:
                    raise SecateurError(
                        "mask_not_kept",
                        f"{wrong} removed entries of weight {number} {list(kept.shape)} have a "
                        f"{name} that is not zero after recovery.",
                        where="spec.recovery",
                        hint="Report this with the spec; another optimizer may do meanwhile.",
                    )
        self.weights()


def _clear(tensor: Tensor, factors: Tensor) -> None:
    """Set entries whose factor is 0, and not 1, to +0.0, in place."""
    bits = tensor.view(_BITS[tensor.element_size()])
    same = bits.dtype == factors.dtype
    if same or bits.is_cuda or not (bits.is_contiguous() and factors.is_contiguous()):
        bits.mul_(factors)
        return
    pieces = zip(bits.view(-1).split(CHUNK), factors.view(-1).split(CHUNK), strict=True)
    for part, factor in pieces:
        part.mul_(factor)


def _wrong(value: Tensor, kept: Tensor) -> int:
    """Entries that are not kept and not zero, counted piece by piece."""
    if not (value.is_contiguous() and kept.is_contiguous()):
        return int(value.ne(0).logical_and_(~kept).count_nonzero())
    pieces = zip(value.view(-1).split(8 * CHUNK), kept.view(-1).split(8 * CHUNK), strict=True)
    return sum(int(v.ne(0).logical_and_(~k).count_nonzero()) for v, k in pieces)

"""Second moments of a layer's inputs, streamed over batches.

H = 1/m sum u u' over the m columns u of the unfolded inputs, for each group. For a layer that shall
answer for a dense network's outputs while its own inputs come from the pruned one there is the
cross moment C = 1/m sum u v' of its columns u and the dense network's columns v, and for a layer
whose output is added to a stream that already differs by r the moment R = 1/m sum r u'.

Sums are kept in float64. The products of one batch are taken in float32 where its rounding can't
matter: they err by a few eps tr(H) at most, so where the damping that is added later, relative to
the mean of H's diagonal, exceeds 4 eps d, it is larger than that by far. Otherwise, and for inputs
in float64, products are float64 too.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pruning.curvature.layers.matrix import Part

ENTRIES = 1 << 23
"""Entries of unfolded inputs that are formed at a time."""


def product_dtype(inputs: torch.dtype, entries: int, damping: float) -> torch.dtype:
    """The dtype in which the products of a batch are taken, for columns of `entries` entries."""
    enough = damping >= 4 * torch.finfo(torch.float32).eps * entries
    return torch.float64 if inputs == torch.float64 or not enough else torch.float32


class Moments:
    """Sums over columns; the means are properties.

    Args:
        groups: g.
        entries: d, of one group.
        damping: Relative to the mean of H's diagonal, as the solver will use it.
        cross: Whether C is wanted.
    """

    def __init__(
        self, groups: int, entries: int, damping: float, cross: bool, device: torch.device
    ) -> None:
        self.damping, self.columns = damping, 0.0
        shape = (groups, entries, entries)
        self._gram = torch.zeros(shape, dtype=torch.float64, device=device)
        self._cross = torch.zeros_like(self._gram) if cross else None
        self._drift: dict[str, Tensor] = {}

    @property
    def gram(self) -> Tensor:
        """H [g, d, d]."""
        return self._gram / max(self.columns, 1.0)

    @property
    def cross(self) -> Tensor | None:
        """C [g, d, d], rows of the layer's own columns."""
        return None if self._cross is None else self._cross / max(self.columns, 1.0)

    def drift(self, name: str) -> Tensor | None:
        """R [g, o, d] of a layer; None where its output is not added to anything that differs."""
        found = self._drift.get(name)
        return None if found is None else found / max(self.columns, 1.0)

    def add(
        self,
        part: Part,
        dense: Part | None = None,
        real: Tensor | None = None,
        groups: slice = slice(None),
        streams: dict[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Add one use of the weight in one batch.

        Args:
            part: The use.
            dense: The same use in the dense network.
            real: Which of `part.places` count; all without it.
            groups: The groups of the weight that are used.
            streams: By layer what its output is added to, in the dense network and in this one.
        """
        entries = self._gram.shape[1]
        dtype = product_dtype(part.inputs.dtype, entries, self.damping)
        mask = None if real is None else part.seen(real)
        gram = self._gram[groups]
        for some in _slices(part):
            kept = None if mask is None else mask[some]
            own = _rows(part.unfold(part.inputs[some]), kept, dtype)
            gram += own.mT @ own
            share = len(gram) / len(self._gram)
            self.columns += own.shape[1] * share
            if dense is not None and self._cross is not None:
                other = _rows(dense.unfold(dense.inputs[some]), kept, dtype)
                self._cross[groups] += own.mT @ other
                del other
            for name, (there, here) in (streams or {}).items():
                assert part.fold is not None
                apart = there[some].to(dtype) - here[some].to(dtype)
                change = _rows(part.fold(apart), kept, dtype)
                product = (change.mT @ own).double()
                self._drift[name] = self._drift.get(name, 0.0) + product


def _slices(part: Part) -> Iterator[slice]:
    one = part.unfold(torch.empty_like(part.inputs[:1], device="meta")).numel()
    step = max(1, ENTRIES // max(one, 1))
    for start in range(0, len(part.inputs), step):
        yield slice(start, start + step)


def _rows(columns: Tensor, real: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[n, g, d, T] as [g, m, d] with the m columns that count."""
    rows = columns.permute(1, 0, 3, 2)
    if real is None:
        return rows.reshape(rows.shape[0], -1, rows.shape[3]).to(dtype)
    return rows[:, real].to(dtype)

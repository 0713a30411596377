"""Which calls use a weight in scope, whether as a whole or as some of its rows."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pruning.curvature.layers import matrix
from pruning.layerwise.passes import Call


@dataclass(frozen=True)
class Use:
    """One weight in one call.

    Args:
        name: Of the weight.
        index: Which of the call's weights it is.
        rows: The rows of the weight that the call uses, from and to; None for all.
    """

    name: str
    index: int
    rows: tuple[int, int] | None


class Watch:
    """Finds weights, and contiguous blocks of their rows, among the arguments of calls.

    Args:
        weights: By name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = dict(weights)
        self._names = {id(w): name for name, w in self.weights.items()}
        placed = sorted((w.data_ptr(), name) for name, w in self.weights.items() if w.numel())
        self._starts = [start for start, _ in placed]
        self._order = [name for _, name in placed]

    def uses(self, call: Call) -> list[Use]:
        """The uses of a call, in the order in which it applies them.

        Raises:
            ValueError: If one is of a part of a weight that is no block of outputs.
        """
        if call.func not in matrix.KNOWN:
            return []
        found = matrix.weights_of(call.func, call.args, call.kwargs)
        uses = []
        for index, weight in enumerate(found):
            name = self.name(weight)
            if name is None:
                continue
            rows = _rows(weight, self.weights[name])
            if rows is not None and matrix.inputs_first(call.func, index):
                raise ValueError("a part of the inputs")
            uses.append(Use(name, index, rows))
        return uses

    def name(self, tensor: Tensor) -> str | None:
        """The weight that a tensor is, or is a view of."""
        known = self._names.get(id(tensor))
        if known is not None or not tensor.numel():
            return known
        start = tensor.data_ptr()
        place = bisect_right(self._starts, start) - 1
        if place < 0:
            return None
        name = self._order[place]
        weight = self.weights[name]
        inside = start < weight.data_ptr() + weight.nbytes and tensor.device == weight.device
        return name if inside else None


def _rows(view: Tensor, weight: Tensor) -> tuple[int, int] | None:
    """Which rows of the weight a view of it holds.

    Raises:
        ValueError: If it is no block of whole rows.
    """
    if view.shape == weight.shape and view.stride() == weight.stride():
        return None
    row = weight[0].numel()
    start, rest = divmod((view.data_ptr() - weight.data_ptr()) // weight.element_size(), row)
    whole = view.shape[1:] == weight.shape[1:] and view.stride() == weight.stride()
    if rest or not whole:
        raise ValueError("neither a weight nor a block of its rows")
    return start, start + len(view)

"""Labels: what they are, told from their extremes or their names. Torch-free."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pruning.data.members import shown
from pruning.errors import SecateurError
from pruning.facts import TargetFact
from pruning.formats.limits import Limits

TARGET = "target"
IGNORED = -100
_LONGEST_NAME = 200
_INDEX_DIGITS = 9


def extremes(piece: np.ndarray, low: int, high: int) -> tuple[int, int]:
    """The least (at most 0) and the largest (at least -1) integer so far; floats leave both."""
    if piece.dtype.kind in "iu" and piece.size:
        return min(low, int(piece.min())), max(high, int(piece.max()))
    return low, high


def target_fact(dtype: np.dtype[Any], shape: Iterable[int], low: int, high: int) -> TargetFact:
    """Labels of a type and shape whose integers lie from `low` to `high`.

    Raises:
        SecateurError: `data_dtype` for bool, `target_invalid` for negative labels.
    """
    if dtype.kind == "b":
        raise SecateurError(
            "data_dtype", "Labels of type bool are not read.", where=TARGET,
            hint="Save class indices as integers from 0.",
        )  # fmt: skip
    if low < 0 and low != IGNORED:
        raise SecateurError(
            "target_invalid", f"The labels go down to {low}.", where=TARGET,
            hint=f"Class indices count from 0; {IGNORED} alone marks what does not count.",
        )  # fmt: skip
    sizes = list(shape)
    if not sizes:
        raise SecateurError(
            "data_shape", "The labels are a single number.", where=TARGET,
            hint="Give one for each sample: the first dimension counts the samples.",
        )  # fmt: skip
    classes = high + 1 if dtype.kind in "iu" else None
    return TargetFact(dtype=dtype.name, shape=sizes, classes=classes, ignored=low == IGNORED)


class Names:
    """Class names as they are met: names that are all whole numbers are indices themselves."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._found: set[str] = set()

    def add(self, name: str, where: str) -> None:
        """Takes note of one name.

        Raises:
            SecateurError: `target_invalid` for a name that is empty, too long or not printable,
                `data_too_large` for too many names.
        """
        if name in self._found:
            return
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise SecateurError(
                "target_invalid",
                f"The class name {shown(name)!r} is empty, too long or not printable.",
                where=where,
                hint=f"Class names have 1 to {_LONGEST_NAME} printable characters.",
            )
        if len(self._found) >= self._limits.classes:
            raise SecateurError(
                "data_too_large",
                f"There are more than {self._limits.classes} different class names.",
                where=where,
                hint="Give real-valued targets as numbers, not as texts.",
            )
        self._found.add(name)

    def indices(self) -> dict[str, int]:
        """The index of each name."""
        names = sorted(self._found)
        if names and all(_is_index(name) for name in names):
            return {name: int(name) for name in names}
        return {name: index for index, name in enumerate(names)}

    def fact(self, samples: int) -> TargetFact:
        """Labels of this many samples, one name each."""
        indices = self.indices()
        named = not all(_is_index(name) for name in indices)
        return TargetFact(
            dtype="int64",
            shape=[samples],
            classes=max(indices.values()) + 1,
            names=list(indices) if named else [],
        )


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= _INDEX_DIGITS

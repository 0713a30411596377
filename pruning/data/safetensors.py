"""Arrays in a safetensors file: by the names of the model's inputs, the labels as `target`.

The header is priced and checked by `pruning.formats.safetensors`; the numbers are read in bounded
pieces. Torch is imported by `load` alone.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.fit import BFLOAT16, non_finite, tensors
from pruning.data.labels import TARGET, extremes, target_fact
from pruning.data.members import check_dims, samples_of
from pruning.data.refusals import as_data, check_size, check_unpacked
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts, TensorFact
from pruning.formats.limits import Limits
from pruning.formats.safetensors import Entry, read_header

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData

_PIECE = 1 << 20
_HINT = (
    "Write it with safetensors.numpy.save_file({<input name>: array, ..., 'target': labels}, path)."
)


def check(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the file once, in pieces, and says what it holds; memory stays flat.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_names`, `data_shape`,
            `data_dtype`, `data_empty`, `data_non_finite`, `target_invalid`.
    """
    entries = _entries(path, limits or Limits())
    arrays, target = [], None
    for entry in entries:
        low, high = 0, -1
        for piece in _pieces(path, entry):
            low, high = extremes(piece, low, high)
        if entry.name == TARGET:
            target = target_fact(entry.dtype, entry.shape, low, high)
        else:
            shape: list[int | str] = list(entry.shape)
            arrays.append(TensorFact(name=entry.name, dtype=entry.dtype.name, shape=shape))
    if not arrays:
        raise SecateurError(
            "data_empty", "The file holds labels but no array for the model's input.", hint=_HINT
        )
    return DatasetFacts(
        format="safetensors",
        samples=samples_of({e.name: tuple(e.shape) for e in entries}),
        arrays=arrays,
        target=target,
        bytes=sum(entry.end - entry.start for entry in entries),
    )


def load(path: Path, model: ModelFacts, limits: Limits | None = None) -> "ArrayData":
    """The arrays as tensors; see `pruning.data.fit.tensors`.

    Raises:
        SecateurError: As `check`, and `data_names`, `data_shape`, `data_dtype` where the arrays do
            not fit the model.
    """
    arrays = {}
    for entry in _entries(path, limits or Limits()):
        flat, at = np.empty(math.prod(entry.shape), dtype=entry.dtype), 0
        for piece in _pieces(path, entry):
            flat[at : at + piece.size] = piece
            at += piece.size
        arrays[entry.name] = flat.reshape(entry.shape)
    return tensors(arrays, model)


def _entries(path: Path, limits: Limits) -> list[Entry]:
    """What the header lists, in the order of names, checked as data."""
    check_size(path, limits)
    with as_data():
        # How much data may be is said in bytes; the limit in numbers is one for models.
        wide = limits.model_copy(update={"parameters": limits.unpacked_bytes})
        found = read_header(path, wide).entries
    entries = [found[name] for name in sorted(found)]
    if not entries:
        raise SecateurError("data_empty", "The file holds no array.", hint=_HINT)
    if len(entries) > limits.arrays:
        raise SecateurError(
            "data_too_large", f"The file has {len(entries)} arrays; the limit is {limits.arrays}."
        )
    check_unpacked(sum(entry.end - entry.start for entry in entries), limits)
    for entry in entries:
        check_dims(entry.name, tuple(entry.shape), limits)
    samples_of({entry.name: tuple(entry.shape) for entry in entries})
    return entries


def _pieces(path: Path, entry: Entry) -> Iterator[np.ndarray]:
    """The numbers of an entry in file order, as 1-D arrays of bounded size, all finite."""
    left = entry.end - entry.start
    with path.open("rb") as file:
        file.seek(entry.start)
        while left:
            want = min(left, _PIECE)
            data = file.read(want)
            if len(data) < want:
                raise SecateurError(
                    "data_unreadable", f"The file ends inside {entry.name!r}.", where=entry.name
                )
            left -= want
            numbers = np.frombuffer(data, dtype=entry.dtype)
            real = entry.dtype.kind == "f" or entry.dtype == BFLOAT16
            if real and not np.isfinite(numbers).all():
                raise non_finite(entry.name)
            yield numbers

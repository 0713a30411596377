"""Compressed sparse rows: where each row's values begin, their columns, the values.

A tensor is the matrix [first dimension, all others]; one of fewer dimensions is a single row.
"""

import numpy as np

from pruning.formats.sparse.types import (
    ITEMSIZE,
    Arrays,
    Layout,
    Member,
    entries,
    refuse,
    smallest,
    unsigned,
)

MOST = 1024
"""Dense bytes that one stored byte may stand for, at most: about what deflate reaches.

Without it a few bytes could ask a reader for any amount of memory. A tensor that has less to store
is filled up with zeros (`pad`)."""

FREE = 1 << 16
"""Dense bytes that nothing has to stand for."""


def layout(kept: int, shape: tuple[int, ...], itemsize: int) -> Layout:
    """Members of a tensor with so many non-zero entries."""
    rows, columns = _matrix(shape)
    found = {
        "rows": Member(smallest(kept), rows + 1),
        "columns": Member(smallest(max(columns - 1, 0)), kept),
        "values": Member(unsigned(itemsize), kept),
    }
    lacking = (entries(shape) * itemsize - FREE) // MOST - sum(m.bytes for m in found.values())
    return found | {"pad": Member("U8", lacking)} if lacking > 0 else found


def encode(bits: np.ndarray, shape: tuple[int, ...]) -> Arrays:
    """The members' arrays, from flat bit patterns."""
    rows, columns = _matrix(shape)
    places = np.flatnonzero(bits)
    starts = np.searchsorted(places, np.arange(rows + 1) * columns)
    arrays = {"rows": starts, "columns": places % max(columns, 1), "values": bits[places]}
    wanted = layout(len(places), shape, bits.dtype.itemsize)
    if "pad" in wanted:
        arrays["pad"] = np.zeros(wanted["pad"].entries, np.uint8)
    return {
        role: array if role == "values" else array.astype(f"<u{ITEMSIZE[wanted[role].dtype]}")
        for role, array in arrays.items()
    }


def decode(arrays: Arrays, shape: tuple[int, ...]) -> np.ndarray:
    """Flat bit patterns.

    Raises:
        SecateurError: `unsupported_format` for places that are not those of a matrix.
    """
    rows, columns = _matrix(shape)
    values = arrays["values"]
    starts = arrays["rows"].astype(np.uint64)
    if starts[0] != 0 or starts[-1] != len(values) or bool((starts[1:] < starts[:-1]).any()):
        raise refuse("rows do not begin one after the other")
    # Below len(values) by now, so signed numbers hold them.
    signed = starts.astype(np.int64)
    counts = signed[1:] - signed[:-1]
    column = arrays["columns"].astype(np.int64)
    if len(column) and int(column.max()) >= columns:
        raise refuse("a column lies outside its row")
    places = np.repeat(np.arange(rows, dtype=np.int64) * columns, counts) + column
    if bool((places[1:] <= places[:-1]).any()):
        raise refuse("columns do not ascend")
    dense = np.zeros(entries(shape), values.dtype)
    dense[places] = values
    return dense


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        return 1, entries(shape)
    return shape[0], entries(shape[1:])

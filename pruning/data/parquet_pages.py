"""What a Parquet file will unpack to, told from its footer and the header of every page.

The footer may lie; what a decoder allocates follows the pages. So both are read here, with
budgets, before the decoder sees the file. Torch-free, and without pyarrow.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pruning.data.members import plain, shown
from pruning.data.refusals import check_ratio, check_unpacked
from pruning.data.thrift import DamagedError, Reader
from pruning.errors import SecateurError
from pruning.formats.limits import Limits

MAGIC = b"PAR1"
_LARGEST_PAGE = 32 << 20
_PAGES = 100_000
_COLUMNS = 4_096
_DEPTH = 32
_HEADER = 4 * 1024, 256 * 1024  # a page's header is looked for in so many bytes, then in so many
# Bytes of a value by the file's own types: boolean, int32, int64, int96, float, double, and of a
# text the number that leads to it; the texts themselves count with their pages.
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8, 6: 4}
_TEXT = 6
_REPEATED = 2
# Where a page's own header lies, by its type: data, dictionary, data of version 2.
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_HEADERS = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}
_ENCODING = {_DATA: 2, _DATA_2: 4}
_DELTA_BYTE_ARRAY = 7
_HINT = "Write it with pandas.DataFrame.to_parquet or pyarrow.parquet.write_table."


@dataclass(frozen=True)
class Chunk:
    """One column's part of one row group."""

    column: str
    start: int
    stop: int
    values: int
    leaf: "Leaf"


class Leaf(NamedTuple):
    """A column of the schema: bytes of a value, if texts, and if each row has just one value."""

    width: int
    text: bool
    flat: bool


class Price(NamedTuple):
    """What a file holds.

    Attributes:
        rows: Of all groups.
        values: Of all columns.
        densest: The most bytes a value that any page unpacks to.
        shared: Whether texts lie in a dictionary, so that many rows may have the same long one.
    """

    rows: int
    values: int
    densest: float
    shared: bool


class _Walked(NamedTuple):
    """What a column chunk unpacks to in bytes, its pages, and as in `Price`."""

    unpacked: int
    pages: int
    densest: float
    shared: bool


def price(path: Path, limits: Limits) -> Price:
    """What a file holds, once what it unpacks to is known to be within the limits.

    Raises:
        SecateurError: `data_unreadable` or `data_too_large`, with the column in `where`.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            rows, chunks = _footer(_read_footer(file, size, limits), size)
            if rows > limits.lines:
                raise _too_large(f"The file has {rows} rows; the limit is {limits.lines}.")
            walked: list[_Walked] = []
            pages = 0
            for chunk in chunks:
                walked.append(_walk(file, chunk, _PAGES - pages))
                pages += walked[-1].pages
        except DamagedError as error:
            raise unreadable(plain(error)) from None
        except (TypeError, LookupError, AttributeError, ValueError):
            # Fields that lack, or hold something else than the format has there.
            raise unreadable("its footer or a page header is not one") from None
    unpacked = sum(part.unpacked for part in walked)
    check_unpacked(unpacked, limits, "The columns unpack to")
    check_ratio(unpacked, size, limits, "The columns unpack")
    return Price(
        rows,
        sum(chunk.values for chunk in chunks),
        max((part.densest for part in walked), default=0.0),
        any(part.shared for part in walked),
    )


def _read_footer(file: BinaryIO, size: int, limits: Limits) -> bytes:
    if size < 12:
        raise DamagedError("it is too short to be one")
    file.seek(size - 8)
    tail = file.read(8)
    if tail[4:] != MAGIC:
        raise DamagedError("it does not end as a Parquet file does; it is cut short or encrypted")
    length = int.from_bytes(tail[:4], "little")
    if length > limits.header_bytes:
        raise _too_large(
            f"The footer has {length} bytes; the limit is {limits.header_bytes}.",
            "Write fewer columns, or larger row groups.",
        )
    if length + 12 > size:
        raise DamagedError("its footer is longer than the file")
    file.seek(size - 8 - length)
    return file.read(length)


def _footer(raw: bytes, size: int) -> tuple[int, list[Chunk]]:
    """Number of rows, and all column chunks."""
    meta = Reader(raw).structure()
    leaves = _leaves(meta[2])
    rows, groups = meta[3], meta.get(4, [])
    chunks: list[Chunk] = []
    for group in groups:
        if len(group[1]) != len(leaves):
            raise DamagedError("a row group lacks columns")
        chunks += [
            _chunk(column, leaf, group[3], size)
            for column, leaf in zip(group[1], leaves, strict=True)
        ]
    counted = [group[3] for group in groups]
    if rows < 0 or any(count < 0 for count in counted) or sum(counted) != rows:
        raise DamagedError("its rows do not add up")
    return rows, chunks


def _leaves(schema: list[dict[int, Any]]) -> list[Leaf]:
    """The leaves of the schema, in its order; depth and number are bounded."""
    if not schema or len(schema) > _COLUMNS:
        raise DamagedError(f"its schema has {len(schema)} elements")
    waiting = [int(schema[0].get(5, 0))]
    repeated = [False]
    leaves = []
    for element in schema[1:]:
        while waiting and not waiting[-1]:
            waiting.pop()
            repeated.pop()
        if not waiting:
            raise DamagedError("its schema has more elements than it says")
        waiting[-1] -= 1
        many = repeated[-1] or element.get(3) == _REPEATED
        children = int(element.get(5, 0))
        if children < 0 or len(waiting) > _DEPTH:
            raise SecateurError(
                "data_dtype",
                f"The column {shown(element[4].decode(errors='replace'))!r} is nested too deeply.",
                where=shown(element[4].decode(errors="replace")),
                hint="Columns are numbers, lists of numbers, or texts.",
            )
        if children:
            waiting.append(children)
            repeated.append(many)
        else:
            kind = element[1]
            if kind not in _WIDTHS and kind != 7:
                raise DamagedError(f"there is no type {kind}")
            # Of a fixed length: priced by it.
            width = max(1, int(element.get(2, 0))) if kind == 7 else _WIDTHS[kind]
            leaves.append(Leaf(width, kind == _TEXT, not many))
    if any(waiting):
        raise DamagedError("its schema has fewer elements than it says")
    return leaves


def _chunk(column: dict[int, Any], leaf: Leaf, rows: int, size: int) -> Chunk:
    if 1 in column or 8 in column or 9 in column:
        raise DamagedError("a column lies in another file or is encrypted")
    meta = column[3]
    name = shown(b".".join(meta[3][:1]).decode(errors="replace"))
    start = min(offset for offset in (meta.get(11), meta[9]) if offset)
    stop = start + meta[7]
    if meta[5] < 0 or meta[7] < 0 or start < 4 or stop > size:
        raise DamagedError(f"the column {name!r} lies outside the file")
    # An empty list, or none, is a value too.
    if meta[5] < rows or (leaf.flat and meta[5] != rows):
        raise DamagedError(f"the column {name!r} has {meta[5]} values in {rows} rows")
    return Chunk(name, start, stop, meta[5], leaf)


def _walk(file: BinaryIO, chunk: Chunk, most: int) -> _Walked:
    """All pages of a column chunk, read as a decoder would."""
    at, seen, pages, packed, densest, shared = chunk.start, 0, 0, 0, 0.0, False
    while at < chunk.stop and seen < chunk.values:
        pages += 1
        if pages > most:
            raise _too_large(f"The file has more than {_PAGES} pages.", "Write larger pages.")
        header, start = _page(file, at, chunk)
        unpacked, taken = header[2], header[3]
        if taken < 0 or start + taken > chunk.stop:
            raise DamagedError(f"a page of the column {chunk.column!r} is longer than its chunk")
        if not 0 <= unpacked <= _LARGEST_PAGE:
            raise _too_large(
                f"A page of the column {chunk.column!r} unpacks to {unpacked} bytes; the limit is "
                f"{_LARGEST_PAGE}.",
                "Write pages of the usual size, 1 MB.",
                chunk.column,
            )
        packed += unpacked
        values = _values(header, unpacked, chunk)
        if header[1] == _DICTIONARY:
            shared |= chunk.leaf.text
        else:
            seen += values
            densest = max(densest, unpacked / max(1, values))
        at = start + taken
    if seen != chunk.values:
        raise DamagedError(
            f"the column {chunk.column!r} has {seen} values where {chunk.values} are told"
        )
    return _Walked(max(packed, seen * chunk.leaf.width), pages, densest, shared)


def _values(header: dict[int, Any], unpacked: int, chunk: Chunk) -> int:
    """Values of a page, by the header that a decoder takes for its type; 0 of other types."""
    kind = header[1]
    if kind not in _HEADERS:
        return 0
    own = header[_HEADERS[kind]]
    values = int(own[1])
    if values < 0:
        raise DamagedError(f"a page of the column {chunk.column!r} has fewer values than none")
    # Values of a dictionary stand one after the other, a text behind its length.
    width = chunk.leaf.width
    if kind == _DICTIONARY and width > 1 and values * width > unpacked:
        raise DamagedError(f"a page of the column {chunk.column!r} has no room for its values")
    if kind in _ENCODING and own[_ENCODING[kind]] == _DELTA_BYTE_ARRAY:
        # A value may take all but nothing and be as long as those before it.
        raise SecateurError(
            "data_unreadable",
            f"The column {chunk.column!r} holds texts as what differs from the one before "
            "(DELTA_BYTE_ARRAY), which is not read.",
            where=chunk.column,
            hint=_HINT,
        )
    return values


def _page(file: BinaryIO, at: int, chunk: Chunk) -> tuple[dict[int, Any], int]:
    """The header of the page at a place, and where its bytes start."""
    for window in _HEADER:
        file.seek(at)
        reader = Reader(file.read(min(window, chunk.stop - at)))
        try:
            return reader.structure(), at + reader.at
        except DamagedError:
            if window == _HEADER[-1] or window >= chunk.stop - at:
                raise
    raise AssertionError


def unreadable(reason: str, where: str | None = None) -> SecateurError:
    """The error for a file that is damaged or no Parquet file."""
    return SecateurError(
        "data_unreadable", f"The Parquet file can't be read: {reason}.", where=where, hint=_HINT
    )


def _too_large(message: str, hint: str = "Upload fewer samples.", where: str | None = None):  # type: ignore[no-untyped-def]
    return SecateurError("data_too_large", message, where=where, hint=hint)

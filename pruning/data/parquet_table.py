"""A Parquet table, priced and then read some rows at a time, as arrays and texts. Torch-free."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning.data.fit import non_finite
from pruning.data.labels import TARGET, Names, target_fact
from pruning.data.members import plain, shown
from pruning.data.parquet_pages import price, unreadable
from pruning.data.refusals import check_ratio, check_size, check_unpacked
from pruning.data.text import held
from pruning.errors import SecateurError
from pruning.facts import TargetFact
from pruning.formats.limits import Limits

LABELS = ("label", TARGET)
TEXTS = ("text", "text_pair")
_BATCH_BYTES = 4 << 20
_TEXT_BYTES = 16 << 20  # of the longest texts; most batches have far less
_MOST_ROWS = 4_096
_PLACE = 8  # of a text that another row has too

# Read through a small buffer rather than mapped: a mapped file counts as memory once it is read.
_OPTIONS: dict[str, Any] = {
    "memory_map": False,
    "pre_buffer": False,
    "buffer_size": 1 << 20,
    "thrift_string_size_limit": 1 << 20,
    "thrift_container_size_limit": 1 << 20,
}


@dataclass
class Column:
    """What the rows of one column have in common.

    `dtype` is None for texts; `shape` is that of a row, None until one was read; `low` and `high`
    bound its whole numbers.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None = None
    low: int = 0
    high: int = -1

    @property
    def is_text(self) -> bool:
        """Whether its cells are texts."""
        return self.dtype is None


@dataclass
class Table:
    """The rows, and what the columns are.

    `batch` rows are read at a time; `shared` as in `parquet_pages.Price`; `text_bytes`,
    `held_bytes` (of memory, all rows together) and `longest` (characters) grow as texts are read;
    `names` are there where labels are texts.
    """

    path: Path
    rows: int
    columns: list[Column]
    limits: Limits
    batch: int
    shared: bool
    text_bytes: int = 0
    held_bytes: int = 0
    longest: int = 0
    names: Names | None = None

    @property
    def label(self) -> Column | None:
        """The column of labels."""
        return next((c for c in self.columns if c.name in LABELS), None)

    @property
    def texts(self) -> list[str]:
        """The columns of the texts themselves."""
        return [c.name for c in self.columns if c.is_text and c.name in TEXTS]

    @property
    def arrays(self) -> list[Column]:
        """The columns that are inputs."""
        return [c for c in self.columns if c.name not in LABELS and not c.is_text]

    @property
    def bytes(self) -> int:
        """Of all rows in memory."""
        numbers = (
            math.prod(c.shape or ()) * c.dtype.itemsize for c in self.columns if c.dtype is not None
        )
        return self.text_bytes + self.rows * sum(numbers)

    def target(self) -> TargetFact | None:
        """What the labels are."""
        label = self.label
        if label is None:
            return None
        if label.dtype is None:
            return self.names.fact(self.rows) if self.names else None
        return target_fact(label.dtype, (self.rows, *(label.shape or ())), label.low, label.high)

    def batches(self) -> Iterator[dict[str, Any]]:
        """Some rows at a time: a checked array, or a list of texts, by column."""
        import pyarrow.parquet as pq

        # A dictionary is read as one, and grows by every text of a row group that is in none.
        texts = [c.name for c in self.columns if c.is_text and self.shared]
        with _arrow(), pq.ParquetFile(self.path, **_OPTIONS, read_dictionary=texts) as file:
            for batch in file.iter_batches(self.batch, use_threads=False):
                yield {
                    c.name: self._strings(part, c.name) if c.is_text else _numbers(part, c)
                    for c, part in zip(self.columns, batch.columns, strict=True)
                }

    def _strings(self, array: Any, name: str) -> list[str]:
        """Texts; only the different ones are unpacked, once their lengths are known."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if array.null_count:
            raise _null(name)
        if pa.types.is_dictionary(array.type):
            used, where = np.unique(array.indices.to_numpy(), return_inverse=True)
            values = array.dictionary.take(pa.array(used))
        else:
            where, values = np.arange(len(array)), array
        lengths = pc.binary_length(values).to_numpy()
        if len(lengths) and lengths.max() > self.limits.line_bytes:
            raise SecateurError(
                "data_too_large",
                f"A text of the column {name!r} has {lengths.max()} bytes; the limit is "
                f"{self.limits.line_bytes}.",
                where=name,
                hint="Cut texts to what the model reads.",
            )
        self.text_bytes += int(lengths[where].sum())
        check_unpacked(self.text_bytes, self.limits, "The texts take")
        size = self.path.stat().st_size
        check_ratio(self.text_bytes, size, self.limits, "The texts unpack", where=name)
        found = values.to_pylist()
        self.held_bytes += sum(map(held, found)) + _PLACE * len(where)
        check_unpacked(self.held_bytes, self.limits, "The texts take")
        if name in TEXTS and not all(text.strip() for text in found):
            raise SecateurError(
                "data_unreadable", f"A text of the column {name!r} is empty.", where=name,
                hint="Leave out rows that say nothing.",
            )  # fmt: skip
        return [found[index] for index in where]


def open_table(path: Path, limits: Limits) -> Table:
    """The table with its columns known and priced; no row is read yet.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_empty`, `data_names`, `data_dtype`
            or `package_missing`.
    """
    check_size(path, limits)
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise SecateurError(
            "package_missing",
            "Parquet files need the package pyarrow, which is not installed here.",
            hint="pip install pyarrow, or give the data as .npz or .jsonl.",
        ) from None
    # pyarrow's own metadata objects end the process on some damage; its reader raises.
    rows, values, densest, shared = price(path, limits)
    with _arrow(), pq.ParquetFile(path, **_OPTIONS) as file:
        schema = file.schema_arrow
    columns = [_column(name, kind) for name, kind in zip(schema.names, schema.types, strict=True)]
    _check_columns([c.name for c in columns], columns, limits)
    if not rows:
        raise SecateurError("data_empty", "The table has no row.")
    # Texts differ in length: a batch of the longest ones must not be larger either.
    batch = max(1, min(_MOST_ROWS, _BATCH_BYTES // max(1, 8 * values // rows)))
    if any(c.is_text for c in columns):
        batch = max(1, min(batch, int(_TEXT_BYTES // max(1, densest))))
    names = Names(limits) if any(c.is_text and c.name in LABELS for c in columns) else None
    return Table(path, rows, columns, limits, batch, shared, names=names)


def _column(name: str, kind: Any) -> Column:
    import pyarrow as pa

    types = pa.types
    value, text = kind, types.is_string(kind) or types.is_large_string(kind)
    if text and name in (*TEXTS, *LABELS):
        return Column(name, None)
    while types.is_list(value) or types.is_large_list(value) or types.is_fixed_size_list(value):
        value = value.value_type
    if not (types.is_integer(value) or types.is_floating(value) or types.is_boolean(value)):
        raise SecateurError(
            "data_dtype",
            f"The column {shown(name)!r} has type {shown(str(kind))}.",
            where=shown(name),
            hint="Columns are numbers, lists of numbers of one length, or text, text_pair "
            "and label as texts.",
        )
    return Column(name, np.dtype(value.to_pandas_dtype()))


def _check_columns(names: list[str], columns: list[Column], limits: Limits) -> None:
    if len(names) > limits.arrays:
        raise SecateurError(
            "data_too_large", f"The table has {len(names)} columns; the limit is {limits.arrays}."
        )
    labels = [name for name in names if name in LABELS]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or len(labels) > 1:
        raise SecateurError(
            "data_names",
            "There are both a column label and a column target." if twice is None
            else f"Two columns are called {shown(twice)!r}.",
            where=shown(twice or TARGET),
            hint="Name each column after one input; labels are called target or label.",
        )  # fmt: skip
    others = [name for name in names if name not in labels]
    if not others:
        raise SecateurError("data_empty", "The table has no column besides the labels.")
    texts = [c.name for c in columns if c.is_text and c.name in TEXTS]
    if texts and ("text" not in texts or set(others) != set(texts)):
        odd = next((name for name in others if name not in texts), "text_pair")
        raise SecateurError(
            "data_names",
            f"Beside texts there is a column {shown(odd)!r}.",
            where=shown(odd),
            hint="A table of texts has the columns text, text_pair and label, the last two where "
            "there are any; leave out the others.",
        )


def _numbers(array: Any, column: Column) -> np.ndarray:
    """The rows as one array; every list must have the length of the first row's."""
    import pyarrow as pa

    name, shape = column.name, [len(array)]
    while pa.types.is_nested(array.type):
        if array.null_count:
            raise _null(name)
        if pa.types.is_fixed_size_list(array.type):
            length = array.type.list_size
        else:
            lengths = array.value_lengths().to_numpy()
            length = int(lengths[0]) if len(lengths) else 0
            if (lengths != length).any():
                raise _ragged(name)
        array = array.flatten()
        shape.append(length)
    if array.null_count:
        raise _null(name)
    values = array.to_numpy(zero_copy_only=False)
    row = tuple(shape[1:])
    if column.shape is None:
        column.shape = row
    if row != column.shape or len(values) != math.prod(shape):
        raise _ragged(name)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise non_finite(name)
    return np.asarray(values.reshape(shape))


def _null(name: str) -> SecateurError:
    return SecateurError(
        "data_unreadable",
        f"The column {shown(name)!r} has empty cells.",
        where=shown(name),
        hint="Fill them, or leave these rows out.",
    )


def _ragged(name: str) -> SecateurError:
    return SecateurError(
        "data_shape",
        f"The lists of the column {shown(name)!r} have different lengths.",
        where=shown(name),
        hint="Every sample needs the same shape.",
    )


@contextmanager
def _arrow() -> Iterator[None]:
    """Turns pyarrow's errors into ours."""
    import pyarrow as pa

    try:
        yield
    except SecateurError:
        raise
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise unreadable(plain(error)) from None

"""Parquet tables: a column for each input of the model, or texts; labels as `target` or `label`.

Numbers, and lists of one length, become arrays; a column `text` makes the rows texts, as in JSON
lines. The file is priced by `parquet_pages` before pyarrow opens it, and read some rows at a time.
Torch is imported by `load` alone.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.fit import tensors
from pruning.data.labels import TARGET, extremes
from pruning.data.parquet_pages import unreadable
from pruning.data.parquet_table import LABELS, TEXTS, Table, open_table
from pruning.data.refusals import check_unpacked
from pruning.data.text import Text, text_data
from pruning.facts import DatasetFacts, TensorFact
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData
    from pruning.formats.contract import Imported


def check(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the table once, some rows at a time, and says what it holds; memory stays flat.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_empty`, `data_names`,
            `data_dtype`, `data_shape`, `data_non_finite`, `target_invalid` or `package_missing`,
            with the column in `where`.
    """
    table = _scan(path, limits or Limits())
    return DatasetFacts(
        format="parquet",
        samples=table.rows,
        arrays=[
            TensorFact(name=c.name, dtype=str(c.dtype), shape=[table.rows, *(c.shape or ())])
            for c in table.arrays
        ],
        target=table.target(),
        bytes=table.bytes,
        text=bool(table.texts),
        pairs=len(table.texts) == 2,
        longest_text=table.longest if table.texts else None,
    )


def load(path: Path, imported: "Imported", limits: Limits | None = None) -> "ArrayData":
    """Columns, or texts tokenised, as tensors in the order and types of the model's inputs.

    Raises:
        SecateurError: As `check`, and `data_names`, `data_shape`, `data_dtype` where the data do
            not fit the model; see also `pruning.data.text.text_data`.
    """
    limits = limits or Limits()
    table = _scan(path, limits)
    table.text_bytes = table.held_bytes = 0
    arrays = {
        c.name: np.empty((table.rows, *(c.shape or ())), dtype=np.int64 if c.is_text else c.dtype)
        for c in table.columns
        if c.name not in TEXTS
    }
    indices = table.names.indices() if table.names else {}
    texts: list[Text] = []
    at = 0
    for batch in table.batches():
        rows = len(next(iter(batch.values())))
        for name, array in arrays.items():
            part = batch[name]
            array[at : at + rows] = [indices[v] for v in part] if isinstance(part, list) else part
        if len(table.texts) == 2:
            texts += zip(batch["text"], batch["text_pair"], strict=True)
        elif table.texts:
            texts += batch["text"]
        at += rows
    target = arrays.pop(table.label.name) if table.label else None
    if table.texts:
        return text_data(texts, target, imported, limits)
    if target is not None:
        arrays[TARGET] = target
    return tensors(arrays, imported.facts)


def _scan(path: Path, limits: Limits) -> Table:
    """Reads all rows for what they have in common."""
    table = open_table(path, limits)
    seen = 0
    for batch in table.batches():
        seen += len(next(iter(batch.values())))
        for column in table.columns:
            part = batch[column.name]
            if not isinstance(part, list):
                column.low, column.high = extremes(part, column.low, column.high)
            elif column.name in LABELS and table.names:
                for name in set(part):
                    table.names.add(name, column.name)
            else:
                table.longest = max(table.longest, *map(len, part))
    if seen != table.rows:
        raise unreadable(f"it has {seen} rows where {table.rows} are told")
    check_unpacked(table.bytes, limits, "The columns take")
    return table

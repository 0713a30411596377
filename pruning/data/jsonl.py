"""JSON lines: texts, or numbers by the names of the model's inputs, one sample a line.

A text line is `{"text": ..., "text_pair": ..., "label": ...}`, the last two where there are any;
a line of numbers is `{"<input name>": 1.5 or [[...], ...], ..., "label": ...}`. Labels are whole
numbers from 0 (classes), texts (classes by name), or other numbers or lists of numbers (targets).
Torch is imported by `load` alone.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.data.fit import tensors
from pruning.data.json_lines import HINT, Sample, samples, unreadable
from pruning.data.labels import TARGET, Names, extremes, target_fact
from pruning.data.members import shown
from pruning.data.refusals import check_size, check_unpacked
from pruning.data.text import Text, held, parts, text_data
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, TargetFact, TensorFact
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData
    from pruning.formats.contract import Imported


@dataclass
class _Column:
    """Numbers of one key over all lines: one shape, integers until a fraction appears."""

    shape: tuple[int, ...]
    real: bool = False
    low: int = 0
    high: int = -1

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64, as JSON has it, or int64."""
        return np.dtype(np.float64 if self.real else np.int64)


@dataclass
class _Seen:
    """What the lines so far have in common."""

    limits: Limits
    samples: int = 0
    bytes: int = 0
    held: int = 0
    longest: int = 0
    pairs: bool = False
    columns: dict[str, _Column] = field(default_factory=dict)
    label: _Column | Names | None = None

    def add(self, sample: Sample) -> None:
        """Takes one line in.

        Raises:
            SecateurError: `data_*` or `target_invalid` where it differs in kind from the first.
        """
        first = self.samples == 0
        self.samples += 1
        for part in parts(sample.text):
            self.bytes += len(part)
            self.held += held(part)
            self.longest = max(self.longest, len(part))
        if first:
            self.pairs = isinstance(sample.text, tuple)
            self.columns = {name: _Column(a.shape) for name, a in sample.arrays.items()}
            if sample.label is not None:
                named = isinstance(sample.label, str)
                self.label = Names(self.limits) if named else _Column(np.shape(sample.label))
        if (
            self.pairs != isinstance(sample.text, tuple)
            or sample.arrays.keys() != self.columns.keys()
        ):
            raise unreadable(sample.place, "it does not have the same fields as the first line")
        for name, array in sample.arrays.items():
            _take(self.columns[name], array, name, sample.place)
        self._label(sample)
        if not self.samples % 1024:
            self.check()

    def _label(self, sample: Sample) -> None:
        if (sample.label is None) != (self.label is None):
            raise SecateurError(
                "target_invalid",
                f"{sample.place.capitalize()}: some lines have a label and some have none.",
                where=sample.place,
                hint="Give every line a label, or none.",
            )
        if isinstance(self.label, Names) != isinstance(sample.label, str):
            raise SecateurError(
                "target_invalid",
                f"{sample.place.capitalize()}: some labels are texts and some are numbers.",
                where=sample.place,
                hint="Give all labels as class names, or all as numbers.",
            )
        if isinstance(self.label, Names):
            self.label.add(str(sample.label), sample.place)
        elif self.label is not None:
            _take(self.label, np.asarray(sample.label), "label", sample.place)

    def check(self) -> None:
        """Refuses samples that would take too much memory once they are loaded.

        Raises:
            SecateurError: `data_too_large`.
        """
        check_unpacked(self.total - self.bytes + self.held, self.limits, "The samples take")

    @property
    def total(self) -> int:
        """Bytes of all samples, those of texts as characters."""
        columns = [
            *self.columns.values(),
            *([self.label] if isinstance(self.label, _Column) else []),
        ]
        return self.bytes + sum(self.samples * math.prod(c.shape) * 8 for c in columns)

    def target(self) -> TargetFact | None:
        """What the labels are."""
        if isinstance(self.label, Names):
            return self.label.fact(self.samples)
        if self.label is None:
            return None
        c = self.label
        return target_fact(c.dtype, (self.samples, *c.shape), c.low, c.high)


def check(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the file once, a line at a time, and says what it holds; memory stays flat.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_empty`, `data_shape`,
            `data_dtype`, `data_non_finite`, `target_invalid`, with the line in `where`.
    """
    seen, text = _scan(path, limits or Limits())
    return DatasetFacts(
        format="jsonl",
        samples=seen.samples,
        arrays=[
            TensorFact(name=name, dtype=c.dtype.name, shape=[seen.samples, *c.shape])
            for name, c in seen.columns.items()
        ],
        target=seen.target(),
        bytes=seen.total,
        text=text,
        pairs=seen.pairs,
        longest_text=seen.longest if text else None,
    )


def load(path: Path, imported: "Imported", limits: Limits | None = None) -> "ArrayData":
    """Texts tokenised, or numbers, as tensors in the order and types of the model's inputs.

    Whole numbers become floating ones where the model takes these: JSON does not tell 1 from 1.0.

    Raises:
        SecateurError: As `check`, and `data_names`, `data_shape`, `data_dtype` where the data do
            not fit the model; see also `pruning.data.text.text_data`.
    """
    limits = limits or Limits()
    seen, text = _scan(path, limits)
    texts: list[Text] = []
    real = {f.name for f in imported.facts.inputs if f.dtype.startswith(("float", "bfloat"))}
    arrays = {
        name: np.empty((seen.samples, *c.shape), dtype=np.float64 if name in real else c.dtype)
        for name, c in seen.columns.items()
    }
    indices = seen.label.indices() if isinstance(seen.label, Names) else {}
    target = None
    if seen.label is not None:
        column = seen.label if isinstance(seen.label, _Column) else _Column(())
        target = np.empty((seen.samples, *column.shape), dtype=column.dtype)
    for row, sample in enumerate(samples(path, limits)):
        if sample.text is not None:
            texts.append(sample.text)
        for name, array in sample.arrays.items():
            arrays[name][row] = array
        if target is not None:
            label = sample.label
            target[row] = indices[label] if isinstance(label, str) else label
    if text:
        return text_data(texts, target, imported, limits)
    if target is not None:
        arrays[TARGET] = target
    return tensors(arrays, imported.facts)


def _scan(path: Path, limits: Limits) -> tuple[_Seen, bool]:
    """What all lines have in common, and whether they are texts."""
    check_size(path, limits)
    seen, text = _Seen(limits), False
    for sample in samples(path, limits):
        seen.add(sample)
        text = sample.text is not None
    if not seen.samples:
        raise SecateurError("data_empty", "The file holds no line.", hint=HINT)
    seen.check()
    return seen, text


def _take(column: _Column, array: np.ndarray, name: str, place: str) -> None:
    if array.shape != column.shape:
        raise SecateurError(
            "data_shape",
            f"{place.capitalize()}: {shown(name)!r} has shape {list(array.shape)}, on the first "
            f"line {list(column.shape)}.",
            where=place,
            hint="Every sample needs the same shape.",
        )
    column.real |= array.dtype.kind == "f"
    column.low, column.high = extremes(array, column.low, column.high)

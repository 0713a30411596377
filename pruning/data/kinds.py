"""Any dataset that is read: recognised by its content, then checked or loaded by its kind."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pruning.data.refusals import as_data
from pruning.facts import DatasetFacts
from pruning.formats.bundle import first_names
from pruning.formats.facts_limits import bounded
from pruning.formats.limits import Limits
from pruning.formats.magic import ACCEPTED_DATA, DATA, SAVE, unsupported
from pruning.formats.recognise import recognise

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData
    from pruning.formats.contract import Imported

_TAR = "a tar archive"
_ARRAYS = ("pruning.data.npz", "pruning.data.safetensors")
"""Kinds whose arrays are the inputs as they stand: all they need of a model are its facts."""


def check_dataset(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the whole dataset once, with flat memory, and gives its facts. Torch-free.

    Raises:
        SecateurError: `unsupported_format` naming what the file looks like, or the reader's error.
    """
    limits = limits or Limits()
    facts: DatasetFacts = _reader(Path(path), limits).check(Path(path), limits)
    return bounded(facts)


def load_dataset(path: Path, imported: "Imported", limits: Limits | None = None) -> "ArrayData":
    """The dataset as tensors, in the order and types of the model's inputs.

    Args:
        path: The file as uploaded.
        imported: The model: its facts, and for texts and images its tokenizer and preprocessing.
        limits: What may be large.

    Raises:
        SecateurError: As `check_dataset`, and `data_names`, `data_shape`, `data_dtype` where the
            data do not fit the model.
    """
    limits = limits or Limits()
    reader = _reader(Path(path), limits)
    model = imported.facts if reader.__name__ in _ARRAYS else imported
    data: ArrayData = reader.load(Path(path), model, limits)
    return data


def _reader(path: Path, limits: Limits) -> ModuleType:
    looks = recognise(path)
    if looks in DATA:
        return import_module(f"pruning.data.{looks}")
    if looks == _TAR:
        # A damaged archive is better told by its damage.
        with as_data():
            first_names(path, limits.members)
    raise unsupported(looks, ACCEPTED_DATA, SAVE)

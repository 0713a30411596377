"""The formats of models: which module reads which. Torch is imported by the readers alone."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.axes import Declared
from pruning.formats.limits import Limits
from pruning.formats.magic import ACCEPTED_MODELS, EXPORT, unsupported
from pruning.formats.recognise import recognise

if TYPE_CHECKING:
    from pruning.formats.contract import Imported

READERS = {
    "onnx": "pruning.formats.onnx",
    "onnx truncated": "pruning.formats.onnx",
    "pt2": "pruning.formats.pt2",
    "huggingface": "pruning.formats.huggingface",
    "architecture": "pruning.formats.architecture",
}
"""What `recognise` says to the module that reads it."""


def read_model(source: Path, limits: Limits, declared: Declared | None = None) -> "Imported":
    """The model in a file or folder, whatever format it is in.

    Args:
        source: The file or folder.
        limits: Sizes that are refused.
        declared: The axis of the samples by input, where the user says.

    Raises:
        SecateurError: `unsupported_format` with what is accepted, or the reader's own error.
    """
    kind = recognise(source)
    if kind not in READERS:
        raise unsupported(kind, ACCEPTED_MODELS, EXPORT)
    imported: Imported = import_module(READERS[kind]).read(source, limits, declared)
    files = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
    imported.facts.bytes = sum(path.stat().st_size for path in files)
    return imported

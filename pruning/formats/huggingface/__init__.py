"""Hugging Face folders: config.json, safetensors in one file or shards, tokenizer.json."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.axes import Declared
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from pruning.formats.huggingface.model import HuggingFaceModel

__all__ = ["is_folder", "read"]

_WEIGHTS = (".safetensors", ".safetensors.index.json", "pytorch_model.bin")


def is_folder(names: Iterable[str]) -> bool:
    """Whether files of these names, relative to their common folder, are such a model."""
    known = set(names)
    return "config.json" in known and any(n.endswith(_WEIGHTS) and "/" not in n for n in known)


def read(source: Path, limits: Limits, declared: Declared | None = None) -> "HuggingFaceModel":
    """The model in a folder, a .tar or a .zip.

    Raises:
        SecateurError: `unsupported_format` for a model type, an architecture or a setting that is
            not read; `model_unreadable`, `model_truncated`, `model_invalid`, `model_too_large` and
            `weights_non_finite` with the file, key or tensor in `where`.
    """
    from pruning.formats.huggingface.reading import read_folder

    return read_folder(source, limits, declared)

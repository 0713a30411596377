"""From an upload to facts: what the sandboxed child runs before an upload is `ready`."""

from pathlib import Path
from typing import TYPE_CHECKING

from pruning.axes import Declared
from pruning.data.kinds import check_dataset
from pruning.facts import ModelFacts
from pruning.formats.facts_limits import bounded
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.formats.sparse import packed_bytes

if TYPE_CHECKING:
    from pruning.formats.contract import Imported

__all__ = ["check_dataset", "check_model", "measure"]

MEASURED = 16 << 20
"""Bytes of an upload up to which it is found out what its sparse file takes. Of larger ones the
header, which is what bounds overstate, is no part to speak of."""


def check_model(
    path: Path, limits: Limits | None = None, declared: Declared | None = None
) -> ModelFacts:
    """Reads the whole model as a job would and gives its facts.

    Args:
        path: The file, or the folder of an upload of several.
        limits: Sizes that are refused; the defaults where left out.
        declared: The axis of the samples by input, where the user says.

    Raises:
        SecateurError: `unsupported_format` naming what the file looks like, or the reader's error,
            and what `bounded` raises.
    """
    imported = read_model(Path(path), limits or Limits(), declared)
    measure(imported)
    imported.facts.declared = dict(declared or {})
    return bounded(imported.facts)


def measure(imported: "Imported") -> None:
    """Enters into the facts what the sparse file of the upload takes, unless it is large."""
    facts, source = imported.facts, imported.source
    if facts.bytes is None or facts.bytes > MEASURED:
        return
    files = [p for p in source.rglob("*") if p.is_file()] if source.is_dir() else [source]
    facts.sparse_bytes = packed_bytes(files, imported.tensors())

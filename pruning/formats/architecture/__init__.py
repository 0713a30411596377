"""architecture.json, a declared network, with its weights: read, written back, and exported.

`export` writes one from a live nn.Module, on the machine of whoever has the module.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pruning.axes import Declared
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from pruning.formats.architecture.writing import ImportedArchitecture

__all__ = ["export", "read"]


def read(source: Path, limits: Limits, declared: Declared | None = None) -> "ImportedArchitecture":
    """See `reading.read_architecture`."""
    from pruning.formats.architecture.reading import read_architecture

    return read_architecture(source, limits, declared)


def __getattr__(name: str) -> object:
    if name == "export":
        from pruning.formats.architecture.exporting import export

        return export
    raise AttributeError(name)

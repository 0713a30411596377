"""The one place that calls torch.export.load, on an archive written here from checked parts."""

import logging
import tempfile
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pruning.errors import SecateurError
from pruning.formats.pt2.package import Package
from pruning.memory_errors import out_of_memory

_LOGGERS = ("torch.export", "torch._export", "torch.export.pt2_archive._package")


def load(package: Package) -> ExportedProgram:
    """The program of a package, on the CPU, loaded from a fresh archive that is deleted again.

    Raises:
        SecateurError: `model_invalid` where torch does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="pt2-") as folder:
        path = Path(folder) / "model.pt2"
        package.write(path, plain=True)
        levels = {name: logging.getLogger(name).level for name in _LOGGERS}
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return torch.export.load(path)  # noqa: TID251
        except Exception as error:  # torch's deserialiser raises whatever its parts do
            if out_of_memory(error):
                raise
            raise SecateurError(
                "model_invalid",
                f"torch can't load the program: {_innermost(error)}",
                hint="Check that torch.export.load reads the file, and save it again.",
            ) from error
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _innermost(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]

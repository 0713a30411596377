"""From an uploaded file to facts: what the sandboxed child runs before an upload is `ready`."""

from pathlib import Path

from pruning.data.npz import check_npz
from pruning.facts import DatasetFacts, ModelFacts
from pruning.formats.limits import Limits


def check_model(path: Path, limits: Limits | None = None) -> ModelFacts:
    """Reads the whole model as a job would and gives its facts.

    Raises:
        SecateurError: `unsupported_format` naming what the file looks like, or the reader's error.
    """
    from pruning.formats.onnx import read_onnx

    return read_onnx(Path(path), limits or Limits()).facts


def check_dataset(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the whole dataset once, with flat memory, and gives its facts.

    Raises:
        SecateurError: `unsupported_format` naming what the file looks like, or the reader's error.
    """
    return check_npz(Path(path), limits or Limits())

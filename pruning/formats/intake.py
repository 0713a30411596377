"""From an upload to facts: what the sandboxed child runs before an upload is `ready`."""

from pathlib import Path

from pruning.data.kinds import check_dataset
from pruning.facts import ModelFacts
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model

__all__ = ["check_dataset", "check_model"]


def check_model(path: Path, limits: Limits | None = None) -> ModelFacts:
    """Reads the whole model as a job would and gives its facts.

    Args:
        path: The file, or the folder of an upload of several.
        limits: Sizes that are refused; the defaults where left out.

    Raises:
        SecateurError: `unsupported_format` naming what the file looks like, or the reader's error.
    """
    return read_model(Path(path), limits or Limits()).facts

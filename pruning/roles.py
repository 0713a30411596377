"""The data files of a request as the roles they play in the job."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.data.batches import ArrayData, Data
from pruning.data.kinds import load_dataset
from pruning.errors import SecateurError
from pruning.formats.contract import Imported
from pruning.plan import HELD_OUT_SHARE
from pruning.request import RunRequest


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Puts the role in front of the place of an error, as the plan's errors have it."""
    try:
        yield
    except SecateurError as error:
        error.where = f"{where}.{error.where}" if error.where else where
        raise


def roles(imported: Imported, request: RunRequest, folder: Path, seed: int) -> Data:
    """All roles; without evaluation data a seeded share of the calibration data is held out.

    Args:
        imported: What the data are for.
        request: Names the files.
        folder: Of the job.
        seed: Of the spec.

    Raises:
        SecateurError: What the reader of a file raises, with its role.
    """
    given = {str(role): _read(role, imported, request, folder) for role in request.data}
    calibration, training = given["calibration"], given.get("training")
    if "evaluation" in given:
        return Data(calibration, training or calibration, given["evaluation"])
    if training is not None and training.same_as(calibration):
        # The held-out share must stay unseen, also where the same file is given for both.
        training = None
    data = Data.from_calibration(calibration, seed, HELD_OUT_SHARE)
    return Data(data.calibration, training or data.training, data.evaluation, held_out=True)


def evaluation(imported: Imported, request: RunRequest, folder: Path, seed: int) -> ArrayData:
    """The evaluation data alone, as `roles` has them; nothing else is read."""
    if "evaluation" in request.data:
        return _read("evaluation", imported, request, folder)
    calibration = _read("calibration", imported, request, folder)
    return Data.from_calibration(calibration, seed, HELD_OUT_SHARE).evaluation


def _read(role: str, imported: Imported, request: RunRequest, folder: Path) -> ArrayData:
    ref = next(ref for name, ref in request.data.items() if name == role)
    with placed(f"data.{role}"):
        return load_dataset(folder / ref.path, imported, request.limits)

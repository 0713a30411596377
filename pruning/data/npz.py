"""NumPy archives (.npz) read without NumPy's own loader: nothing is ever unpickled.

Every array is priced from its header before memory is taken, members are read in bounded pieces,
and what the header promises is all that is read. Torch is imported by `load` alone.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.archive import open_zip
from pruning.data.fit import non_finite, tensors
from pruning.data.labels import TARGET, extremes, target_fact
from pruning.data.members import SAVE, Member, members, plain, price, samples_of
from pruning.data.refusals import check_size
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts, TensorFact
from pruning.formats.limits import Limits
from pruning.formats.magic import ACCEPTED_DATA, unsupported
from pruning.formats.recognise import recognise

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData

_PIECE = 1024 * 1024
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


def read_npz(path: Path, limits: Limits | None = None) -> dict[str, np.ndarray]:
    """All arrays of the archive by name, in the machine's byte order and C order.

    Raises:
        SecateurError: `unsupported_format`, `data_unreadable`, `data_pickled`, `data_names`,
            `data_dtype`, `data_shape`, `data_empty`, `data_too_large`, `data_non_finite`.
    """
    with _opened(path, limits or Limits()) as (archive, members):
        return {member.name: _array(archive, member) for member in members}


def check(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Reads the archive once, in pieces, and says what it holds; memory stays flat.

    Raises:
        SecateurError: As `read_npz`, and `target_invalid` for negative labels.
    """
    with _opened(path, limits or Limits()) as (archive, members):
        arrays, target = [], None
        for member in members:
            low, high = _extremes(archive, member)
            fact = TensorFact(name=member.name, dtype=member.dtype.name, shape=list(member.shape))
            if member.name == TARGET:
                target = target_fact(member.dtype, member.shape, low, high)
            else:
                arrays.append(fact)
        if not arrays:
            raise SecateurError(
                "data_empty", "The archive holds labels but no array for the model's input.",
                hint=SAVE,
            )  # fmt: skip
        return DatasetFacts(
            format="npz",
            samples=samples_of({m.name: m.shape for m in members}),
            arrays=arrays,
            target=target,
            bytes=sum(m.nbytes for m in members),
        )


def load(path: Path, model: ModelFacts, limits: Limits | None = None) -> "ArrayData":
    """The arrays as tensors; see `pruning.data.fit.tensors`.

    Raises:
        SecateurError: As `read_npz`, and `data_names`, `data_shape`, `data_dtype` where the arrays
            do not fit the model.
    """
    return tensors(read_npz(path, limits), model)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    path = Path(path)
    check_size(path, limits)
    looks = recognise(path)
    if looks != "npz":
        raise unsupported(looks, ACCEPTED_DATA, SAVE)
    try:
        with open_zip(path) as archive:
            found = members(archive, limits)
            price(found, limits)
            yield archive, found
    except _DAMAGE as error:
        raise SecateurError(
            "data_unreadable",
            f"The archive is damaged or ends early ({plain(error)}).",
            hint="Check that the upload is complete, or write the archive again.",
        ) from None
    except (ValueError, UnicodeDecodeError, OverflowError) as error:
        raise SecateurError(
            "data_unreadable", f"The archive can't be read ({plain(error)}).", hint=SAVE
        ) from None


def _pieces(archive: zipfile.ZipFile, member: Member) -> Iterator[np.ndarray]:
    """The numbers of a member in file order, as 1-D arrays of bounded size, all finite."""
    left = member.nbytes
    with archive.open(member.info) as file:
        file.read(member.start)
        while left:
            data = bytearray()
            want = min(left, _PIECE)
            while len(data) < want:
                part = file.read(want - len(data))
                if not part:
                    raise EOFError(f"{member.name} ends early")
                data += part
            left -= want
            numbers = np.frombuffer(data, dtype=member.dtype)
            if member.dtype.kind == "f" and not np.isfinite(numbers).all():
                raise non_finite(member.name)
            yield numbers
        file.read(1)  # at the end of the member zipfile compares the checksum


def _array(archive: zipfile.ZipFile, member: Member) -> np.ndarray:
    flat = np.empty(math.prod(member.shape), dtype=member.dtype.newbyteorder("="))
    at = 0
    for piece in _pieces(archive, member):
        flat[at : at + piece.size] = piece
        at += piece.size
    if member.fortran:
        return np.ascontiguousarray(flat.reshape(member.shape[::-1]).T)
    return flat.reshape(member.shape)


def _extremes(archive: zipfile.ZipFile, member: Member) -> tuple[int, int]:
    low, high = 0, -1
    for piece in _pieces(archive, member):
        low, high = extremes(piece, low, high)
    return low, high

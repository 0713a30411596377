"""The arrays of an archive, known and priced from their headers before any is unpacked."""

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.data.refusals import check_ratio
from pruning.errors import SecateurError
from pruning.formats.limits import Limits

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
SAVE = "Write it with numpy.savez(path, <input name>=array, ..., target=labels)."
# NumPy refuses headers over 10,000 bytes, but only once it has read all that they announce.
_HEADER_BYTES = 16 * 1024


@dataclass(frozen=True)
class Member:
    """One array of an archive, known from its header alone."""

    name: str
    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the array once unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def members(archive: zipfile.ZipFile, limits: Limits) -> list[Member]:
    """Every array of the archive, in its order, with its header read and nothing unpacked.

    Raises:
        SecateurError: `data_*` for names, types, shapes and counts that are not read.
    """
    infos = archive.infolist()
    if not infos:
        raise SecateurError("data_empty", "The archive holds no array.", hint=SAVE)
    if len(infos) > limits.arrays:
        raise SecateurError(
            "data_too_large",
            f"The archive has {len(infos)} members; the limit is {limits.arrays}.",
        )
    found: dict[str, Member] = {}
    for info in infos:
        name = _array_name(info)
        if name in found:
            raise SecateurError(
                "data_names", f"Two arrays are called {name!r}.", where=name, hint=SAVE
            )
        found[name] = _header(archive, info, name, limits)
    samples_of({name: member.shape for name, member in found.items()})
    return list(found.values())


def check_dims(name: str, shape: tuple[int, ...], limits: Limits) -> None:
    """Refuses an array of too many axes.

    Raises:
        SecateurError: `data_shape`.
    """
    if len(shape) > limits.array_dims:
        raise SecateurError(
            "data_shape",
            f"The array {name!r} has {len(shape)} dimensions; at most {limits.array_dims} are "
            "read.",
            where=name,
            hint="The first dimension counts the samples.",
        )


def samples_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many samples arrays hold; a single number without axes is one for all of them.

    Raises:
        SecateurError: `data_shape` where they do not agree, `data_empty` where there is none.
    """
    counts = {name: shape[0] for name, shape in shapes.items() if shape}
    if len(set(counts.values())) > 1:
        raise SecateurError(
            "data_shape",
            "The arrays do not have the same number of samples (first dimension): "
            + ", ".join(f"{name} {count}" for name, count in counts.items()) + ".",
            hint="Samples come first in every array, whatever axis the model has them on. A value "
            "that all samples share is given as a number without axes, or once for each sample.",
        )  # fmt: skip
    if not counts:
        raise SecateurError(
            "data_shape", "The arrays have 0 dimensions; none has an axis of samples.",
            hint="The first dimension counts the samples.",
        )  # fmt: skip
    count = next(iter(counts.values()))
    if not count:
        raise SecateurError("data_empty", "The arrays hold no sample.")
    return count


def _array_name(info: zipfile.ZipInfo) -> str:
    # orig_filename still has the NUL that zipfile cuts names at.
    displayed = shown(info.orig_filename)
    if any(c in info.orig_filename for c in "/\\\0") or not info.filename.isprintable():
        raise SecateurError(
            "data_names",
            f"The archive member {displayed!r} is not a plain name.",
            where=displayed,
            hint="Array names may not hold path separators or control characters.",
        )
    if not info.filename.endswith(".npy") or info.filename == ".npy":
        raise SecateurError(
            "data_unreadable",
            f"The archive member {displayed!r} is not an array (.npy).",
            where=displayed,
            hint=SAVE,
        )
    if info.flag_bits & 0x1:
        raise SecateurError(
            "data_unreadable", f"The member {displayed!r} is encrypted.", where=displayed
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SecateurError(
            "data_unreadable",
            f"The member {displayed!r} is packed by a method other than deflate.",
            where=displayed,
            hint="Write it with numpy.savez or numpy.savez_compressed.",
        )
    return info.filename.removesuffix(".npy")


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, limits: Limits) -> Member:
    with archive.open(info) as file:
        head = io.BytesIO(file.read(_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        read = _HEADERS.get(version)
        shape, fortran, dtype = read(head) if read else ((), False, np.dtype("O"))
    except Exception as error:  # NumPy's header parser fails in a dozen ways on noise
        raise SecateurError(
            "data_unreadable",
            f"The header of the array {name!r} can't be read ({plain(error)}).",
            where=name,
            hint=SAVE,
        ) from None
    start = head.tell()
    if read is None:
        raise SecateurError(
            "data_unreadable",
            f"The array {name!r} has .npy version {version[0]}.{version[1]}.",
            where=name,
            hint="Save plain numeric arrays.",
        )
    if dtype.hasobject:
        raise SecateurError(
            "data_pickled",
            f"The array {name!r} holds Python objects, which are never unpickled.",
            where=name,
            hint="Save numeric arrays of one shape.",
        )
    if dtype.kind not in "fiub" or dtype.itemsize > 8 or dtype.itemsize < 1 or dtype.names:
        raise SecateurError(
            "data_dtype",
            f"The array {name!r} has type {dtype.name}.",
            where=name,
            hint="Types read here: float16/32/64, int8 to int64, uint8 to uint64, bool.",
        )
    check_dims(name, shape, limits)
    if any(isinstance(d, bool) or d < 0 for d in shape):
        raise SecateurError("data_unreadable", f"The array {name!r} has shape {shape}.", where=name)
    return Member(name, info, dtype, tuple(int(d) for d in shape), bool(fortran), start)


def price(members: list[Member], limits: Limits) -> None:
    """Refuses what would take too much memory, or holds more or less than its header says.

    Raises:
        SecateurError: `data_too_large`, `data_unreadable`.
    """
    total = sum(member.nbytes for member in members)
    if total > limits.unpacked_bytes:
        raise SecateurError(
            "data_too_large",
            f"The arrays unpack to {total} bytes; the limit is {limits.unpacked_bytes}.",
            hint="Upload fewer samples.",
        )
    check_ratio(total, sum(member.info.compress_size for member in members), limits)
    for member in members:
        packed, unpacked = member.info.compress_size, max(member.nbytes, member.info.file_size)
        check_ratio(
            unpacked, packed, limits, f"The array {member.name!r} unpacks", where=member.name
        )
        if member.info.file_size != member.start + member.nbytes:
            raise SecateurError(
                "data_unreadable",
                f"The array {member.name!r} should have {member.nbytes} bytes by its header; "
                f"the archive holds {member.info.file_size - member.start}.",
                where=member.name,
                hint="The file is damaged or ends early; write it again.",
            )


def shown(name: str) -> str:
    """A text from the file as it may appear in a message: printable and short."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 80 else clean[:77] + "..."


def plain(error: BaseException) -> str:
    """What an exception says, in one short line."""
    return shown(str(error).splitlines()[0] if str(error) else type(error).__name__)

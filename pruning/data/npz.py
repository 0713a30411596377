"""NumPy archives (.npz) read without NumPy's own loader: nothing is ever unpickled.

Every array is priced from its header before memory is taken, members are read in bounded pieces,
and what the header promises is all that is read. Torch is imported by `load` alone.
"""

import difflib
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.data.archive import open_zip
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts, TargetFact, TensorFact
from pruning.formats.limits import Limits
from pruning.formats.recognise import ACCEPTED_DATA, recognise

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData

TARGET = "target"
_PIECE = 1024 * 1024
_RATIO_FREE = 16 * 1024 * 1024  # members that unpack to less may be as compressible as they like
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_SAVE = "Write it with numpy.savez(path, <input name>=array, ..., target=labels)."


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


def read_npz(path: Path, limits: Limits | None = None) -> dict[str, np.ndarray]:
    """All arrays of the archive by name, in the machine's byte order and C order.

    Raises:
        SecateurError: `unsupported_format`, `data_unreadable`, `data_pickled`, `data_names`,
            `data_dtype`, `data_shape`, `data_empty`, `data_too_large`, `data_non_finite`.
    """
    with _opened(path, limits or Limits()) as (archive, members):
        return {member.name: _array(archive, member) for member in members}


def check_npz(path: Path, limits: Limits | None = None) -> DatasetFacts:
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
                target = _target_fact(member, low, high)
            else:
                arrays.append(fact)
        if not arrays:
            raise SecateurError(
                "data_empty", "The archive holds labels but no array for the model's input.",
                hint=_SAVE,
            )  # fmt: skip
        return DatasetFacts(
            format="npz",
            samples=members[0].shape[0],
            arrays=arrays,
            target=target,
            bytes=sum(m.nbytes for m in members),
        )


def load(path: Path, model: ModelFacts, limits: Limits | None = None) -> "ArrayData":
    """The arrays as tensors, ordered as the model's inputs and in the types the model computes in.

    Floating arrays are cast to the model's floating type (float32 for a float16 model, which
    computes in float32), integer arrays to its integer type where every value fits. Labels become
    int64, real-valued targets the model's floating type.

    Raises:
        SecateurError: As `read_npz`, and `data_names`, `data_shape`, `data_dtype` where the arrays
            do not fit the model.
    """
    import torch

    from pruning.data.batches import ArrayData

    arrays = read_npz(path, limits)
    wanted = {fact.name: fact for fact in model.inputs}
    target = arrays.pop(TARGET, None) if TARGET not in wanted else None
    _match_names(arrays, list(wanted))
    inputs = {}
    for name, fact in wanted.items():
        _match_shape(arrays[name], fact)
        inputs[name] = torch.from_numpy(_cast(arrays[name], fact))
    labels = None
    if target is not None:
        real = "float64" if model.inputs[0].dtype == "float64" else "float32"
        kind = np.dtype("int64") if target.dtype.kind in "iu" else np.dtype(real)
        labels = torch.from_numpy(_converted(target, kind, TARGET))
    return ArrayData(inputs=inputs, target=labels)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    path = Path(path)
    size = path.stat().st_size
    if size > limits.data_bytes:
        raise SecateurError(
            "data_too_large", f"The file has {size} bytes; the limit is {limits.data_bytes}."
        )
    looks = recognise(path)
    if looks != "npz":
        raise SecateurError(
            "unsupported_format",
            f"This looks like {looks.replace('onnx', 'an ONNX model')}; data are read from "
            f"{ACCEPTED_DATA}.",
            hint=_SAVE,
        )
    try:
        with open_zip(path) as archive:
            members = _members(archive, limits)
            _price(members, limits)
            yield archive, members
    except _DAMAGE as error:
        raise SecateurError(
            "data_unreadable",
            f"The archive is damaged or ends early ({_plain(error)}).",
            hint="Check that the upload is complete, or write the archive again.",
        ) from None
    except (ValueError, UnicodeDecodeError, OverflowError) as error:
        raise SecateurError(
            "data_unreadable", f"The archive can't be read ({_plain(error)}).", hint=_SAVE
        ) from None


def _members(archive: zipfile.ZipFile, limits: Limits) -> list[Member]:
    infos = archive.infolist()
    if not infos:
        raise SecateurError("data_empty", "The archive holds no array.", hint=_SAVE)
    if len(infos) > limits.arrays:
        raise SecateurError(
            "data_too_large",
            f"The archive has {len(infos)} members; the limit is {limits.arrays}.",
        )
    members: dict[str, Member] = {}
    for info in infos:
        name = _array_name(info)
        if name in members:
            raise SecateurError(
                "data_names", f"Two arrays are called {name!r}.", where=name, hint=_SAVE
            )
        members[name] = _header(archive, info, name, limits)
    samples = {name: member.shape[0] for name, member in members.items()}
    if len(set(samples.values())) > 1:
        raise SecateurError(
            "data_shape",
            "The arrays do not have the same number of samples (first dimension): "
            + ", ".join(f"{name} {count}" for name, count in samples.items()) + ".",
        )  # fmt: skip
    if not next(iter(samples.values())):
        raise SecateurError("data_empty", "The arrays hold no sample.")
    return list(members.values())


def _array_name(info: zipfile.ZipInfo) -> str:
    # orig_filename still has the NUL that zipfile cuts names at.
    shown = _shown(info.orig_filename)
    if any(c in info.orig_filename for c in "/\\\0") or not info.filename.isprintable():
        raise SecateurError(
            "data_names",
            f"The archive member {shown!r} is not a plain name.",
            where=shown,
            hint="Array names may not hold path separators or control characters.",
        )
    if not info.filename.endswith(".npy") or info.filename == ".npy":
        raise SecateurError(
            "data_unreadable",
            f"The archive member {shown!r} is not an array (.npy).",
            where=shown,
            hint=_SAVE,
        )
    if info.flag_bits & 0x1:
        raise SecateurError("data_unreadable", f"The member {shown!r} is encrypted.", where=shown)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SecateurError(
            "data_unreadable",
            f"The member {shown!r} is packed by a method other than deflate.",
            where=shown,
            hint="Write it with numpy.savez or numpy.savez_compressed.",
        )
    return info.filename.removesuffix(".npy")


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, limits: Limits) -> Member:
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = _HEADERS.get(version)
            shape, fortran, dtype = read(file) if read else ((), False, np.dtype("O"))
        except Exception as error:  # NumPy's header parser fails in a dozen ways on noise
            raise SecateurError(
                "data_unreadable",
                f"The header of the array {name!r} can't be read ({_plain(error)}).",
                where=name,
                hint=_SAVE,
            ) from None
        start = file.tell()
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
    if not shape or len(shape) > limits.array_dims:
        raise SecateurError(
            "data_shape",
            f"The array {name!r} has {len(shape)} dimensions; 1 to {limits.array_dims} are read.",
            where=name,
            hint="The first dimension counts the samples.",
        )
    if any(isinstance(d, bool) or d < 0 for d in shape):
        raise SecateurError("data_unreadable", f"The array {name!r} has shape {shape}.", where=name)
    return Member(name, info, dtype, tuple(int(d) for d in shape), bool(fortran), start)


def _price(members: list[Member], limits: Limits) -> None:
    total = sum(member.nbytes for member in members)
    if total > limits.unpacked_bytes:
        raise SecateurError(
            "data_too_large",
            f"The arrays unpack to {total} bytes; the limit is {limits.unpacked_bytes}.",
            hint="Upload fewer samples.",
        )
    for member in members:
        packed, unpacked = member.info.compress_size, max(member.nbytes, member.info.file_size)
        if unpacked > max(_RATIO_FREE, packed * limits.compression_ratio):
            raise SecateurError(
                "data_too_large",
                f"The array {member.name!r} unpacks to {unpacked} bytes from {packed}; more than "
                f"{limits.compression_ratio:g} to 1 is taken for a decompression bomb.",
                where=member.name,
                hint="Write it with numpy.savez, without compression.",
            )
        if member.info.file_size != member.start + member.nbytes:
            raise SecateurError(
                "data_unreadable",
                f"The array {member.name!r} should have {member.nbytes} bytes by its header; "
                f"the archive holds {member.info.file_size - member.start}.",
                where=member.name,
                hint="The file is damaged or ends early; write it again.",
            )


def _pieces(archive: zipfile.ZipFile, member: Member) -> Iterator[np.ndarray]:
    """The numbers of a member in file order, in 1-D arrays of bounded size, checked to be finite."""
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
                raise _non_finite(member.name)
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
        if member.dtype.kind in "iu":
            low, high = min(low, int(piece.min())), max(high, int(piece.max()))
    return low, high


def _target_fact(member: Member, low: int, high: int) -> TargetFact:
    if member.dtype.kind == "b":
        raise SecateurError(
            "data_dtype", "Labels of type bool are not read.", where=TARGET,
            hint="Save class indices as integers from 0.",
        )  # fmt: skip
    if low < 0:
        raise SecateurError(
            "target_invalid", f"The labels go down to {low}.", where=TARGET,
            hint="Class indices count from 0.",
        )  # fmt: skip
    classes = high + 1 if member.dtype.kind in "iu" else None
    return TargetFact(dtype=member.dtype.name, shape=list(member.shape), classes=classes)


def _match_names(arrays: dict[str, np.ndarray], wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if not missing and not extra:
        return
    close = {m: difflib.get_close_matches(m, extra, n=1, cutoff=0.5) for m in missing}
    if len(missing) == len(extra) == 1:
        close = {missing[0]: extra}
    renames = "; ".join(f"is {e[0]!r} meant to be {m!r}?" for m, e in close.items() if e)
    raise SecateurError(
        "data_names",
        f"The archive holds {_listed(arrays)}; the model's inputs are {_listed(wanted)}.",
        where=(missing or extra)[0],
        hint=(renames[:1].upper() + renames[1:] + " " if renames else "")
        + "Name each array after a model input; labels are called 'target'.",
        found=list(arrays),
        expected=wanted,
    )


def _match_shape(array: np.ndarray, fact: TensorFact) -> None:
    fits = array.ndim == len(fact.shape) and all(
        not isinstance(want, int) or have == want
        for have, want in zip(array.shape[1:], fact.shape[1:], strict=True)
    )
    if not fits:
        wanted = ["N", *fact.shape[1:]]
        raise SecateurError(
            "data_shape",
            f"The array {fact.name!r} has shape {list(array.shape)}; the model takes "
            f"[{', '.join(map(str, wanted))}], N samples.",
            where=fact.name,
        )


def _cast(array: np.ndarray, fact: TensorFact) -> np.ndarray:
    want = np.dtype("float32" if fact.dtype == "float16" else fact.dtype)
    same_kind = array.dtype.kind == want.kind or {array.dtype.kind, want.kind} <= set("iu")
    if not same_kind:
        raise SecateurError(
            "data_dtype",
            f"The array {fact.name!r} has type {array.dtype.name}; the model takes {fact.dtype}.",
            where=fact.name,
            hint=f"Convert it with array.astype(numpy.{fact.dtype}), scaled as in training.",
        )
    return _converted(array, want, fact.name)


def _converted(array: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise _non_finite(name)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise SecateurError(
            "data_dtype", f"The array {name!r} has values that {dtype.name} can't hold.", where=name
        )
    return cast


def _non_finite(name: str) -> SecateurError:
    return SecateurError(
        "data_non_finite",
        f"The array {name!r} holds NaN or infinity.",
        where=name,
        hint="Remove or repair these samples.",
    )


def _listed(names: Any) -> str:
    shown = [repr(_shown(name)) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _shown(name: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 80 else clean[:77] + "..."


def _plain(error: BaseException) -> str:
    return _shown(str(error).splitlines()[0] if str(error) else type(error).__name__)

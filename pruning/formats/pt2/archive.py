"""The zip container of a .pt2 file: our own reader of stored members, and a canonical writer.

torch's reader and Python's are lenient (comments, prefixes, duplicates, disagreeing headers); here
every byte of the directory has one meaning or the file is refused. Members are read one at a time,
so that memory holds no more than the one asked for.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pruning.errors import SecateurError
from pruning.formats.limits import Limits

HINT = "Save the exported program again with torch.export.save of torch 2.11 or newer."
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DIRECTORY_BYTES = 8 * 1024 * 1024
_ENCRYPTED, _DESCRIPTOR = 0x1, 0x8
_FLAGS = _DESCRIPTOR | 0x800
_PREFIX = re.compile(r"[^/\\\x00-\x1f]{1,255}")
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id"
    r"|\.format_version|\.storage_alignment"
    r"|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d{1,6}|model_weights_config\.json)"
    r"|data/constants/(tensor_\d{1,6}|model_constants_config\.json)"
    r"|extra/[\w\- ][\w\-. ]{0,100}"
)
_PICKLED = re.compile(
    r"data/constants/(custom_obj|opaque_obj)_\d+|data/(weights|constants)/[^/]+\.pt"
)


@dataclass(frozen=True)
class Member:
    """A stored member: where its bytes lie in the file, and their checksum."""

    name: str
    start: int
    size: int
    crc: int


class Archive:
    """The members of a .pt2 file by their names below the archive's own folder."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        size = path.stat().st_size
        if size > limits.model_bytes:
            raise SecateurError(
                "model_too_large", f"The file has {size} bytes, over {limits.model_bytes}."
            )
        with path.open("rb") as file:
            self.members = _named(_Directory(file, size, limits).members())

    def read(self, name: str, at_most: int | None = None) -> bytes:
        """The bytes of a member.

        Raises:
            SecateurError: `model_invalid` where there is no such member, `model_too_large` where
                it is longer than `at_most`, `model_unreadable` where its checksum differs.
        """
        member = self.members.get(name)
        if member is None:
            raise SecateurError(
                "model_invalid", f"The archive has no member {name}.", where=name, hint=HINT
            )
        if at_most is not None and member.size > at_most:
            raise SecateurError(
                "model_too_large", f"{name} has {member.size} bytes, over {at_most}.", where=name
            )
        with self.path.open("rb") as file:
            file.seek(member.start)
            data = file.read(member.size)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise _unreadable(f"the checksum of {name} does not match its bytes")
        return data


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Writes an archive: stored members in the order given, fixed times, data at 64 bytes.

    The same members give the same bytes.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(f"model/{name}", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            start = archive.start_dir + _LOCAL.size + len(info.filename)
            # An extra field of its own kind (FB) moves the data to a multiple of 64, as torch does.
            info.extra = struct.pack("<2sH", b"FB", gap := (-start - 4) % 64) + bytes(gap)
            archive.writestr(info, data)


class _Directory:
    """The central directory, and the local headers it points to."""

    def __init__(self, file: BinaryIO, size: int, limits: Limits) -> None:
        self.file, self.size = file, size
        self.most = 2 * limits.tensors + 100

    def members(self) -> list[Member]:
        count, length, offset, end = self._end()
        if count > self.most:
            raise SecateurError(
                "model_too_large", f"The archive has {count} members, over {self.most}."
            )
        if length > _DIRECTORY_BYTES or offset + length != end:
            raise _unreadable("its directory does not lie where it is said to lie")
        table = self._at(offset, length)
        places, names, at = [], set(), 0
        for _ in range(count):
            if at + _CENTRAL.size > length:
                raise _unreadable("its directory ends early")
            named, extra, comment = _CENTRAL.unpack_from(table, at)[10:13]
            places.append(at)
            names.add(_decode(table[at + _CENTRAL.size : at + _CENTRAL.size + named]))
            at += _CENTRAL.size + named + extra + comment
        if at != length:
            raise _unreadable("its directory holds more than its members")
        _refuse_other_kinds(names)
        found = [self._member(table, at, offset) for at in places]
        found.sort(key=lambda entry: entry[0])
        before = 0
        for start, stop, member in found:
            if start < before:
                raise _unreadable(f"the member {member.name!r} overlaps another")
            before = stop
        return [member for _, _, member in found]

    def _end(self) -> tuple[int, int, int, int]:
        """Number of members, length and offset of the directory, and where the ends begin."""
        if self.size < _END.size:
            raise _truncated()
        at = self.size - _END.size
        mark, disk, first, here, count, length, offset, comment = _END.unpack(
            self._at(at, _END.size)
        )
        if mark != b"PK\x05\x06" or comment:
            raise _truncated()
        if disk or first or here != count:
            raise _unreadable("it is one part of several")
        if at < _LOCATOR64.size:
            return count, length, offset, at
        locator = _LOCATOR64.unpack(self._at(at - _LOCATOR64.size, _LOCATOR64.size))
        if locator[0] != b"PK\x06\x07":
            return count, length, offset, at
        end = locator[2]
        if locator[1] or locator[3] != 1 or end + _END64.size != at - _LOCATOR64.size:
            raise _unreadable("its zip64 record does not lie where it is said to lie")
        wide = _END64.unpack(self._at(end, _END64.size))
        if wide[0] != b"PK\x06\x06" or wide[1] != _END64.size - 12 or wide[4] or wide[5]:
            raise _unreadable("its zip64 record is damaged")
        here, total, wide_length, wide_offset = wide[6:]
        pairs = (
            (count, total, 0xFFFF),
            (length, wide_length, 0xFFFFFFFF),
            (offset, wide_offset, 0xFFFFFFFF),
        )
        if here != total or any(short not in (long, top) for short, long, top in pairs):
            raise _unreadable("its zip64 record disagrees with the plain one")
        return total, wide_length, wide_offset, end

    def _member(self, table: bytes, at: int, directory: int) -> tuple[int, int, Member]:
        entry = _CENTRAL.unpack_from(table, at)
        mark, _, _, flags, method, _, _, crc, packed, size, named, _, comment = entry[:13]
        disk, _, _, offset = entry[13:]
        if mark != b"PK\x01\x02" or comment or disk:
            raise _unreadable("its directory is damaged")
        raw = table[at + _CENTRAL.size : at + _CENTRAL.size + named]
        name = _decode(raw)
        if flags & ~_FLAGS:
            raise _unreadable(f"the member {name!r} is encrypted or of an unknown kind")
        if method != 0 or packed != size:
            raise _unreadable(f"the member {name!r} is compressed; torch.export stores them")
        if 0xFFFFFFFF in (size, offset):
            raise SecateurError("model_too_large", f"The member {name!r} needs zip64 sizes.")
        local = _LOCAL.unpack(self._at(offset, _LOCAL.size))
        same = (flags, method) == local[2:4]
        sizes = local[6:9]
        if flags & _DESCRIPTOR:
            same = same and sizes in ((0, 0, 0), (crc, size, size))
        else:
            same = same and sizes == (crc, size, size)
        if local[0] != b"PK\x03\x04" or not same or local[9] != named:
            raise _unreadable(f"the two headers of the member {name!r} disagree")
        if self._at(offset + _LOCAL.size, named) != raw:
            raise _unreadable(f"the two headers of the member {name!r} disagree")
        start = offset + _LOCAL.size + named + local[10]
        if start + size > directory:
            raise _unreadable(f"the member {name!r} reaches into the directory")
        return offset, start + size, Member(name, start, size, crc)

    def _at(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise _truncated()
        self.file.seek(offset)
        return self.file.read(length)


def _named(members: list[Member]) -> dict[str, Member]:
    """Members by their names below the archive's folder; only names that an export has."""
    found: dict[str, Member] = {}
    folders = set()
    for member in members:
        folder, _, name = member.name.partition("/")
        folders.add(folder)
        if _PICKLED.fullmatch(name):
            raise SecateurError(
                "model_pickled",
                f"The member {name} holds pickled objects; uploaded bytes are never run.",
                where=name,
                hint="Export without custom objects and tensor subclasses. " + HINT,
            )
        if name.startswith("data/aotinductor/"):
            raise SecateurError(
                "unsupported_format",
                "The archive holds compiled code (AOTInductor).",
                where=name,
                hint="Save the exported program itself, with torch.export.save.",
            )
        if not _MEMBERS.fullmatch(name):
            raise SecateurError(
                "model_invalid",
                f"The archive has a member {name!r}, which an export of one program has not.",
                where=name,
                hint=HINT,
            )
        if name in found:
            raise _unreadable(f"the member {name!r} is there twice")
        found[name] = member
    if len(folders) != 1 or not _PREFIX.fullmatch(next(iter(folders))) or folders & {".", ".."}:
        raise SecateurError("model_invalid", "The members do not lie in one folder.", hint=HINT)
    return found


def _refuse_other_kinds(names: set[str]) -> None:
    leaves = {name.rpartition("/")[2] for name in names}
    if any(leaf.startswith("serialized_") for leaf in leaves):
        what = "The archive has the layout that torch.export.save wrote before torch 2.9"
    elif "data.pkl" in leaves or "constants.pkl" in leaves:
        what = "The file is a checkpoint of torch.save or a TorchScript archive, whatever its name"
    elif "archive_format" not in leaves:
        what = "The file is a zip archive, but not one of torch.export.save"
    else:
        return
    raise SecateurError("unsupported_format", f"{what}.", hint=HINT)


def _decode(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _unreadable("a member's name is not UTF-8") from None
    if not name or "\x00" in name or len(name) > 500:
        raise _unreadable("a member's name is empty, too long or holds a NUL")
    return name


def _unreadable(reason: str) -> SecateurError:
    return SecateurError("model_unreadable", f"The archive can't be read: {reason}.", hint=HINT)


def _truncated() -> SecateurError:
    return SecateurError(
        "model_truncated",
        "The archive ends early: it has no directory at its end.",
        hint="Upload the whole file again.",
    )

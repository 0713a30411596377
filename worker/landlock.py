"""Which files a child may touch: a Landlock ruleset, by its three system calls.

Standard library alone: `worker.launch` uses it between fork and exec. A ruleset binds the thread
that takes it and all it will become, so it has to come before the program whose imports start
threads. Rights come in versions ("ABI"); what a kernel's version does not know is left out, and
nothing that is known is left out. Version 1 refuses every move of a file to another folder.
Versions above 6 add no right.
"""

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

EXECUTE, WRITE, READ, LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (
    1 << bit for bit in range(6, 13)
)
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_UNIX, _SIGNAL = 1 << 0, 1 << 1

_FIRST = MAKE_SYM * 2 - 1  # every right of version 1
_OF_FILES = EXECUTE | WRITE | READ | TRUNCATE | IOCTL_DEV
READABLE = EXECUTE | READ | LIST
LISTED = LIST
# Not here: programs to start, devices, sockets.
WRITABLE = (
    WRITE | READ | LIST | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM
) | (REFER | TRUNCATE)
DEVICE = READ | WRITE | LIST | TRUNCATE | IOCTL_DEV


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


def version() -> int:
    """The kernel's ABI of Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE, None, 0, _VERSION))


def rights(abi: int) -> int:
    """Every right over files that a kernel of this ABI can deny."""
    later = ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
    return _FIRST | sum(right for since, right in later if abi >= since)


def close(abi: int, allowed: Iterable[tuple[str, int]]) -> None:
    """Leave the calling thread these paths, and no TCP or signal to processes outside.

    Needs no_new_privs. A path that does not exist is left out. On a folder a right holds for all
    that lies in it.

    Args:
        abi: The version to use, at most the kernel's.
        allowed: Paths and their rights.

    Raises:
        OSError: The kernel does not take the ruleset.
    """
    handled = rights(abi)
    attributes = _Ruleset(
        handled,
        _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0,
        _ABSTRACT_UNIX | _SIGNAL if abi >= 6 else 0,
    )
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(_CREATE, ctypes.byref(attributes), size, 0)
    try:
        for path, wanted in allowed:
            _allow(ruleset, path, wanted & handled)
        _checked(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, wanted: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            wanted &= _OF_FILES
        if wanted:
            rule = _PathBeneath(wanted, fd)
            _checked(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)


def _checked(number: int, *arguments: object) -> int:
    result = _syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno() or errno.ENOSYS
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(libc.syscall(ctypes.c_long(number), *wide))

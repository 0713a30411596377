"""System calls a child may not make: a seccomp filter, written as classic BPF.

Standard library alone: `worker.launch` uses it between fork and exec. A filter is inherited by
threads and kept across exec, and none can be taken back.

What is denied fails with EPERM, as a library expects of a system that forbids it; `clone3` fails
with ENOSYS, since a filter can't read the flags it points to and libc then takes `clone`. Binding
another thread to processors seems to succeed and does nothing: a filter can't tell threads from
other processes, and OpenMP gives up where it fails. Calls of another architecture end the process:
their numbers mean something else.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator

from worker import system_calls as calls

_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
_TSYNC = 1
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_DENY = _ERRNO | errno.EPERM
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000
# Commands that send a signal to another process, or hold up those who open a file or list a folder:
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY; FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
_FCNTL_COMMANDS = (8, 10, 15, 1024, 1026)
_IOCTL_COMMANDS = (0x8901, 0x8902, 0x5412, 0x541C)
_AF_UNIX = 1
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 5, 0xF

# machine -> (AUDIT_ARCH, column below)
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_Code = list[tuple[int, int, int, int]]


def available() -> bool:
    """Whether this kernel filters system calls, on a machine whose numbers are known here."""
    if _machine() is None:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def close(gpu: bool) -> None:
    """Forbid the calling thread, and all it will become, what a child never needs.

    No sockets, no new processes, no signal to another process, no tracing, no shared memory, queues
    or semaphores of System V or POSIX, no change of a file's owner or mode, no namespaces, mounts,
    keys, io_uring, modules. A program may still be started, once, by the launcher; the child then
    calls `forbid_programs`. Needs no_new_privs.

    Args:
        gpu: Let sockets of the family AF_UNIX be made, for others in this process to connect to,
            and files in memory, as drivers do; connecting is forbidden always, as is every other
            family.

    Raises:
        OSError: The kernel does not take the filter.
    """
    _install([*_prologue(), *_rules(os.getpid(), gpu), (_RETURN, 0, 0, _ALLOW)], 0)


def forbid_programs() -> None:
    """Forbid every thread of the process to start another program.

    Raises:
        OSError: The kernel does not take the filter.
    """
    column = _column()
    code = _prologue()
    for numbers in calls.PROGRAMS.values():
        code += _deny(numbers[column])
    _install([*code, (_RETURN, 0, 0, _ALLOW)], _TSYNC)


def _machine() -> tuple[int, int] | None:
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    return _MACHINES.get(os.uname().machine)


def _column() -> int:
    known = _machine()
    if known is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    return known[1]


def _prologue() -> _Code:
    known = _machine()
    if known is None:
        raise OSError(errno.ENOSYS, "no filter for this machine")
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, known[0]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if known[1] == 0:
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _DENY)]
    return code


def _deny(number: int | None, how: int = _DENY) -> _Code:
    return [] if number is None else [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, how)]


def _when(number: int, body: _Code) -> _Code:
    """Instructions that run for one call alone and must end in a return."""
    return [(_EQUAL, 0, len(body), number), *body]


def _argument(index: int) -> tuple[int, int, int, int]:
    # The low half: the kernel ignores the rest of an int. Both machines are little-endian.
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _only(*values: int, otherwise: int = _DENY) -> _Code:
    """Allow the call if its first argument is one of the values."""
    code: _Code = [_argument(0)]
    for value in values:
        code += [(_EQUAL, 0, 1, value & 0xFFFFFFFF), (_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, otherwise)]


def _but(index: int, *values: int) -> _Code:
    """Deny the call if an argument is one of the values."""
    code: _Code = [_argument(index)]
    for value in values:
        code += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _DENY)]
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _rules(pid: int, gpu: bool) -> Iterator[tuple[int, int, int, int]]:
    column = _column()
    for numbers in calls.FORBIDDEN.values():
        yield from _deny(numbers[column])
    for numbers in calls.ABSENT.values():
        yield from _deny(numbers[column], _ERRNO | errno.ENOTSUP)
    if not gpu:
        # What lies in such a file is memory of no process until it is mapped.
        yield from _deny(calls.MEMFD[column])
    yield from _deny(calls.CLONE3[column], _ERRNO | errno.ENOSYS)
    threads: _Code = [
        _argument(0),
        (_ANY_BIT, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _DENY),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    yield from _when(calls.CLONE[column], threads)
    # Not datagrams: they are sent to an address without connecting.
    kinds: _Code = [
        _argument(1),
        (_AND, 0, 0, _SOCK_TYPE),
        (_EQUAL, 0, 1, _SOCK_STREAM),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, 1, _SOCK_SEQPACKET),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    yield from _when(calls.SOCKETPAIR[column], kinds)
    local: _Code = [_argument(0), (_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, _DENY), *kinds]
    yield from _when(calls.SOCKET[column], local if gpu else [(_RETURN, 0, 0, _DENY)])
    for numbers in calls.OWN_PID_ONLY.values():
        number = numbers[column]
        assert number is not None
        yield from _when(number, _only(pid))
    yield from _when(calls.PRLIMIT[column], _only(0, pid))
    yield from _when(calls.AFFINITY[column], _only(0, pid, otherwise=_ERRNO))
    yield from _when(calls.FCNTL[column], _but(1, *_FCNTL_COMMANDS))
    yield from _when(calls.IOCTL[column], _but(1, *_IOCTL_COMMANDS))


def _install(code: _Code, flags: int) -> None:
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = Program(len(code), ctypes.addressof(packed))
    if _seccomp(_SET_MODE_FILTER, flags, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "the kernel does not take the filter of system calls")


def _seccomp(operation: int, flags: int, argument: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(calls.SECCOMP[_column()]), operation, flags, argument))

"""System calls a child may not make: a seccomp filter, written as classic BPF.

Standard library alone: `worker.launch` uses it between fork and exec. A filter is inherited by
threads and kept across exec, and none can be taken back.

What is denied fails with EPERM, as a library expects of a system that forbids it; `clone3` fails
with ENOSYS, since a filter can't read the flags it points to and libc then takes `clone`. Calls of
another architecture end the process: their numbers mean something else.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator

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
_AF_UNIX = 1
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 5, 0xF

# machine -> (AUDIT_ARCH, column below)
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# name -> number on x86_64 and aarch64, None where that has no such call
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # servers, also those that a socket file leads to
    "connect": (42, 203),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "migrate_pages": (256, 238),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "fork": (57, None),
    "vfork": (58, None),
    # what Landlock leaves open: whose a file is, who may read it, how old it is
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "file_setattr": (469, 469),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # parts of the kernel that computing needs none of
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fanotify_init": (300, 262),
    "memfd_secret": (447, 447),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "syslog": (103, 116),
    # the machine itself
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "ioperm": (173, None),
    "iopl": (172, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_PROGRAMS = {"execve": (59, 221), "execveat": (322, 281)}
# Calls that name a process as their first argument; only the caller itself may be named.
_OWN_PID_ONLY = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
_PRLIMIT = (302, 261)
_SECCOMP = (317, 277)

_Code = list[tuple[int, int, int, int]]


def available() -> bool:
    """Whether this kernel filters system calls, on a machine whose numbers are known here."""
    if _machine() is None:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def close(unix_sockets: bool) -> None:
    """Forbid the calling thread, and all it will become, what a child never needs.

    No sockets, no new processes, no signal to another process, no tracing, no change of a file's
    owner or mode, no namespaces, mounts, keys, io_uring, modules. A program may still be started,
    once, by the launcher; the child then calls `forbid_programs`. Needs no_new_privs.

    Args:
        unix_sockets: Let sockets of the family AF_UNIX be made, for others in this process to
            connect to; connecting is forbidden always, as is every other family.

    Raises:
        OSError: The kernel does not take the filter.
    """
    _install([*_prologue(), *_rules(os.getpid(), unix_sockets), (_RETURN, 0, 0, _ALLOW)], 0)


def forbid_programs() -> None:
    """Forbid every thread of the process to start another program.

    Raises:
        OSError: The kernel does not take the filter.
    """
    column = _column()
    code = _prologue()
    for numbers in _PROGRAMS.values():
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


def _only(*values: int) -> _Code:
    """Allow the call if its first argument is one of the values."""
    code: _Code = [_argument(0)]
    for value in values:
        code += [(_EQUAL, 0, 1, value & 0xFFFFFFFF), (_RETURN, 0, 0, _ALLOW)]
    return [*code, (_RETURN, 0, 0, _DENY)]


def _rules(pid: int, unix_sockets: bool) -> Iterator[tuple[int, int, int, int]]:
    column = _column()
    for numbers in _FORBIDDEN.values():
        yield from _deny(numbers[column])
    yield from _deny(_CLONE3[column], _ERRNO | errno.ENOSYS)
    threads: _Code = [
        _argument(0),
        (_ANY_BIT, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _DENY),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    yield from _when(_CLONE[column], threads)
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
    yield from _when(_SOCKETPAIR[column], kinds)
    local: _Code = [_argument(0), (_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, _DENY), *kinds]
    yield from _when(_SOCKET[column], local if unix_sockets else [(_RETURN, 0, 0, _DENY)])
    for numbers in _OWN_PID_ONLY.values():
        number = numbers[column]
        assert number is not None
        yield from _when(number, _only(pid))
    yield from _when(_PRLIMIT[column], _only(0, pid))


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
    return int(libc.syscall(ctypes.c_long(_SECCOMP[_column()]), operation, flags, argument))

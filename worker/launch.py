"""What runs between fork and exec of a child: it closes the sandbox, then becomes the program.

Run as a script by `worker.sandbox` in a fresh interpreter (`python -I -S launch.py PLAN PROGRAM`)
rather than as a `preexec_fn`, because the supervisor may hold threads and locks. Standard library
alone, so it takes some 30 ms. It comes before exec because the program's imports start threads,
and what Landlock denies it denies only the thread that asked for it and those it starts later.

PLAN is JSON: `parent` (pid that must still be the parent), `rlimits` ({name: value}), `umask`,
`powerless` (give up all capabilities), `landlock` ({`abi`, `allowed`: [[path, rights]]} or null),
`seccomp` ({`gpu`} or null).
"""

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

# The folder that holds the package: in this interpreter nothing of ours is on the path.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from worker import landlock, seccomp

PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_OOM_SCORE = 500  # of 1,000: counts as half of the machine's memory on top of its own
_CLOSED = 124  # what the supervisor sees when the sandbox can't be closed


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request was made; then nobody would ever send the signal.
    if os.getppid() != parent:
        os._exit(125)


def _limit(name: str, value: int) -> None:
    which = getattr(resource, name, None)
    if which is None:
        return
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _offer_to_the_kernel() -> None:
    """Where the machine's memory runs out, the job is ended rather than the service."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_OOM_SCORE))


def _give_up_capabilities() -> None:
    """Root's too: without a bounding set exec gives none back."""
    libc = _libc()
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    capability = 0
    while (held := libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0)) >= 0:
        # Whoever may not drop them holds none, unless they are root in a namespace of others.
        if held and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 and os.geteuid() == 0:
            raise OSError(ctypes.get_errno(), "capabilities can't be given up")
        capability += 1
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capabilities can't be given up")


def _close(plan: dict[str, Any]) -> None:
    if plan["powerless"]:
        _give_up_capabilities()
    files = plan["landlock"]
    if files is not None:
        if os.path.isdir("/proc/self"):
            # The rule on /proc/self is one on this inode, which must not be dropped and made anew.
            os.set_inheritable(os.open("/proc/self", os.O_PATH | os.O_DIRECTORY), True)
        landlock.close(files["abi"], files["allowed"])
    calls = plan["seccomp"]
    if calls is not None:
        seccomp.close(calls["gpu"])


def main() -> None:
    """Apply the plan and become the program."""
    plan = json.loads(sys.argv[1])
    _die_with(plan["parent"])
    # A pool process ignores SIGINT, and what is ignored stays ignored across exec.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    if sys.platform == "linux":
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _offer_to_the_kernel()
    os.umask(plan["umask"])
    for name, value in plan["rlimits"].items():
        _limit(name, value)
    try:
        _close(plan)
    except OSError as error:
        print(f"the sandbox can't be closed: {error}", flush=True)
        os._exit(_CLOSED)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

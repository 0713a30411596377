"""What runs between fork and exec of a child: it sets limits, then becomes the child's program.

Run as a script by `worker.sandbox` in a fresh interpreter (`python -I -S launch.py PLAN PROGRAM`)
rather than as a `preexec_fn`, because the supervisor may hold threads and locks. Standard library
alone, nothing of ours: it starts in about 15 ms. PLAN is JSON: `parent` (pid that must still be the
parent), `rlimits` ({name: value}), `umask`.
"""

import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


def _prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
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
    os.umask(plan["umask"])
    for name, value in plan["rlimits"].items():
        _limit(name, value)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

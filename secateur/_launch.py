"""Starts a part of the service so that it dies with its parent, then becomes it.

Run as a script in a fresh interpreter (`python -I -S _launch.py PARENT PROGRAM ...`), standard
library alone. Linux sends SIGTERM when the parent ends, however it ends; elsewhere a part outlives
a parent that is killed with SIGKILL.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, then exec."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may be gone before the request was made; nobody would ever send the signal then.
    if os.getppid() != parent:
        sys.exit(125)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()

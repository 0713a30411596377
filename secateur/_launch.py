"""Starts a part of the service so that it dies with its parent, then becomes it.

Run as a script in a fresh interpreter (`python -I -S _launch.py PARENT PROGRAM ...`), standard
library alone. Linux kills the part when its parent ends without having stopped it: one that were
asked politely would wait for a broker that is gone too, and a kill loses nothing, as leases run
out. Elsewhere a part outlives a parent that is killed.
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

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may be gone before the request was made; nobody would ever send the signal then.
    if os.getppid() != parent:
        sys.exit(125)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()

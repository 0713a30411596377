"""Runs a module with a wall clock that a test sets while it runs.

    python -m tests.faults.stepped FILE MODULE [ARGUMENT ...]

The clock is ahead of the machine's by as many seconds as FILE says (`-120`; 0 while there is no
such file), and follows within a twentieth of a second. A test writes the file with `set_clock`.
What is replaced is `time.time` and `time.time_ns`, before anything else is imported, in this
process and in those forked from it; `store.clock` reads no other wall clock. Monotonic clocks, and
the times that the kernel gives to files, stay as they are.
"""

import os
import runpy
import sys
import time
from pathlib import Path

_FRESH_SECONDS = 0.05


class _Stepped:
    def __init__(self, path: str) -> None:
        self._path = path
        self._time_ns = time.time_ns
        self._read_at = float("-inf")
        self._offset = 0

    def time_ns(self) -> int:
        now = time.monotonic()
        if now - self._read_at > _FRESH_SECONDS:
            self._read_at = now
            try:
                with open(self._path) as file:
                    self._offset = int(float(file.read()) * 1e9)
            except FileNotFoundError:
                self._offset = 0
        return self._time_ns() + self._offset

    def time(self) -> float:
        return self.time_ns() / 1e9


def set_clock(path: Path, seconds: float) -> None:
    """Sets the clock of the processes that were given this file, all at the same moment."""
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(str(seconds))
    aside.rename(path)


def main() -> None:
    """Run the module named on the command line, as `python -m` would."""
    path, module = os.path.abspath(sys.argv[1]), sys.argv[2]
    stepped = _Stepped(path)
    time.time, time.time_ns = stepped.time, stepped.time_ns
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

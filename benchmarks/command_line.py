"""What the command line makes its user wait for before it does anything.

Whole processes of the installed interpreter, the empty program subtracted nowhere; the first round
warms the files' caches and is not counted. The figures, medians on a quiet machine: `--help`, also
of a command, under 300 ms, `import secateur` under 150 ms, and a command against a service that is
not there, or that takes no connection, under 1 s.
"""

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.common import save, table

ROUNDS = 7
LIMITS = {
    "secateur --help": 0.3,
    "prune --help": 0.3,
    "jobs list --help": 0.3,
    "import secateur": 0.15,
    "jobs list, nothing listens": 1.0,
    "jobs events, nothing listens": 1.0,
    "jobs list, no connection": 1.0,
}


@contextmanager
def _silent() -> Iterator[str]:
    """The URL of a socket that takes no connection: its queue is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _seconds(arguments: list[str], url: str) -> float:
    environment = os.environ | {"SECATEUR_URL": url, "SECATEUR_API_KEY": "sct_none"}
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], env=environment, check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begin


def run() -> bool:
    """Measure, print, save; whether the figures hold."""
    nobody = "http://127.0.0.1:9"
    with _silent() as silent:
        ways = {
            "secateur --help": (["-m", "secateur", "--help"], nobody),
            "import secateur": (["-c", "import secateur"], nobody),
            "jobs list, nothing listens": (["-m", "secateur", "jobs", "list"], nobody),
            "jobs list, no connection": (["-m", "secateur", "jobs", "list"], silent),
            "jobs events, nothing listens": (
                ["-m", "secateur", "jobs", "events", "job", "--json"],
                nobody,
            ),
            "secateur --version": (["-m", "secateur", "--version"], nobody),
            "prune --help": (["-m", "secateur", "prune", "--help"], nobody),
            "jobs list --help": (["-m", "secateur", "jobs", "list", "--help"], nobody),
        }
        rounds = [{name: _seconds(*way) for name, way in ways.items()} for _ in range(ROUNDS + 1)][
            1:
        ]
    medians = {name: statistics.median(r[name] for r in rounds) for name in ways}
    rows = [[name, 1e3 * s, 1e3 * LIMITS[name] if name in LIMITS else ""]
            for name, s in medians.items()]  # fmt: skip
    table(rows, ["what", "ms", "at most"])
    held = all(medians[name] <= limit for name, limit in LIMITS.items())
    print(f"figures {'held' if held else 'MISSED'}")
    save("command_line", {"rounds": ROUNDS, "medians": medians, "limits": LIMITS, "held": held})
    return held

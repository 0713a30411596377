"""Child processes of `secateur up`: started, watched, restarted within bounds, stopped in order."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secateur.errors import SecateurError

RESTARTS, WINDOW = 5, 60.0
"""A part that dies more than RESTARTS times within WINDOW seconds ends the service."""

_LAUNCH = Path(__file__).with_name("_launch.py")


@dataclass
class Part:
    """One child process and its log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None
    grace: float = 5.0
    process: subprocess.Popen[bytes] | None = None
    deaths: deque[float] = field(default_factory=deque)

    def start(self) -> None:
        """Starts it, in a session of its own: a Ctrl-C in the terminal is ours to pass on."""
        command = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *self.command]
        output = self.log.open("ab") if self.log else None
        try:
            self.process = subprocess.Popen(
                command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output or sys.stderr,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None

    def revive(self) -> None:
        """Starts it again if it died.

        Raises:
            SecateurError: `unavailable` where it keeps dying.
        """
        if self.running:
            return
        now = time.monotonic()
        self.deaths.append(now)
        while self.deaths[0] < now - WINDOW:
            self.deaths.popleft()
        if len(self.deaths) > RESTARTS:
            raise self.failure(f"{self.name} died {len(self.deaths)} times within a minute.")
        self.start()

    def failure(self, message: str) -> SecateurError:
        """An error about this part that shows the end of its log."""
        return SecateurError(
            "unavailable",
            message,
            where=self.name,
            hint=f"Its log: {self.log}" if self.log else "Its log is above.",
            **({"log": _tail(self.log)} if self.log else {}),
        )

    def signal(self, number: signal.Signals) -> None:
        """Signals the part itself, which looks after its own children."""
        if self.running and self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Ends its whole group at once."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def stop(parts: Sequence[Part]) -> None:
    """Asks all of them to end, gives them the longest grace among them, then kills what is left."""
    for part in parts:
        part.signal(signal.SIGTERM)
    deadline = time.monotonic() + max((part.grace for part in parts), default=0.0)
    for part in parts:
        if part.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.process.wait(max(0.0, deadline - time.monotonic()))
        # Also after an orderly end: a pool process may be left behind by a master that crashed.
        part.kill()


def _tail(path: Path, lines: int = 15) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""

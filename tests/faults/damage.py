"""What happens to files on a disk: bytes flip, ends get lost, files vanish."""

from collections.abc import Callable
from pathlib import Path


def flip(path: Path, at: int | None = None) -> None:
    """Flip a bit of the byte `at`, by default of the one in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0x04
    _write(path, bytes(content))


def truncate(path: Path) -> None:
    """Lose the last byte."""
    _write(path, path.read_bytes()[:-1])


def grow(path: Path) -> None:
    """Gain a byte."""
    _write(path, path.read_bytes() + b"\0")


def _write(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit flipped": flip,
    "truncated": truncate,
    "grown": grow,
    "gone": Path.unlink,
}

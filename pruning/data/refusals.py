"""Errors of readers that models and data share, told as errors about data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import SecateurError
from pruning.formats.limits import Limits

RATIO_FREE = 16 << 20
_AS_DATA = {
    "model_unreadable": "data_unreadable",
    "model_truncated": "data_unreadable",
    "model_too_large": "data_too_large",
}


@contextmanager
def as_data() -> Iterator[None]:
    """Turns `model_*` codes of what runs inside into `data_*` codes."""
    try:
        yield
    except SecateurError as error:
        error.code = _AS_DATA.get(error.code, error.code)
        raise


def check_size(path: Path, limits: Limits) -> None:
    """Refuses a file that is over the limit as uploaded.

    Raises:
        SecateurError: `data_too_large`.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size > limits.data_bytes:
        raise SecateurError(
            "data_too_large", f"The file has {size} bytes; the limit is {limits.data_bytes}."
        )


def check_unpacked(total: int, limits: Limits, what: str = "The arrays take") -> None:
    """Refuses what would take too much memory, before it does.

    Raises:
        SecateurError: `data_too_large`.
    """
    if total > limits.unpacked_bytes:
        raise SecateurError(
            "data_too_large",
            f"{what} {total} bytes; the limit is {limits.unpacked_bytes}.",
            hint="Upload fewer samples.",
        )


def check_ratio(
    unpacked: int,
    packed: int,
    limits: Limits,
    what: str = "The arrays unpack",
    *,
    free: int = RATIO_FREE,
    where: str | None = None,
) -> None:
    """Refuses what is packed far denser than real data are.

    Args:
        unpacked: Bytes, as far as they are known.
        packed: Bytes as uploaded.
        limits: `compression_ratio`.
        what: Begins the message.
        free: What unpacks to less may be as dense as it likes.
        where: The member or column.

    Raises:
        SecateurError: `data_too_large`.
    """
    if unpacked > max(free, packed * limits.compression_ratio):
        raise SecateurError(
            "data_too_large",
            f"{what} to {unpacked} bytes from {packed}; more than {limits.compression_ratio:g} to "
            "1 is taken for a decompression bomb.",
            where=where,
            hint="Write the data without compression.",
        )

"""Which errors mean that memory ran out, whoever raised them and whatever they were made into."""

import errno
import re

WORDS = (
    "can't allocate memory",  # torch on CPU
    "cannot allocate memory",  # the C library
    "not enough memory",
    "unable to allocate",
    "failed to allocate memory",  # onnxruntime
    "memory allocation of",  # Rust
    "out of memory",
    "bad allocation",
    "bad_alloc",
)
"""One of which libraries use where they have no type for it, in lower case."""

_ASKED = re.compile(r"allocate (\d{1,18}) bytes|allocation of (\d{1,18}) bytes|size (\d{1,18})")
_LONGEST_CHAIN = 20


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, by the type or words of an error or of what it was raised from."""
    return _found(error) is not None


def asked_for(error: BaseException | None) -> int | None:
    """Bytes of the allocation that failed, where the error says so."""
    found = _found(error)
    said = None if found is None else _ASKED.search(str(found))
    return int(next(filter(None, said.groups()))) if said else None


def _found(error: BaseException | None) -> BaseException | None:
    for _ in range(_LONGEST_CHAIN):
        if error is None or _says_so(error):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _says_so(error: BaseException) -> bool:
    kind = type(error)
    if isinstance(error, MemoryError) or kind.__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # onnxruntime and the libraries in Rust have types of their own. Ours may quote a file.
    own = kind.__module__.partition(".")[0] in ("pruning", "secateur")
    foreign = kind.__module__ != "builtins" and not own
    return (foreign or isinstance(error, RuntimeError)) and any(
        word in str(error).lower() for word in WORDS
    )

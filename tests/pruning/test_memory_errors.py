"""Memory that ran out is told from all else, in the words of whichever library met it."""

import errno

import numpy as np
import pytest
import torch

from pruning.errors import SecateurError
from pruning.memory_errors import asked_for, out_of_memory
from worker.child import failure

TOO_MANY = 1 << 50


def raised(act) -> BaseException:
    with pytest.raises(Exception) as caught:
        act()
    return caught.value


def read_by_us() -> None:
    try:
        torch.empty(TOO_MANY)
    except RuntimeError as error:
        raise SecateurError("model_invalid", "The model can't be read.") from error


def while_another_is_handled() -> None:
    try:
        np.empty(TOO_MANY)
    except MemoryError:
        raise KeyError("x")  # noqa: B904


STARVED = {
    "torch": lambda: torch.empty(TOO_MANY),
    "numpy": lambda: np.empty(TOO_MANY),
    "python": lambda: bytearray(TOO_MANY),
    "mmap": lambda: (_ for _ in ()).throw(OSError(errno.ENOMEM, "Cannot allocate memory")),
    "a reader": read_by_us,
    "on the way": while_another_is_handled,
}


@pytest.mark.parametrize("name", STARVED)
def test_every_library_s_error_is_out_of_memory(name: str):
    error = raised(STARVED[name])
    assert out_of_memory(error)
    told = failure(error)
    assert told.code == "out_of_memory"


def test_what_was_asked_for_at_once_is_named():
    error = raised(STARVED["torch"])
    assert asked_for(error) == 4 * TOO_MANY
    assert failure(error).message.endswith(", 4096.0 TiB at once.")


def test_onnxruntime_s_types_are_known_by_their_words():
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    said = "Failed to allocate memory for requested buffer of size 4294967296"
    assert asked_for(runtime.RuntimeException(said)) == 4294967296
    assert not out_of_memory(runtime.Fail("Node x failed"))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a tensor is called 'out of memory'"),
        SecateurError("model_invalid", "The operator 'bad_alloc' is not known."),
        RuntimeError("sizes do not match"),
        OSError(errno.ENOENT, "no such file"),
    ],
)
def test_other_errors_are_not(error: Exception):
    assert not out_of_memory(error)
    assert failure(error).code != "out_of_memory"


def test_a_chain_that_leads_to_itself_ends():
    one, two = KeyError("a"), KeyError("b")
    one.__cause__, two.__cause__ = two, one
    assert not out_of_memory(one)

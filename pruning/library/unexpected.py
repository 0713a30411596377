"""Errors that nobody foresaw, with a code, as jobs of the service have them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pruning.curvature.derivatives import WITHOUT, reason
from pruning.errors import SecateurError
from pruning.events import Event
from pruning.memory_errors import out_of_memory

Emit = Callable[[Event], None]


class Listener:
    """A caller's `emit`, whose own exceptions are told from others.

    Args:
        emit: Receives events; None for nobody.
    """

    def __init__(self, emit: Emit | None) -> None:
        self._emit = emit
        self._raised: list[Exception] = []

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        if self._emit is None:
            return
        try:
            self._emit(event)
        except Exception as error:
            self._raised.append(error)
            raise

    @contextmanager
    def coded(self) -> Iterator[None]:
        """Gives an exception from within the block a code; what `emit` raised goes through.

        Raises:
            SecateurError: `out_of_memory`, `operator_unsupported` for gradient checkpointing,
                `module_failed` for types that do not go together, else `internal_error`.
        """
        try:
            yield
        except SecateurError:
            raise
        except Exception as error:
            if any(error is raised for raised in self._raised):
                raise
            raise _coded(error) from error


def _coded(error: Exception) -> SecateurError:
    words = f"{type(error).__name__}: {reason(error)}"
    if out_of_memory(error):
        return SecateurError(
            "out_of_memory",
            f"The job ran out of memory. {words}",
            hint="Use fewer samples, a criterion with less curvature, or copy=False.",
        )
    if type(error).__name__ == "CheckpointError":
        return SecateurError(
            "operator_unsupported",
            f"Derivatives can't be taken through torch.utils.checkpoint. {words}",
            where="module",
            hint=f"Call the layers directly in evaluation mode. {WITHOUT}",
        )
    if "scalar type" in str(error) or "same dtype" in str(error):
        return SecateurError(
            "module_failed",
            f"The module computes in types that do not go together in derivatives. {words}",
            where="module",
            hint=f"Switch torch.autocast off in forward, and give a module of one type. {WITHOUT}",
        )
    return SecateurError(
        "internal_error",
        f"The job failed with an error that was not foreseen. {words}",
        hint="The traceback above it shows whether it comes from the module's own code, which is "
        "also called under torch.func and with other batch sizes. If not, please report it.",
    )

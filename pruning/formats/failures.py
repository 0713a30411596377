"""What an exception inside a step of a network means: data that don't fit, the model, or our fault.

A reader runs a network at the sizes that its file declares. What fails there is wrong in the file,
unless another runtime computes it. What fails later, at sizes that were accepted or while
derivatives are taken, is our error; at sizes that the file left open the data may not fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.memory_errors import out_of_memory
from pruning.recurrence import transforming

FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            AssertionError, NotImplementedError, NameError)  # fmt: skip
"""What torch's operators and ours raise for arguments that they can't take."""

_OURS = (AttributeError, NameError)
"""What no size and no number of a file makes code raise that has no fault itself."""

Referee = Callable[[Sequence[Tensor]], bool]
"""Whether another runtime computes the file's network on inputs."""


@dataclass(frozen=True)
class Accepted:
    """Sizes at which a reader accepted a network.

    Args:
        shapes: Of the inputs; None for the number of samples, a text where the file leaves another
            size open.
        referee: Asked about sizes that are open.
    """

    shapes: tuple[tuple[int | str | None, ...], ...]
    referee: Referee | None = None

    @classmethod
    def of(cls, inputs: Sequence[TensorFact], referee: Referee | None = None) -> "Accepted":
        """The sizes of facts."""
        shapes = (
            tuple(None if axis == fact.axis else size for axis, size in enumerate(fact.shape))
            for fact in inputs
        )
        return cls(tuple(shapes), referee)

    def fits(self, inputs: Sequence[Tensor]) -> bool:
        """Whether inputs have these sizes, the number of samples aside, with none of them open."""
        return len(inputs) == len(self.shapes) and all(
            x.dim() == len(shape)
            and all(want in (None, have) for have, want in zip(x.shape, shape, strict=True))
            for x, shape in zip(inputs, self.shapes, strict=True)
        )


class StepError(SecateurError):
    """An exception inside a step of a network while it is read."""

    def ours(self) -> SecateurError:
        """The same where the network is valid."""
        return _ours(str(self.details["operator"]), self.where or "", str(self.details["reason"]))


def step_failed(
    error: Exception,
    operator: str,
    where: str,
    inputs: Sequence[Tensor],
    accepted: Accepted | None,
) -> SecateurError:
    """The error to raise for an exception inside a step.

    Args:
        error: The exception; errors of memory are raised again.
        operator: What was computed.
        where: Name of the node.
        inputs: Of the network.
        accepted: Sizes of the inputs that the reader accepted; None while it still reads.

    Returns:
        `internal_error` where the file and the inputs are as they should be, or for an exception
        that only a fault in code raises; `data_shape` or `data_values` for inputs that do not fit,
        and while a file is read `model_invalid`.
    """
    if out_of_memory(error):
        raise error
    reason = f"{type(error).__name__}: {_first_line(error)}"
    if transforming():
        return _ours(operator, where, f"{reason} (while derivatives were taken)")
    if isinstance(error, _OURS):
        return _ours(operator, where, reason)
    if accepted is None:
        return StepError(
            "model_invalid",
            f"{operator} can't be computed here: {_first_line(error)}",
            where=where,
            hint="Check the sizes of the inputs against those the model was exported with.",
            operator=operator,
            reason=reason,
        )
    fits, values = accepted.fits(inputs), _may_be_values(error, inputs)
    if (fits and not values) or (accepted.referee is not None and accepted.referee(inputs)):
        return _ours(operator, where, reason)
    said = f"{operator}: {_first_line(error)}"
    return _bad_values(said, where) if values else misfit(said, where, inputs)


def misfit(reason: str, where: str | None, inputs: Sequence[Tensor]) -> SecateurError:
    """The error for inputs of sizes that a network can't be computed for."""
    shapes = ", ".join(str(list(x.shape)) for x in inputs)
    return SecateurError(
        "data_shape",
        f"The network can't be computed for inputs of shape {shapes}: {reason}",
        where=where,
        hint="The file leaves these sizes open, but not every size will do. Give the data the "
        "sizes that the model was exported with.",
    )


def _may_be_values(error: Exception, inputs: Sequence[Tensor]) -> bool:
    """Whether whole numbers among the inputs may be places that a table lacks."""
    whole = any(not x.is_floating_point() for x in inputs)
    words = str(error).lower()
    return whole and "ind" in words and any(word in words for word in ("range", "bound"))


def _bad_values(reason: str, where: str) -> SecateurError:
    return SecateurError(
        "data_values",
        f"The network can't be computed for the data's numbers: {reason}",
        where=where,
        hint="Whole numbers that choose rows of a table, such as tokens, must be below its size.",
    )


def _ours(operator: str, where: str, reason: str) -> SecateurError:
    return SecateurError(
        "internal_error",
        f"{operator} failed with {reason}",
        where=where,
        hint="This is an error on our side: neither the model nor the data are at fault. Please "
        "report it with this message.",
        operator=operator,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

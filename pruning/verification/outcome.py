"""What a check found."""

from pruning.errors import SecateurError
from pruning.report.schema import Check


def judged(name: str, passed: bool, value: float, threshold: float, good: str, bad: str) -> Check:
    """A check on the files.

    Args:
        name: Of the check.
        passed: Whether it holds.
        value: What was found.
        threshold: What it was held to.
        good: Plain words where it holds.
        bad: Plain words where it does not.
    """
    return Check(
        name=name,
        status="pass" if passed else "fail",
        value=value,
        threshold=threshold,
        message=good if passed else bad,
    )


def failed(where: str, message: str) -> SecateurError:
    """The error of a check that failed."""
    return SecateurError(
        "verification_failed",
        message,
        where=where,
        hint="This is an error on our side; no files were delivered.",
    )

"""How a trust check is written down."""

from pruning.report.trust import Check


def check(name: str, passed: bool, value: float | None, threshold: float, message: str) -> Check:
    """A check of the group `trust`, which passes or warns.

    Args:
        name: Without the group.
        passed: Whether the assumption holds. What could not be measured did not pass.
        value: What was found, None if nothing was.
        threshold: What is allowed.
        message: Plain words.
    """
    return Check(
        name=f"trust.{name}",
        group="trust",
        status="pass" if passed else "warn",
        value=value,
        threshold=threshold,
        message=message,
    )

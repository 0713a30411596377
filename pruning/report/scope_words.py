"""What of a model was in scope, in words: for the page, the command line and the plan."""

from collections.abc import Iterator

from pruning.facts import VECTORS
from pruning.report.numbers import count, share
from pruning.report.scope import OutOfScope, ScopeSection

_NAMED = 3
"""Weights that are named one by one."""


def of_all(scope: ScopeSection | None) -> str:
    """The removed share of all weights, where not all of them were in scope; else nothing."""
    if scope is None or scope.removed_of_all is None or scope.weights_in_scope == scope.weights:
        return ""
    return f"{share(scope.removed_of_all)} of all {count(scope.weights)} weights"


def in_scope(scope: ScopeSection) -> str:
    """How many weights are in scope, and of how many."""
    known = count(scope.weights_in_scope)
    if scope.weights_in_scope == scope.weights:
        return f"all {known} weights"
    return f"{known} of all {count(scope.weights)} weights ({share(scope.share)})"


def left_out(scope: ScopeSection | None) -> list[str]:
    """One line for each reason why weights are not in scope; vectors are not told of."""
    return [] if scope is None else list(_lines(scope))


def _lines(scope: ScopeSection) -> Iterator[str]:
    groups: dict[str, list[OutOfScope]] = {}
    for one in scope.left_out:
        if one.kind != VECTORS:
            groups.setdefault(one.reason, []).append(one)
    for reason, group in groups.items():
        names = ", ".join(one.name for one in group[:_NAMED])
        more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
        total = count(sum(one.parameters for one in group))
        yield f"{total} weights of {names}{more}: {reason.rstrip('.')}"

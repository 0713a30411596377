"""What is said of zeros that an upload comes with. Torch-free."""

from collections.abc import Sequence
from typing import NamedTuple

from pruning.report.numbers import share
from pruning.report.schema import ReportWarning
from pruning.spec import Spec

NOTED = 0.01
"""Share of the weights in scope from which zeros of the upload are worth a warning: a few weights
of a trained network are zero by chance."""

_NAMED = 5


class Zeros(NamedTuple):
    """A layer in scope, how many weights it has, and how many of them are zero in the upload."""

    layer: str
    found: int
    weights: int


def of_zeros(spec: Spec, layers: Sequence[Zeros], asked: int) -> list[ReportWarning]:
    """The warnings on them.

    Args:
        spec: Spec of the job, whose scope says whether zeros stay.
        layers: Weights in scope.
        asked: Number of weights that the target removes in all; 0 where the target is a drop.
    """
    found, total = sum(x.found for x in layers), sum(x.weights for x in layers)
    if not found:
        return []
    kept = spec.scope.existing_zeros == "keep"
    part = share(found / total)
    many = f"{found:,} of the {total:,} weights in scope ({part}) are zero in the model"
    told: list[ReportWarning] = []
    if found >= NOTED * total:
        told.append(
            _warning("zeros_kept", f"{many}. They stay zero and count among the removed ones.")
            if kept
            else _warning("zeros_freed", f"{many}. They may become others, as the spec allows.")
        )
    if not kept:
        return told
    empty = [x.layer for x in layers if x.found == x.weights]
    if empty:
        named = ", ".join(empty[:_NAMED]) + (
            f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        )
        told.append(
            _warning(
                "layer_all_zero",
                f"All weights of {named} are zero in the model, and they stay so. If the training "
                "has not begun there yet (a gate or an adapter that starts at zero), set scope: "
                "{existing_zeros: free} or exclude the layer.",
            )
        )
    if asked < found and spec.pattern.kind == "unstructured" and spec.target.max_drop is None:
        told.append(
            _warning(
                "fewer_than_zeros",
                f"The target would remove {asked:,} weights, and {found:,} are zero already: no "
                "further weight is removed.",
                f"spec.target.{spec.target.kind}",
            )
        )
    return told


def _warning(code: str, message: str, where: str = "spec.scope.existing_zeros") -> ReportWarning:
    return ReportWarning(code=code, message=message, where=where)

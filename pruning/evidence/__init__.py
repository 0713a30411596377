"""What a criterion may ask for beside curvature: one number a weight, one kind a file.

Each kind's module has `compute(view, **parameters)`, a vector over the active weights in float64
(or int64 for numbers of rows). A criterion names what it wants with `evidence(declaration)`, and
finds it by kind in `Problem.evidence`; it is computed anew at the weights of every step.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pruning.curvature import Request
from pruning.curvature.derivatives import differentiating
from pruning.evidence.view import View
from pruning.registry import method

__all__ = ["View", "gather"]


def gather(criterion: Any, view: View) -> Mapping[str, Tensor]:
    """Everything that a criterion's module asks for, by kind.

    Args:
        criterion: Its declaration.
        view: The network, its data and the active weights.

    Raises:
        SecateurError: `operator_unsupported` where torch can't differentiate the network, or what
            the kinds' own `compute` raises.
    """
    ask = getattr(method("criteria", criterion.kind), "evidence", None)
    requests: tuple[Request, ...] = () if ask is None else ask(criterion)
    with differentiating():
        return {r.kind: method("evidence", r.kind).compute(view, **r.parameters) for r in requests}

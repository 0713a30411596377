"""Optimal Brain Damage (LeCun, Denker, Solla 1989, eq. 5): s_q = 1/2 h_qq w_q^2."""

from typing import Any

from torch import Tensor

from pruning.catalogue.criteria.obd import OBD
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: OBD, weights: int) -> Request:
    """The diagonal that the declaration names."""
    parameters: dict[str, dict[str, Any]] = {
        "ggn_mc": {"samples": criterion.samples},
        "hutchinson": {"probes": criterion.probes},
        "second_backprop": {"second_derivatives": criterion.second_derivatives},
    }
    kind = criterion.curvature
    return Request(kind, parameters.get(kind, {}), seeded=kind in ("ggn_mc", "hutchinson"))


def score(problem: Problem) -> Tensor:
    """Predicted increase of the loss for each weight alone, off-diagonal curvature ignored."""
    if problem.curvature is None:
        raise ValueError("OBD needs curvature")
    return 0.5 * problem.curvature.diagonal() * problem.weights.square()

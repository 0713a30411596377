"""OBS on a layer's output error (Dong, Chen, Pan 2017, eq. 5): s_q = w_q^2 / [H^-1]_qq."""

from torch import Tensor

from pruning.catalogue.criteria.layer_obs import LayerOBS
from pruning.criteria.problem import Problem
from pruning.curvature import Request


def curvature(criterion: LayerOBS, weights: int) -> None:
    """None over the whole network: each layer has its own."""


def evidence(criterion: LayerOBS) -> tuple[Request, ...]:
    """The diagonal of each layer's inverse, as every weight meets it."""
    return (Request("layer_inverse", {"damping": criterion.damping}),)


def score(problem: Problem) -> Tensor:
    """Increase of a layer's mean squared output error when one weight goes and its row moves."""
    return problem.weights.square() / problem.evidence["layer_inverse"]

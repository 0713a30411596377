"""Single weights, anywhere."""

import torch
from torch import Tensor

from pruning.errors import SecateurError


def smallest(scores: Tensor, count: int) -> Tensor:
    """Exactly the `count` weights of smallest score, ties broken by position (lower goes first).

    Args:
        scores: Shape [n].
        count: How many, 0 ... n.

    Returns:
        True for the weights that go, shape [n].

    Raises:
        SecateurError: `loss_non_finite` if a score is NaN, which has no rank.
    """
    if not 0 <= count <= len(scores):
        raise ValueError(f"can't choose {count} of {len(scores)}")
    if bool(scores.isnan().any()):
        raise SecateurError(
            "loss_non_finite",
            f"{int(scores.isnan().sum())} of {len(scores)} saliencies are not a number.",
            hint="Check the model's outputs on the calibration data for overflow, and for square "
            "roots and norms of 0, whose derivatives are infinite.",
        )
    gone = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    gone[scores.argsort(stable=True)[:count]] = True
    return gone

"""Conjugate gradients on a given support: the survivors' best weights without a factor of each row.

Every row has its own support S and its own system H_SS w_S = (A H)_S, and all of them are
multiplied by the one H at once: the directions of a row are zero outside its support (Meng et al.
2024, section 3.3). The preconditioner is the diagonal of H.
"""

import torch
from torch import Tensor

ROWS = 512
"""Rows that are worked on at a time: enough for full speed, and the memory of a slab at most."""


def improve(curvature: Tensor, aim: Tensor, weight: Tensor, removed: Tensor, steps: int) -> Tensor:
    """Weights nearer the best ones on their support, exactly zero where `removed`.

    The error of no row rises, rounding apart: each step minimises it over the directions so far.

    Args:
        curvature: H, positive definite (damped), shape [g, d, d].
        aim: A, shape [g, o, d].
        weight: Where to start, shape [g, o, d]; taken as zero where `removed`.
        removed: True for the removed weights, shape [g, o, d].
        steps: How many products with H, beside the one for the first residual. A row ends before
            when its residual is zero or rounding has used up its direction.
    """
    slabs = zip(aim.split(ROWS, 1), weight.split(ROWS, 1), removed.split(ROWS, 1), strict=True)
    return torch.cat([_improve(curvature, *slab, steps=steps) for slab in slabs], 1)


def _improve(
    curvature: Tensor, aim: Tensor, weight: Tensor, removed: Tensor, *, steps: int
) -> Tensor:
    inverse = curvature.diagonal(dim1=1, dim2=2).reciprocal()[:, None, :]
    kept = ~removed
    weight = weight * kept
    image = aim - weight
    residual = torch.bmm(image, curvature).mul_(kept)
    direction = residual * inverse
    scaled = direction.clone()
    size = torch.linalg.vecdot(residual, scaled)
    for step in range(steps):
        torch.bmm(direction, curvature, out=image)
        bend = torch.linalg.vecdot(direction, image)
        length = torch.where(bend > 0, size / bend, 0.0)[..., None]
        weight.addcmul_(direction, length)
        if step == steps - 1:
            break
        residual.addcmul_(image, length, value=-1.0).mul_(kept)
        torch.mul(residual, inverse, out=scaled)
        before, size = size, torch.linalg.vecdot(residual, scaled)
        direction.mul_(torch.where(before > 0, size / before, 0.0)[..., None]).add_(scaled)
    return weight

"""Samples as rows, the softmax's square root of its Hessian, and draws with it as covariance."""

import torch
from torch import Tensor


def rows(values: Tensor) -> Tensor:
    """One row a sample, also where a sample is a single number and values are [N]."""
    return values.reshape(len(values), -1)


def softmax_factor(scores: Tensor, scale: Tensor | None = None) -> Tensor:
    """Blocks scale (diag(sqrt p) - p sqrt(p)') along a diagonal; scores [P, C] -> [P C, P C]."""
    p = scores.softmax(-1)
    blocks = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    if scale is not None:
        blocks = blocks * scale[:, None, None]
    if len(blocks) == 1:
        return blocks[0]
    spread = torch.eye(len(blocks), dtype=blocks.dtype, device=blocks.device)
    return (spread[:, None, :, None] * blocks[:, :, None, :]).reshape(scores.numel(), -1)


def softmax_project(scores: Tensor, tangents: Tensor) -> Tensor:
    """The block's transpose times tangents along the last axis, both of shape [..., C]."""
    p = scores.softmax(-1)
    return p.sqrt() * (tangents - (p * tangents).sum(-1, keepdim=True))


def softmax_diagonal(scores: Tensor) -> Tensor:
    """The diagonal p (1 - p) of the block times its transpose, shape [..., C]."""
    p = scores.softmax(-1)
    return p * (1.0 - p)


def softmax_draw(scores: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Vectors p - e_y with y drawn from the softmax p at every position: E[v v'] = diag(p) - p p'.

    Args:
        scores: Shape [..., C].
        samples: m.
        generator: On the CPU.

    Returns:
        Shape [m, ..., C].
    """
    p = scores.softmax(-1)
    flat = p.double().cpu().reshape(-1, p.shape[-1])
    drawn = torch.multinomial(flat, samples, replacement=True, generator=generator)
    labels = drawn.T.reshape(samples, *p.shape[:-1], 1).to(p.device)
    v = p.expand(samples, *p.shape).clone()
    return v.scatter_add_(-1, labels, -torch.ones_like(labels, dtype=p.dtype))


def normal_draw(roots: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers times `roots` [N, D]: E[v v'] = diag(roots^2); shape [m, N, D]."""
    normal = torch.randn(samples, *roots.shape, generator=generator, dtype=torch.float64)
    return roots * normal.to(roots)

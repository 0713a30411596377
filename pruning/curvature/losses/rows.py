"""Samples as rows, and the softmax's square root of its Hessian."""

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

"""The quadratic form v'Mv of a curvature matrix, in every layout, none of them made dense."""

from functools import singledispatch

import torch
from torch import Tensor

from pruning.curvature.kronecker import Kronecker
from pruning.curvature.matrix import Blocks, Dense, Diagonal, LowRank, Matrix


@singledispatch
def quadratic_form(matrix: Matrix, vector: Tensor) -> float:
    """The number v'Mv.

    Args:
        matrix: M, over A weights.
        vector: v, shape [A], float64.
    """
    raise TypeError(f"no quadratic form for {type(matrix).__name__}")


@quadratic_form.register
def _(matrix: Diagonal, vector: Tensor) -> float:
    return float(matrix.values @ vector.square())


@quadratic_form.register
def _(matrix: Dense, vector: Tensor) -> float:
    return float(vector @ (matrix.values @ vector))


@quadratic_form.register
def _(matrix: Blocks, vector: Tensor) -> float:
    parts = matrix.scatter(vector)[..., None]
    return float((parts * (matrix.values @ parts)).sum())


@quadratic_form.register
def _(matrix: LowRank, vector: Tensor) -> float:
    return float((matrix.rows @ vector).square().sum())


@quadratic_form.register
def _(matrix: Kronecker, vector: Tensor) -> float:
    total = 0.0
    for block in matrix.blocks:
        part = torch.zeros_like(block.scales).flatten()
        part[block.position] = vector[block.index]
        turned = block.left.T @ part.view_as(block.scales) @ block.right
        total += float((block.scales * turned.square()).sum())
    return total

"""Saliencies of single weights, one criterion a file.

Each criterion's module has `score(problem)`, a saliency for each active weight (the smallest go
first), and `curvature(declaration, weights)`, the curvature it wants for that many active weights
or None. Parameters, formula, paper and cost stand in its declaration in `pruning.catalogue`.
"""

from pruning.criteria.problem import Problem

__all__ = ["Problem"]

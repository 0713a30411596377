"""Saliencies of single weights, one criterion a file.

Each criterion's module has `score(problem)`, a saliency for each active weight (the smallest go
first), and `curvature(declaration, weights)`, the curvature it wants for that many active weights
or None. It may have `evidence(declaration)`, which names what else it wants to know of each weight
(a tuple of requests for `pruning.evidence`). Parameters, formula, paper and cost stand in its
declaration in `pruning.catalogue`.
"""

from pruning.criteria.problem import Problem

__all__ = ["Problem"]

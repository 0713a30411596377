"""How sparsity is shared among layers.

The module of a kind has `shares(group, sizes, count, target)`: disjoint sets of active positions,
and how many weights of each go.
"""

"""Compensation: how the survivors move to make up for the removed weights.

The module of a compensation's kind has `compensate(problem, removed)`, the change of all active
weights, removed ones included.
"""

"""Declarations of the compensations, one a file. Their arithmetic is `pruning.solvers.<module>`."""

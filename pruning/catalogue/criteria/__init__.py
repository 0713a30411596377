"""Declarations of the criteria, one a file. Their arithmetic is `pruning.criteria.<module>`."""

"""Which weights go together. The module of a kind has `smallest(scores, count)`."""

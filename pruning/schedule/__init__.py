"""From a target to steps. The module of a kind has `steps(schedule, total, target)`. Torch-free."""

"""Names of a job's runs, as their checkpoints and the plan of the work have them. Torch-free."""


def probe(number: int) -> str:
    """A search's run, from 1."""
    return f"probe-{number}"


def point(sparsity: float) -> str:
    """A run for the curve, at the share that the spec asks for."""
    return f"at-{sparsity!r}"


def compared(criterion: int, seed: int, *, recovered: bool) -> str:
    """A run of a comparison.

    Args:
        criterion: Its place among those compared; 0 is the job's own.
        seed: From 0.
        recovered: Whether it goes through the job's schedule and recovery.
    """
    return f"compare-{criterion}-{seed}-{'recovered' if recovered else 'plain'}"


def stage(run: str, step: int) -> str:
    """A step of a run; 0 is the measurement of the network that it starts from."""
    return f"{run or 'main'}/{step}"

"""Soft pruning: the network is softened, then one hard mask is taken. Torch-free."""

from pruning.schedule.step import Step
from pruning.spec import Proximal


def steps(schedule: Proximal, total: int, target: int) -> list[Step]:
    """One step, after the softening."""
    return [Step(target, recover=True)]

"""Training of the survivors, by labels or by the dense network."""

import hashlib
from contextlib import ExitStack

from pruning.recovery.distillation import Distilled
from pruning.recovery.objective import Objective
from pruning.recovery.setting import Setting
from pruning.recovery.trainer import train
from pruning.spec import FineTune


def recover(setting: Setting, options: FineTune) -> list[str]:
    """Train as the spec says.

    Args:
        setting: Module, data, mask and teacher.
        options: The spec's part.

    Returns:
        What a report should say besides.

    Raises:
        SecateurError: What `train` raises.
    """
    objective = Objective(setting.loss)
    with ExitStack() as stack:
        if options.distill is not None:
            taught = Distilled(setting.loss, options.distill, setting.teacher, setting.features)
            stack.enter_context(taught.watching(setting.module, setting.data))
            objective = taught
        done = train(setting, options, objective)
    if options.early_stop is None:
        return []
    asked = f"{done.epochs} of {options.epochs - setting.first} epochs were trained"
    return [f"{asked}; the loss on the samples held out from training was least after {done.best}."]


def round_seed(seed: int, number: int) -> int:
    """A seed for one round, unrelated to those of other rounds and seeds."""
    return _seed(f"recovery:{seed}:{number}")


def split_seed(seed: int) -> int:
    """A seed for what is held out from every training of a job, where it may end early."""
    return _seed(f"held out:{seed}")


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

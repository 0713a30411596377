"""The weights of the earlier checkpoint that a job names, put into the module."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.schedule.earlier import WHERE, goes_back
from pruning.state import load_state, state_of

if TYPE_CHECKING:
    from pruning.job import Job, State


def check_tensors(module: nn.Module, earlier: dict[str, Tensor]) -> None:
    """Refuses an earlier checkpoint that lacks a tensor of the network, or has it otherwise.

    Args:
        module: The network.
        earlier: The checkpoint's state_dict.

    Raises:
        SecateurError: `rewind_invalid` or `weights_non_finite`, naming the tensor.
    """
    for name, tensor in state_of(module).items():
        found = earlier.get(name)
        if found is None or found.shape != tensor.shape:
            has = "no such tensor" if found is None else f"the shape {list(found.shape)}"
            raise SecateurError(
                "rewind_invalid",
                f"The model's {name} has the shape {list(tensor.shape)}; the earlier checkpoint "
                f"has {has}.",
                where=f"{WHERE}.{name}",
                hint="Give a checkpoint of the same network, exported in the same way.",
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise SecateurError(
                "weights_non_finite",
                f"{name} of the earlier checkpoint holds NaN or infinity.",
                where=f"{WHERE}.{name}",
                hint="Give another checkpoint of the training.",
            )


def to_earlier(job: "Job") -> None:
    """The whole network at the earlier checkpoint."""
    earlier: dict[str, Tensor] = job.dense.rewind_to or {}
    load_state(job.module, earlier)


def rewind(job: "Job", state: "State") -> None:
    """All that is not pruned back at the earlier checkpoint, where the schedule asks for it.

    Frankle et al. 2020, algorithm 2: survivors and everything that is never pruned, buffers
    included; removed weights stay at +0.
    """
    if goes_back(job.spec):
        to_earlier(job)
        job.masking(state.kept).weights()

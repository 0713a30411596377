"""Small jobs for the tests of schedules, and what two runs of one are compared by."""

import copy
from pathlib import Path
from typing import Any

import torch

from pruning import prune
from pruning.data.batches import ArrayData, Data
from pruning.report.schema import results_json
from tests.oracle import cases

torch.set_num_threads(1)

TRAINED = {"kind": "fine_tune", "epochs": 2, "batch_size": 16}
QUIET = {"checks": False, "ladder": False, "bootstrap": 0}


def network(name: str = "mlp-cross_entropy", samples: int = 40) -> tuple[torch.nn.Module, Data]:
    """A network and data on which its decisions are the labels, so that its accuracy is 1."""
    case = cases.make(name, samples=samples)
    with torch.no_grad():
        labels = case.module.eval()(*case.data.inputs.values()).argmax(1)
    data = ArrayData(case.data.inputs, labels)
    return case.module, Data(data, data, data)


def spec(sparsity: float = 0.8, **parts: Any) -> dict[str, Any]:
    """By magnitude, without what takes time and is not about the schedule."""
    asked = {"target": {"sparsity": sparsity}, "trust": QUIET, "criterion": {"kind": "magnitude"}}
    return asked | parts


def earlier(module: torch.nn.Module, seed: int = 1) -> dict[str, torch.Tensor]:
    """A state_dict of the same network from before: other numbers in every tensor."""
    torch.manual_seed(seed)
    other = copy.deepcopy(module)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.6 + 0.1)
        else:
            tensor.add_(3)
    return other.state_dict()


def bits(outcome: Any) -> tuple[list[bytes], list[bytes], bytes]:
    """The bytes of weights, masks and report."""
    state = outcome.module.state_dict()
    return (
        [t.contiguous().numpy().tobytes() for t in state.values()],
        [m.numpy().tobytes() for m in outcome.masks.values()],
        results_json(outcome.report),
    )


class KilledError(Exception):
    """What a test throws into a run."""


def attempt(asked: dict[str, Any], folder: Path, at: int, kind: str, **given: Any) -> Any:
    """One attempt at a job, on the checkpoints of those before; None if it dies in the middle.

    It dies when it says its event number `at`, of a kind or of "any".
    """
    module, data = network()
    seen = 0

    def emit(event: Any) -> None:
        nonlocal seen
        counts = kind in ("any", event.type)
        seen += counts
        if counts and seen == at:
            raise KilledError

    try:
        return prune(module, data, asked, checkpoints=folder, emit=emit, **given)
    except KilledError:
        return None

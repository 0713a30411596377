"""A training between two epochs as tensors and JSON values, and back, bit for bit."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pruning.recovery.early_stop import Best
from pruning.recovery.precision import Precision
from pruning.state import load_state, state_of

Snapshot = tuple[dict[str, Tensor], dict[str, Any]]


def take(
    epoch: int,
    module: nn.Module,
    optimizer: Optimizer,
    precision: Precision,
    order: torch.Generator,
    best: Best | None,
) -> Snapshot:
    """All that the epochs after `epoch` depend on; tensors are not copied."""
    tensors = {f"module.{k}": v for k, v in state_of(module).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items() if v is not None}
    tensors |= {"random": torch.get_rng_state(), "order": order.get_state()}
    device = _device(module)
    if device.type == "cuda":
        tensors["random_cuda"] = torch.cuda.get_rng_state(device)
    values: dict[str, Any] = {"epoch": epoch, "precision": precision.state()}
    if best is not None:
        tensors |= {f"best.{k}": v for k, v in best.tensors.items()}
        values["best"] = best.values()
    return tensors, values


def put_back(
    snapshot: Snapshot,
    module: nn.Module,
    optimizer: Optimizer,
    precision: Precision,
    order: torch.Generator,
    best: Best | None,
) -> int:
    """Set everything to what it was; the number of epochs that are done."""
    tensors, values = snapshot
    load_state(module, _named(tensors, "module."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _named(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    precision.load(values["precision"])
    if best is not None:
        best.loss, best.epoch, best.waited = (
            values["best"][k] for k in ("loss", "epoch", "waited")
        )
        best.tensors = _named(tensors, "best.")
    torch.set_rng_state(tensors["random"])
    order.set_state(tensors["order"])
    if "random_cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random_cuda"], _device(module))
    return int(values["epoch"])


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of a prefix without it, taken out so that they are freed as soon as they are used."""
    names = [k for k in tensors if k.startswith(prefix)]
    return {k.removeprefix(prefix): tensors.pop(k) for k in names}


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device

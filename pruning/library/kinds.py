"""Modules and tensors of kinds that can't be pruned, refused by name."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pruning.errors import SecateurError
from pruning.layers import ONE_WEIGHT

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_kinds(module: Any) -> None:
    """Refuses what holds no weights that could be pruned and run here.

    Args:
        module: As given, wrappers taken off.

    Raises:
        SecateurError: `module_unsupported` with the place, or `no_prunable_layers` for a module
            without parameters.
    """
    if not isinstance(module, nn.Module):
        raise _refusal(
            f"What was given as the module is of type {type(module).__name__}, not a "
            "torch.nn.Module.",
            "module",
            "Pass the nn.Module itself. Files, such as those of torch.export.save, are pruned with "
            "`secateur prune`.",
        )
    for path, part in module.named_modules():
        _check_module(path, part)
    for path, tensor in _tensors(module):
        _check_tensor(path, tensor)
    for path, part in module.named_modules():
        if isinstance(part, ONE_WEIGHT):
            _check_weight(path, vars(part)["_parameters"].get("weight"))
    if next(module.parameters(), None) is None:
        raise SecateurError(
            "no_prunable_layers",
            "The module has no parameters.",
            where="module",
            hint="Give a trained network with Linear or convolution layers.",
        )
    devices = sorted({str(t.device) for _, t in _tensors(module)})
    if len(devices) > 1:
        raise _refusal(
            f"The module's tensors lie on several devices: {', '.join(devices)}.",
            "module",
            "Move the whole module to one device with module.to(device).",
        )


def check_in_place(module: nn.Module) -> None:
    """Refuses weights that can't be changed in place.

    Raises:
        SecateurError: `module_unsupported`, naming the first one.
    """
    for path, tensor in _tensors(module):
        if tensor.is_inference():
            raise _refusal(
                f"{path} was made under torch.inference_mode() and can't be changed in place.",
                path,
                "Pass copy=True, or build the module outside inference_mode.",
            )


def _check_module(path: str, part: nn.Module) -> None:
    kind = type(part)
    name = f"{kind.__name__} at {path}" if path else kind.__name__
    if isinstance(part, torch.jit.ScriptModule):
        raise _refusal(
            f"{name} is a scripted or traced TorchScript module, whose code can't be followed.",
            path or "module",
            "Give the nn.Module that it was made from.",
        )
    homes = [base.__module__ for base in kind.__mro__]
    if any(home.startswith("torch.distributed.fsdp") for home in homes):
        raise _refusal(
            f"{name} keeps its weights in shards over several processes.",
            path or "module",
            "Gather the full weights into a plain module in one process first.",
        )
    if any(home.startswith("torch.ao.nn") and "quantized" in home for home in homes):
        raise _refusal(
            f"{name} is a quantised layer, whose weights are integers.",
            path or "module",
            "Prune the floating-point module, and quantise the result.",
        )


def _check_tensor(path: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise _refusal(
            f"{path} has no shape yet: a lazy layer is not initialised.",
            path,
            "Run the module once on a batch before pruning it.",
        )
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise _refusal(
            f"{path} is of the type {type(tensor).__name__}, not a plain tensor.",
            path,
            "Give a module with plain tensors as weights: gathered, and not quantised.",
        )
    if tensor.is_meta:
        raise _refusal(
            f"{path} lies on the meta device and has no values.",
            path,
            "Load the weights first; with accelerate, load without offloading to disk.",
        )
    if tensor.is_quantized:
        raise _refusal(
            f"{path} is quantised ({_type(tensor)}).",
            path,
            "Prune the floating-point module, and quantise the result.",
        )
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise _refusal(
            f"{path} is a sparse tensor ({layout}).",
            path,
            "Make it dense with to_dense(); its zeros are seen as zeros.",
        )


def _check_weight(path: str, weight: Tensor | None) -> None:
    if weight is not None and weight.dtype not in _TYPES:
        raise _refusal(
            f"The weight of layer {path} has the type {_type(weight)}; float16, bfloat16, float32 "
            "and float64 can be pruned.",
            path,
            "Give the module with real floating-point weights.",
        )
    if weight is not None and not weight.numel():
        raise _refusal(
            f"The weight of layer {path} has no entries: its shape is {list(weight.shape)}.",
            path,
            "Remove the layer, or give it a size.",
        )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refusal(message: str, where: str, hint: str) -> SecateurError:
    return SecateurError("module_unsupported", message, where=where, hint=hint)

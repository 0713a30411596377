"""The network of a plan, without its weights: priced first, then built with none of them allocated.

transformers builds it from a configuration of checked values alone: eager attention, no cache, no
file of the upload in sight. Its parameters stay on the meta device until a file's tensors take
their places; only what is computed from the configuration (positions, rotations) has memory.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning.errors import SecateurError
from pruning.formats.huggingface import offline
from pruning.formats.huggingface.config import FILE, Plan
from pruning.formats.huggingface.forward import Pooling, positional
from pruning.formats.huggingface.texts import shown
from pruning.formats.limits import Limits

_FILLED = {torch.empty, torch.ones, torch.zeros, torch.randn, torch.rand, torch.full}


def price(plan: Plan, limits: Limits) -> nn.Module:
    """The network on the meta device; refused where its numbers are too many.

    Raises:
        SecateurError: `model_too_large`, or `model_invalid` where sizes do not go together.
    """
    with torch.device("meta"):
        module = _construct(plan)
    numbers = sum(x.numel() for x in (*module.parameters(), *module.buffers()))
    if numbers > limits.parameters:
        raise SecateurError(
            "model_too_large",
            f"The network of {FILE} has {numbers} numbers; the limit is {limits.parameters}.",
            where=FILE,
        )
    return module


def build(plan: Plan, pooling: Pooling | None) -> nn.Module:
    """The network, called with its inputs in order, ready for `place`.

    Parameters are on the meta device, everything else in memory.
    """
    with _WithoutParameters():
        module = _construct(plan)
    for name, layer in _turned_layers(module).items():
        inputs, outputs = layer.weight.shape
        parent, _, leaf = name.rpartition(".")
        linear = nn.Linear(inputs, outputs, device="meta")
        setattr(module.get_submodule(parent), leaf, linear)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:
            raise SecateurError("internal_error", f"{name} was not computed.", where=name)
    return positional(module, plan, pooling).eval()


def turned(module: nn.Module) -> frozenset[str]:
    """The weights that files keep transposed, of a network as `price` gives it."""
    return frozenset(f"{name}.weight" for name in _turned_layers(module))


class _WithoutParameters(TorchFunctionMode):
    """Makes floating-point tensors that are only filled with something on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in _FILLED and named.get("device") is None:
            dtype = named.get("dtype")
            if dtype is None or dtype.is_floating_point:
                named["device"] = "meta"
        return func(*args, **named)


def _construct(plan: Plan) -> nn.Module:
    configuration, modeling = offline.classes(plan.family)
    kind = getattr(modeling, plan.architecture.name)  # both from our own table
    try:
        config = getattr(configuration, plan.family.config)(
            **plan.settings, num_labels=plan.labels, attn_implementation="eager"
        )
        config.use_cache = False
        bare = plan.family.pooler and plan.architecture.task == "base"
        module: nn.Module = kind(config, add_pooling_layer=False) if bare else kind(config)
    except SecateurError:
        raise
    except Exception as error:  # whatever the library's checks raise
        raise SecateurError(
            "model_invalid",
            f"{FILE} describes no network: {shown(_first_line(error))}",
            where=FILE,
            hint="Check that its sizes go together.",
        ) from error
    return module


def _turned_layers(module: nn.Module) -> dict[str, Any]:
    """GPT-2's linear layers, which keep their weight transposed and become torch's own here."""
    from transformers.pytorch_utils import Conv1D

    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Conv1D)}


def place(module: nn.Module, paths: list[str], value: Tensor) -> None:
    """Makes one parameter of a value, under every path that is tied to it."""
    parameter = nn.Parameter(value)
    for path in paths:
        parent, _, leaf = path.rpartition(".")
        setattr(module.get_submodule(parent), leaf, parameter)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__

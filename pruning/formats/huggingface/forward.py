"""How a network is called: its inputs in order, and the tensor that losses see first."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning.curvature.whereabouts import raised_in
from pruning.facts import TensorFact
from pruning.formats.failures import FAILURES, Accepted, step_failed
from pruning.formats.huggingface.config import Plan
from pruning.recurrence import transforming


@dataclass(frozen=True)
class Pooling:
    """How a sentence encoder makes one vector of a text's tokens.

    Attributes:
        mode: The first token's, the mean or the largest values over the tokens.
        normalize: Whether it is brought to length 1.
    """

    mode: Literal["cls", "mean", "max"]
    normalize: bool


def input_names(plan: Plan) -> tuple[str, ...]:
    """What the network takes, in order."""
    if plan.most_tokens is None:
        return ("pixel_values",)
    segments = plan.family.segments and plan.settings.get("type_vocab_size", 2) > 1
    return ("input_ids", "attention_mask", *(("token_type_ids",) if segments else ()))


def positional(module: nn.Module, plan: Plan, pooling: Pooling | None) -> nn.Module:
    """The same module with a forward pass of its inputs in order.

    Its layers keep their names, since it is no wrapper: its class is one derived from its own.
    """
    module.__class__ = _derived(type(module))  # type: ignore[arg-type]
    module._names = input_names(plan)  # type: ignore[assignment]
    module._task = plan.architecture.task  # type: ignore[assignment]
    module._bidirectional = plan.family.bidirectional  # type: ignore[assignment]
    module._pooling = pooling  # type: ignore[assignment]
    module._accepted = None  # type: ignore[assignment]
    return module


def accept(module: nn.Module, inputs: Sequence[TensorFact]) -> None:
    """From now on, what fails on inputs of these sizes is no fault of the folder.

    Args:
        module: As `positional` gave it.
        inputs: What it takes; sizes that are names are free.
    """
    shapes = (tuple(s if isinstance(s, int) else None for s in fact.shape) for fact in inputs)
    module._accepted = Accepted(tuple(shapes))  # type: ignore[assignment]


@cache
def _derived(kind: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, *inputs: Tensor) -> Tensor:
        try:
            return passed(self, *inputs)
        except FAILURES as error:
            if transforming():
                raise  # who takes derivatives says which are lacking
            path, layer = raised_in(error, self)
            kind = type(layer).__name__
            raise step_failed(error, kind, path or kind, inputs, self._accepted) from error

    def passed(self: Any, *inputs: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(self._names, inputs, strict=True))
        mask = named.get("attention_mask")
        if self._bidirectional:
            if mask is not None:
                named["attention_mask"] = _added(mask)
            self.config._attn_implementation = "eager" if _differentiated() else "sdpa"
        outputs = kind.forward(self, **named)
        if self._task == "span":
            return torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
        if self._task != "base":
            return outputs.logits  # type: ignore[no-any-return]
        hidden = outputs.last_hidden_state
        if self._pooling is None:
            return hidden  # type: ignore[no-any-return]
        return _pooled(hidden, mask, self._pooling)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": __name__})


def _differentiated() -> bool:
    """Whether derivatives or torch.func's transforms may go through the pass.

    torch's fused attention takes two thirds of the time of the plain one, and has neither second
    derivatives nor forward ones.
    """
    return (
        torch.is_grad_enabled()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def _added(mask: Tensor) -> Tensor:
    """What is added to attention's scores where every token sees all that are no padding.

    The library skips the mask where nothing is padded, which it has to look at the values for;
    shapes alone shall decide, so that passes without data and over single samples work.
    """
    least = torch.finfo(torch.float32).min
    return (1.0 - mask[:, None, None, :].to(torch.float32)) * least


def _pooled(hidden: Tensor, mask: Any, pooling: Pooling) -> Tensor:
    """[N, L, D] and [N, L] to [N, D]."""
    kept = mask[:, :, None].to(hidden.dtype)
    if pooling.mode == "cls":
        vector = hidden[:, 0]
    elif pooling.mode == "mean":
        vector = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
    else:
        vector = hidden.masked_fill(kept == 0, torch.finfo(hidden.dtype).min).amax(1)
    return functional.normalize(vector, dim=1) if pooling.normalize else vector

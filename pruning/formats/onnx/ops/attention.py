"""Attention and rotary position embedding as single operators (opset 23 and later)."""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced

_MOST_SCORES = 1 << 28
_TYPES = {1: torch.float32, 10: torch.float32, 11: torch.float64, 16: torch.float32}


@dataclass(frozen=True)
class _Options:
    """The attributes; `window` is how many keys before and after a query it sees, or -1."""

    heads: int | None
    key_heads: int | None
    scale: float | None
    softcap: float
    causal: bool
    window: tuple[int, int]
    mode: int
    precision: torch.dtype | None


def _attention(node: Node, builder: Builder) -> None:
    attributes = node.attributes
    precision = attributes.int("softmax_precision")
    if precision is not None and precision not in _TYPES:
        raise node.unsupported(f"softmax_precision={precision}")
    options = _Options(
        heads=attributes.int("q_num_heads"),
        key_heads=attributes.int("kv_num_heads"),
        scale=attributes.float("scale"),
        softcap=attributes.float("softcap", 0.0),
        causal=bool(attributes.int("is_causal", 0)),
        window=(attributes.int("left_window_size", -1), attributes.int("right_window_size", -1)),
        mode=attributes.int("qk_matmul_output_mode", 0),
        precision=None if precision is None else _TYPES[precision],
    )
    if options.mode not in range(4) or min(options.window) < -1 or options.softcap < 0:
        raise node.invalid("qk_matmul_output_mode, a window or softcap is out of range")
    names = [*node.outputs, "", "", ""][:4]
    if builder.graph.uses.get(names[3]) and options.mode == 0 and options.softcap:
        # The standard's text and its reference disagree on whether the softcap comes first.
        raise node.unsupported("qk_matmul_output_mode=0 with softcap")
    outputs = [name or f"{node.outputs[0]}/unread {i}" for i, name in enumerate(names)]
    function = partial(compute, partial(attention, options=options))
    builder.call(node, function, [node.input(i) for i in range(7)], outputs)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    lengths: Tensor | None,
    options: _Options,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """softmax(q k' scale + bias) v (Vaswani et al. 2017, equation 1).

    Values are [samples, heads, steps, entries], or [samples, steps, heads * entries].

    Returns:
        The result, all keys and values with those before them, and what the mode asks for: the
        scores, with bias or after the softcap (which comes first), or the probabilities.
    """
    flat = query.dim() == 3
    if flat:
        query = _split(query, options.heads)
        key, value = _split(key, options.key_heads), _split(value, options.key_heads)
    if (past_key is None) != (past_value is None) or (lengths is not None and past_key is not None):
        raise SecateurError("model_invalid", "Attention: its caches do not belong together.")
    before = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
    keys, values = (_repeated(v, query.shape[1]) for v in (key, value))
    shape = (*query.shape[:3], keys.shape[2])
    priced(query, shape, "The scores of attention", _MOST_SCORES)
    scale = query.shape[-1] ** -0.5 if options.scale is None else options.scale
    scores = (query * math.sqrt(scale)) @ (keys.transpose(-1, -2) * math.sqrt(scale))
    raw = scores
    if options.softcap > 0:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    offset = before if lengths is None else (lengths.reshape(-1, 1, 1, 1) - query.shape[2])
    bias, hidden = _bias(scores, mask, offset, lengths, options)
    # With nothing left to see, a row is zeros. Its scores stay finite for the derivative's sake.
    biased = scores + bias
    safe = torch.where(hidden, torch.zeros_like(biased), biased)
    weights = torch.softmax(safe, -1, dtype=options.precision).to(query.dtype)
    weights = torch.where(hidden, torch.zeros_like(weights), weights)
    result = weights @ values
    if flat:
        result = result.transpose(1, 2).flatten(2)
    return result, key, value, (raw, scores, biased, weights)[options.mode]


def _split(x: Tensor, heads: int | None) -> Tensor:
    if not heads or heads < 1 or x.shape[-1] % heads:
        raise SecateurError("model_invalid", f"Attention of {list(x.shape)} with {heads} heads.")
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def _repeated(x: Tensor, heads: int) -> Tensor:
    if x.shape[1] == heads:
        return x
    if not x.shape[1] or heads % x.shape[1]:
        raise SecateurError(
            "model_invalid", f"Attention with {heads} heads of queries and {x.shape[1]} of keys."
        )
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _bias(
    scores: Tensor,
    mask: Tensor | None,
    offset: int | Tensor,
    lengths: Tensor | None,
    options: _Options,
) -> tuple[Tensor, Tensor]:
    """What is added to the scores, and which of their rows see nothing."""
    steps, size = scores.shape[-2:]
    zero, never = scores.new_zeros(()), scores.new_full((), -torch.inf)
    at = torch.arange(steps, device=scores.device).unsqueeze(-1) + offset
    other = torch.arange(size, device=scores.device)
    seen = torch.ones((steps, size), dtype=torch.bool, device=scores.device)
    left, right = options.window
    if options.causal:
        seen = seen & (other <= at)
    if left >= 0:
        seen = seen & (at - other <= left)
    if right >= 0:
        seen = seen & (other - at <= right)
    if lengths is not None:
        seen = seen & (other < lengths.reshape(-1, 1, 1, 1))
    bias = torch.where(seen, zero, never)
    if mask is not None:
        missing = size - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = torch.where(mask, zero, never)
        if missing > 0:
            mask = F.pad(mask, (0, missing), value=-torch.inf)
        bias = bias + mask.to(scores.dtype)
    return bias, (bias == -torch.inf).all(-1, keepdim=True)


def _rotary(node: Node, builder: Builder) -> None:
    options = {
        "interleaved": bool(node.attributes.int("interleaved", 0)),
        "heads": node.attributes.int("num_heads", 0),
        "part": node.attributes.int("rotary_embedding_dim", 0),
    }
    function = partial(compute, partial(rotary, **options))
    builder.call(node, function, [node.input(i) for i in range(4)])


def rotary(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None,
    interleaved: bool,
    heads: int,
    part: int,
) -> Tensor:
    """Pairs of entries turned by angles that grow with the position (Su et al. 2021)."""
    turned = x.transpose(1, 2) if x.dim() == 4 else _split(x, heads).transpose(1, 2)
    part = part or turned.shape[-1]
    if positions is not None:
        cosines, sines = (_at(table, positions) for table in (cosines, sines))
    cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
    if cosines.shape[-1] * 2 != part:
        raise SecateurError("model_invalid", f"RotaryEmbedding of {part} entries.")
    moved, rest = turned[..., :part], turned[..., part:]
    if interleaved:
        first, second = moved[..., 0::2], moved[..., 1::2]
    else:
        first, second = moved.chunk(2, -1)
    real, imaginary = cosines * first - sines * second, sines * first + cosines * second
    if interleaved:
        both = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        both = torch.cat([real, imaginary], -1)
    result = torch.cat([both, rest], -1)
    return result.transpose(1, 2) if x.dim() == 4 else result.flatten(2)


def _at(table: Tensor, positions: Tensor) -> Tensor:
    rows = table.index_select(0, positions.long().reshape(-1))
    return rows.reshape(*positions.shape, table.shape[-1])


def _swiglu(node: Node, builder: Builder) -> None:
    alpha = node.attributes.float("alpha", 1.0)
    function = partial(compute, partial(swiglu, alpha=alpha))
    builder.call(node, function, [node.input(0), node.input(1)])


def swiglu(gate: Tensor, x: Tensor, alpha: float) -> Tensor:
    """X gated by a swish (Shazeer 2020)."""
    return gate * torch.sigmoid(alpha * gate) * x


OPERATORS = {"Attention": _attention, "RotaryEmbedding": _rotary, "SwiGLU": _swiglu}

"""Which calls of a graph are layers: an operator on stored weights as torch's own module of it.

A recogniser gives a `Layer`, or None where the call is none of those it knows; then the operator
itself is called, with the weights as plain parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.fx import Node

from pruning.formats.pt2.module import Attention


@dataclass(frozen=True)
class Layer:
    """A module to make, and what goes where.

    Attributes:
        make: The module, its parameters on the meta device.
        state: Name of a parameter or buffer in the module to its node in the graph.
        args: What it is called with.
        kwargs: Likewise.
        key: What two calls of one module have in common besides the state.
        transposed: Whether the file has the weight's two axes the other way round.
        first: Whether the operator gives a tuple, and the module what stands first in it.
        flat: Whether the module gives a nested tuple where the operator gives a flat one.
    """

    make: Callable[[], nn.Module]
    state: dict[str, Node]
    args: tuple[Any, ...]
    key: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    transposed: bool = False
    first: bool = False
    flat: bool = False


class Calls:
    """What recognisers ask about the graph.

    Args:
        stored: Whether a node is a parameter or buffer of the file.
        parameter: Whether a node is a floating-point parameter.
        sole: Whether a node is used once, and shares its numbers with no other.
    """

    def __init__(
        self,
        stored: Callable[[Any], bool],
        parameter: Callable[[Any], bool],
        sole: Callable[[Node], bool],
    ) -> None:
        self.stored, self.parameter, self.sole = stored, parameter, sole

    def recognise(self, node: Node) -> Layer | None:
        """The layer that a call is, if it is one."""
        name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
        known = _RECOGNISERS.get(name)
        return known(self, node, bound(node)) if known else None

    def weights(self, weight: Any, bias: Any) -> dict[str, Node] | None:
        """Weight and bias, where the first is a parameter and the second one or none."""
        if not self.parameter(weight) or not (bias is None or self.parameter(bias)):
            return None
        return {"weight": weight} | ({} if bias is None else {"bias": bias})


def bound(node: Node) -> dict[str, Any]:
    """A call's arguments by the names in the operator's schema, with defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    values = {a.name: a.default_value for a in schema}
    values.update(zip((a.name for a in schema), node.args, strict=False))
    return values | dict(node.kwargs)


def shape(node: Any) -> tuple[int, ...]:
    """Sizes of a stored tensor."""
    return tuple(int(size) for size in node.meta["val"].shape)


def _linear(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    return _as_linear(calls, given["input"], given["weight"], given["bias"])


def _as_linear(
    calls: Calls, x: Any, weight: Any, bias: Any, transposed: bool = False
) -> Layer | None:
    state = calls.weights(weight, bias)
    if state is None or len(shape(weight)) != 2:
        return None
    out, into = shape(weight)[::-1] if transposed else shape(weight)
    if bias is not None and shape(bias) != (out,):
        return None

    def make() -> nn.Module:
        return nn.Linear(into, out, bias is not None, device="meta")

    return Layer(make, state, (x,), ("Linear", transposed), transposed=transposed)


def _addmm(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    if given["beta"] != 1 or given["alpha"] != 1:
        return None
    return _product(calls, given["mat1"], given["mat2"], given["self"])


def _matmul(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    return _product(calls, given["self"], given["mat2" if "mat2" in given else "other"], None)


def _batched(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    """A product with one matrix for all, spread over the batch."""
    matrix = given["mat2"]
    for name in ("view", "expand"):
        if not isinstance(matrix, Node) or not hasattr(matrix.target, "_schema"):
            return None
        inner = matrix.args[0] if matrix.args else None
        if matrix.target._schema.name != f"aten::{name}" or not isinstance(inner, Node):
            return None
        if name == "view" and inner.meta["val"].shape != matrix.meta["val"].shape:
            return None
        matrix = inner
    if matrix.meta["val"].ndim != 2:
        return None
    return _product(calls, given["self"], matrix, None)


def _product(calls: Calls, x: Any, matrix: Any, bias: Any) -> Layer | None:
    if not isinstance(matrix, Node) or not isinstance(x, Node) or x.meta["val"].ndim < 2:
        return None
    turned = _turned(matrix)
    if turned is not None:
        return _as_linear(calls, x, turned, bias)
    # What a projection of two computed tensors is stays a product.
    if calls.parameter(matrix) and calls.sole(matrix) and not calls.stored(x):
        return _as_linear(calls, x, matrix, bias, transposed=True)
    return None


def _turned(node: Node) -> Any:
    """The matrix that a node is the transpose of."""
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return None
    name, given = node.target._schema.name, bound(node)
    if name in ("aten::t", "aten::numpy_T", "aten::mT"):
        return given["self"]
    if name == "aten::permute" and [d % 2 for d in given["dims"]] == [1, 0]:
        return given["self"] if len(given["dims"]) == 2 else None
    if name == "aten::transpose" and node.meta["val"].ndim == 2:
        return given["self"] if {given["dim0"] % 2, given["dim1"] % 2} == {0, 1} else None
    return None


_CONVOLUTIONS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (3, False): nn.Conv3d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
    (3, True): nn.ConvTranspose3d,
}


def _convolution(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], given["bias"])
    if state is None:
        return None
    sizes = shape(given["weight"])
    count = len(sizes) - 2
    name = node.target._schema.name  # type: ignore[union-attr]
    transposed = bool(given.get("transposed", "transpose" in name))
    groups = int(given["groups"])
    kind = _CONVOLUTIONS.get((count, transposed))
    padding = given["padding"]
    if not isinstance(padding, str):
        padding = _each(padding, count)
    settings: dict[str, Any] = {
        "stride": _each(given["stride"], count),
        "padding": padding,
        "dilation": _each(given["dilation"], count),
    }
    if kind is None or None in settings.values():
        return None
    if transposed:
        settings["output_padding"] = _each(given["output_padding"], count)
    elif any(_each(given.get("output_padding", [0]), count) or ()):
        return None
    channels = (sizes[0], sizes[1] * groups) if transposed else (sizes[1] * groups, sizes[0])
    has_bias = given["bias"] is not None

    def make() -> nn.Module:
        return kind(*channels, sizes[2:], groups=groups, bias=has_bias, device="meta", **settings)

    key = (kind.__name__, groups, *map(str, settings.values()))
    return Layer(make, state, (given["input"],), key)


def _each(value: Any, count: int) -> tuple[int, ...] | None:
    """One number an axis; None where one is no plain number."""
    numbers = [value] if isinstance(value, int) else list(value)
    if len(numbers) == 1:
        numbers *= count
    if len(numbers) != count or not all(type(n) is int for n in numbers):
        return None
    return tuple(numbers)


_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _batch_norm(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], given["bias"]) if given["weight"] is not None else {}
    means: list[Any] = [given.get("running_mean"), given.get("running_var")]
    if state is None or len(state) == 1 or not all(calls.stored(m) for m in means):
        return None
    if given["weight"] is None and given["bias"] is not None:
        return None
    kind = _BATCH_NORMS.get(given["input"].meta["val"].ndim)
    if kind is None:
        return None
    momentum, eps, affine = given["momentum"], given["eps"], bool(state)
    channels = shape(means[0])[0]

    def make() -> nn.Module:
        layer = kind(channels, eps, momentum, affine, device="meta")
        layer.num_batches_tracked = None
        return layer

    state |= {"running_mean": means[0], "running_var": means[1]}
    first = len(node.target._schema.returns) > 1  # type: ignore[union-attr]
    return Layer(make, state, (given["input"],), (kind.__name__, eps, momentum), first=first)


def _layer_norm(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], given["bias"])
    sizes = _each(given["normalized_shape"], len(given["normalized_shape"]))
    if state is None or sizes is None:
        return None
    eps, has_bias = given["eps"], given["bias"] is not None

    def make() -> nn.Module:
        return nn.LayerNorm(sizes, eps, bias=has_bias, device="meta")

    first = len(node.target._schema.returns) > 1  # type: ignore[union-attr]
    return Layer(make, state, (given["input"],), ("LayerNorm", eps), first=first)


def _rms_norm(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], None)
    sizes = _each(given["normalized_shape"], len(given["normalized_shape"]))
    if state is None or sizes is None:
        return None
    eps = given["eps"]
    first = len(node.target._schema.returns) > 1  # type: ignore[union-attr]

    def make() -> nn.Module:
        return nn.RMSNorm(sizes, eps, device="meta")

    return Layer(make, state, (given["input"],), ("RMSNorm", eps), first=first)


def _group_norm(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], given["bias"])
    if state is None or len(state) != 2:
        return None
    groups, eps = given["num_groups"], given["eps"]
    channels = shape(given["weight"])[0]

    def make() -> nn.Module:
        return nn.GroupNorm(groups, channels, eps, device="meta")

    return Layer(make, state, (given["input"],), ("GroupNorm", groups, eps))


def _embedding(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    state = calls.weights(given["weight"], None)
    if state is None or not isinstance(given["padding_idx"], int):
        return None
    rows, width = shape(given["weight"])
    padding = given["padding_idx"] if given["padding_idx"] >= 0 else None

    def make() -> nn.Module:
        return nn.Embedding(rows, width, padding_idx=padding, device="meta")

    return Layer(make, state, (given["indices"],), ("Embedding", padding))


_RECURRENT = {
    "lstm": ("LSTM", 4),
    "gru": ("GRU", 3),
    "rnn_tanh": ("tanh", 1),
    "rnn_relu": ("relu", 1),
}


def _recurrent(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    params = given.get("params")
    if "input" not in given or not params or not all(map(calls.parameter, params)):
        return None
    kind, gates = _RECURRENT[name]
    hidden = shape(params[1])[0] // gates
    projected = shape(params[1])[1]
    settings: dict[str, Any] = {
        "num_layers": given["num_layers"],
        "bias": given["has_biases"],
        "batch_first": given["batch_first"],
        "dropout": given["dropout"],
        "bidirectional": given["bidirectional"],
    }
    if projected != hidden:
        settings["proj_size"] = projected

    def make() -> nn.Module:
        sizes = (shape(params[0])[1], hidden)
        if kind == "LSTM":
            return nn.LSTM(*sizes, device="meta", **settings)
        if kind == "GRU":
            return nn.GRU(*sizes, device="meta", **settings)
        return nn.RNN(*sizes, nonlinearity=kind, device="meta", **settings)

    try:
        names: Any = make()._flat_weights_names
    except (ValueError, RuntimeError):
        return None
    if len(names) != len(params):
        return None
    state = dict(zip(names, params, strict=True))
    hx = tuple(given["hx"]) if kind == "LSTM" else given["hx"]
    key = (kind, *map(str, settings.values()))
    return Layer(make, state, (given["input"], hx), key, flat=kind == "LSTM")


_DROPOUTS: dict[str, dict[int, type[nn.Module]]] = {
    "feature_dropout": {3: nn.Dropout1d, 4: nn.Dropout2d, 5: nn.Dropout3d}
}


def _dropout(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
    p = given["p"]
    kind: type[nn.Module] | None = nn.Dropout
    if name == "alpha_dropout":
        kind = nn.AlphaDropout
    elif name == "feature_alpha_dropout":
        kind = nn.FeatureAlphaDropout
    elif name == "feature_dropout":
        kind = _DROPOUTS[name].get(given["input"].meta["val"].ndim)
    if kind is None or not isinstance(p, int | float) or not 0 <= p <= 1:
        return None
    made = kind
    return Layer(lambda: made(p), {}, (given["input"],), (), first=name == "native_dropout")


_ATTENTION = ("attn_mask", "is_causal", "scale", "enable_gqa")


def _attention(calls: Calls, node: Node, given: dict[str, Any]) -> Layer | None:
    p = given["dropout_p"]
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        return None
    options = {key: given[key] for key in _ATTENTION if given.get(key) not in (None, False)}
    args = (given["query"], given["key"], given["value"])
    first = len(node.target._schema.returns) > 1  # type: ignore[union-attr]
    return Layer(lambda: Attention(float(p)), {}, args, (), options, first=first)


_RECOGNISERS: dict[str, Callable[[Calls, Node, dict[str, Any]], Layer | None]] = {
    "linear": _linear,
    "addmm": _addmm,
    "mm": _matmul,
    "matmul": _matmul,
    "bmm": _batched,
    **dict.fromkeys(
        (
            "conv1d",
            "conv2d",
            "conv3d",
            "convolution",
            "_convolution",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
        ),
        _convolution,
    ),
    **dict.fromkeys(
        (
            "batch_norm",
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_functional",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "_batch_norm_with_update_functional",
        ),
        _batch_norm,
    ),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), _rms_norm),
    "group_norm": _group_norm,
    "embedding": _embedding,
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(
        (
            "dropout",
            "dropout_",
            "native_dropout",
            "alpha_dropout",
            "feature_dropout",
            "feature_alpha_dropout",
        ),
        _dropout,
    ),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_attention_math",
        ),
        _attention,
    ),
}

"""The layers that architecture.json can name: kinds of torch.nn, each with its own arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from pruning.formats.architecture.arguments import Parameter, signature

Describe = Callable[[nn.Module, "LayerKind"], dict[str, Any] | None]


@dataclass(frozen=True)
class LayerKind:
    """One kind of layer.

    Attributes:
        name: Its key in the file.
        type: The class.
        parameters: What it is made with.
        call: What its forward takes.
        make: Makes it of its arguments.
        describe: The arguments of a live layer, or None where they can't say all of it.
    """

    name: str
    type: type[nn.Module]
    parameters: tuple[Parameter, ...]
    call: tuple[Parameter, ...]
    make: Callable[..., nn.Module]
    describe: Describe


def attributes(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
    """Arguments that a layer keeps as attributes of the same names; defaults left out."""
    found = {}
    for p in kind.parameters:
        value = getattr(module, p.name)
        if p.name == "bias":
            value = value is not None and value is not False
        if isinstance(value, tuple):
            value = list(value)
        if not p.admits(value):
            return None
        if value != p.default:
            found[p.name] = value
    return found


def _without(**refused: Any) -> Describe:
    """As `attributes`, for layers on which these attributes have these values."""

    def describe(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
        if any(getattr(module, name) != value for name, value in refused.items()):
            return None
        return attributes(module, kind)

    return describe


LAYERS: dict[str, LayerKind] = {}


def _add(
    names: str,
    parameters: str = "",
    call: str = "input:tensor",
    describe: Describe = attributes,
    make: Callable[..., nn.Module] | None = None,
) -> None:
    for name in names.split():
        type_: type[nn.Module] = getattr(nn, name)
        LAYERS[name] = LayerKind(
            name, type_, signature(parameters), signature(call), make or type_, describe
        )  # fmt: skip


_add("Linear", "in_features:size out_features:size bias:bool=true")
_add("Bilinear", "in1_features:size in2_features:size out_features:size bias:bool=true",
     "input1:tensor input2:tensor")  # fmt: skip
_CONV = "in_channels:size out_channels:size kernel_size:sizes stride:sizes=1 "
_add("Conv1d Conv2d Conv3d", _CONV + "padding:sizes{same,valid}=0 dilation:sizes=1 groups:size=1 "
     'bias:bool=true padding_mode:{zeros,reflect,replicate,circular}="zeros"')  # fmt: skip
_add("ConvTranspose1d ConvTranspose2d ConvTranspose3d", _CONV + "padding:sizes=0 "
     "output_padding:sizes=0 groups:size=1 bias:bool=true dilation:sizes=1",
     "input:tensor output_size:ints?")  # fmt: skip
_NORM = "num_features:size eps:float=1e-05 momentum:float?=0.1 "
_add("BatchNorm1d BatchNorm2d BatchNorm3d",
     _NORM + "affine:bool=true track_running_stats:bool=true")  # fmt: skip
_add("InstanceNorm1d InstanceNorm2d InstanceNorm3d",
     _NORM + "affine:bool=false track_running_stats:bool=false")  # fmt: skip
_add("LayerNorm", "normalized_shape:sizes eps:float=1e-05 elementwise_affine:bool=true "
     "bias:bool=true", describe=lambda m, k: _layer_norm(m, k))  # fmt: skip
_add("RMSNorm", "normalized_shape:sizes eps:float? elementwise_affine:bool=true")
_add("GroupNorm", "num_groups:size num_channels:size eps:float=1e-05 affine:bool=true")
_add("LocalResponseNorm", "size:size alpha:float=0.0001 beta:float=0.75 k:float=1.0")
_add("Embedding", "num_embeddings:size embedding_dim:size padding_idx:int?",
     describe=_without(max_norm=None, sparse=False))  # fmt: skip

_add("Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout", "p:chance=0.5")
_add("Identity ReLU ReLU6 SELU SiLU Mish Tanh Sigmoid Hardswish Hardsigmoid LogSigmoid Softsign "
     "Tanhshrink Softmax2d")  # fmt: skip
_add("ELU CELU", "alpha:float=1.0")
_add("LeakyReLU", "negative_slope:float=0.01")
_add("GELU", 'approximate:{none,tanh}="none"')
_add("Softmax LogSoftmax Softmin", "dim:int?")
_add("GLU", "dim:int=-1")
_add("Hardtanh", "min_val:float=-1.0 max_val:float=1.0")
_add("Softplus", "beta:float=1.0 threshold:float=20.0")
_add("Threshold", "threshold:float value:float")
_add("Hardshrink Softshrink", "lambd:float=0.5")
_add("PReLU", "num_parameters:size=1")

_POOL = "kernel_size:sizes stride:sizes? padding:sizes=0 "
_add("MaxPool1d MaxPool2d MaxPool3d", _POOL + "dilation:sizes=1 ceil_mode:bool=false",
     describe=_without(return_indices=False))  # fmt: skip
_add("AvgPool1d", _POOL + "ceil_mode:bool=false count_include_pad:bool=true")
_add("AvgPool2d AvgPool3d", _POOL + "ceil_mode:bool=false count_include_pad:bool=true "
     "divisor_override:size?")  # fmt: skip
_add("AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d", "output_size:sizes?")
_add("AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d", "output_size:sizes?",
     describe=_without(return_indices=False))  # fmt: skip
_add("LPPool1d LPPool2d", "norm_type:float kernel_size:sizes stride:sizes? ceil_mode:bool=false")

_add("Upsample", "size:sizes? scale_factor:floats? "
     'mode:{nearest,linear,bilinear,bicubic,trilinear,nearest-exact}="nearest" '
     "align_corners:bool? recompute_scale_factor:bool?")  # fmt: skip
_add("Flatten", "start_dim:int=1 end_dim:int=-1")
_add("Unflatten", "dim:int unflattened_size:ints")
_add("PixelShuffle", "upscale_factor:size")
_add("PixelUnshuffle", "downscale_factor:size")
_add("ChannelShuffle", "groups:size")
_add("ConstantPad1d ConstantPad2d ConstantPad3d", "padding:ints value:float")
_add("ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d "
     "ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d CircularPad2d "
     "CircularPad3d", "padding:ints")  # fmt: skip
_WINDOW = "kernel_size:sizes dilation:sizes=1 padding:sizes=0 stride:sizes=1"
_add("Unfold", _WINDOW)
_add("Fold", "output_size:sizes " + _WINDOW)

_RECURRENT = (
    "input_size:size hidden_size:size num_layers:few=1 bias:bool=true batch_first:bool=false "
    "dropout:chance=0.0 bidirectional:bool=false"
)
_add("LSTM", _RECURRENT + " proj_size:count=0", "input:tensor hx:tensors?")
_add("GRU", _RECURRENT, "input:tensor hx:tensor?")
_add("RNN", _RECURRENT + ' nonlinearity:{tanh,relu}="tanh"', "input:tensor hx:tensor?")
_CELL = "input_size:size hidden_size:size bias:bool=true"
_add("LSTMCell", _CELL, "input:tensor hx:tensors?")
_add("GRUCell", _CELL, "input:tensor hx:tensor?")
_add("RNNCell", _CELL + ' nonlinearity:{tanh,relu}="tanh"', "input:tensor hx:tensor?")


def _layer_norm(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
    found = attributes(module, kind)
    if found and not getattr(module, "elementwise_affine", True):
        found.pop("bias", None)  # without an affine part there is none to leave out
    return found


def _attention(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
    assert isinstance(module, nn.MultiheadAttention)
    full = {
        "embed_dim": module.embed_dim,
        "num_heads": module.num_heads,
        "dropout": module.dropout,
        "bias": module.in_proj_bias is not None,
        "add_bias_kv": module.bias_k is not None,
        "add_zero_attn": module.add_zero_attn,
        "kdim": None if module.kdim == module.embed_dim else module.kdim,
        "vdim": None if module.vdim == module.embed_dim else module.vdim,
        "batch_first": module.batch_first,
    }
    return {p.name: full[p.name] for p in kind.parameters if full[p.name] != p.default}


def _block(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
    """Arguments of nn.TransformerEncoderLayer and nn.TransformerDecoderLayer."""
    layer: Any = module
    activation = getattr(layer.activation, "__name__", type(layer.activation).__name__).lower()
    if activation not in ("relu", "gelu") or getattr(layer.activation, "approximate", "none") != (
        "none"
    ):
        return None
    attention = layer.self_attn
    full = {
        "d_model": attention.embed_dim,
        "nhead": attention.num_heads,
        "dim_feedforward": layer.linear1.out_features,
        "dropout": layer.dropout.p,
        "activation": activation,
        "layer_norm_eps": layer.norm1.eps,
        "batch_first": attention.batch_first,
        "norm_first": layer.norm_first,
        "bias": layer.linear1.bias is not None,
    }
    return {p.name: full[p.name] for p in kind.parameters if full.get(p.name) != p.default}


def _stack(module: nn.Module, kind: LayerKind) -> dict[str, Any] | None:
    """Arguments of nn.TransformerEncoder and nn.TransformerDecoder."""
    stack: Any = module
    inner = LAYERS[kind.name + "Layer"]
    if any(type(layer) is not inner.type for layer in stack.layers):
        return None
    described = [_block(layer, inner) for layer in stack.layers]
    if not described or described[0] is None or any(d != described[0] for d in described):
        return None
    found = described[0] | {"num_layers": len(described)}
    if stack.norm is None:
        return found
    if type(stack.norm) is not nn.LayerNorm or list(stack.norm.normalized_shape) != [
        described[0]["d_model"]
    ]:
        return None
    if (stack.norm.bias is None) != (described[0].get("bias") is False):
        return None
    return found | {"norm_eps": stack.norm.eps}


def _make_block(type_: type[nn.Module]) -> Callable[..., nn.Module]:
    def make(**args: Any) -> nn.Module:
        layer = type_(**args)
        # Torch's fused kernel for inference would hide the layer's matrices from the passes that
        # look at each; without this mark it is never taken.
        layer.activation_relu_or_gelu = 0  # type: ignore[assignment]
        return layer

    return make


def _make_stack(block: str, type_: Callable[..., nn.Module], **more: Any) -> Any:
    def make(num_layers: int, norm_eps: float | None, **args: Any) -> nn.Module:
        norm = None
        if norm_eps is not None:
            norm = nn.LayerNorm(args["d_model"], eps=norm_eps, bias=args["bias"])
        return type_(LAYERS[block].make(**args), num_layers, norm, **more)

    return make


_add("MultiheadAttention", "embed_dim:size num_heads:size dropout:chance=0.0 bias:bool=true "
     "add_bias_kv:bool=false add_zero_attn:bool=false kdim:size? vdim:size? "
     "batch_first:bool=false",
     "query:tensor key:tensor value:tensor key_padding_mask:tensor? need_weights:bool=true "
     "attn_mask:tensor? average_attn_weights:bool=true is_causal:bool=false",
     _attention)  # fmt: skip
_BLOCK = ('d_model:size nhead:size dim_feedforward:size=2048 dropout:chance=0.1 '
          'activation:{relu,gelu}="relu" layer_norm_eps:float=1e-05 batch_first:bool=false '
          "norm_first:bool=false bias:bool=true")  # fmt: skip
_STACK = f"num_layers:few {_BLOCK} norm_eps:float?"
# Left open, torch would look into the mask to tell whether it is causal.
_MASKS = "src_key_padding_mask:tensor? is_causal:bool=false"
_DECODED = ("tgt:tensor memory:tensor tgt_mask:tensor? memory_mask:tensor? "
            "tgt_key_padding_mask:tensor? memory_key_padding_mask:tensor? ")  # fmt: skip
_DECODED += "tgt_is_causal:bool=false memory_is_causal:bool=false"
_add("TransformerEncoderLayer", _BLOCK, f"src:tensor src_mask:tensor? {_MASKS}", _block,
     _make_block(nn.TransformerEncoderLayer))  # fmt: skip
_add("TransformerDecoderLayer", _BLOCK, _DECODED, _block,
     nn.TransformerDecoderLayer)  # fmt: skip
_add("TransformerEncoder", _STACK, f"src:tensor mask:tensor? {_MASKS}", _stack,
     _make_stack("TransformerEncoderLayer", nn.TransformerEncoder,
                 enable_nested_tensor=False))  # fmt: skip
_add("TransformerDecoder", _STACK, _DECODED, _stack,
     _make_stack("TransformerDecoderLayer", nn.TransformerDecoder))  # fmt: skip


def kind_of(layer: nn.Module) -> LayerKind | None:
    """The kind of a live layer, also of a subclass that computes the same; None for any other."""
    kinds = {kind.type: kind for kind in LAYERS.values()}
    own = type(layer)
    base = next((b for b in own.__mro__ if b in kinds), None)
    if base is None or own.forward is not base.forward or own.__call__ is not base.__call__:
        return None
    if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
        return None
    return kinds[base]


def stack_depth(args: dict[str, Any]) -> int:
    """How many layers a layer stands for."""
    return int(args.get("num_layers", 1))

"""Functions of torch.nn.functional with weights, windows or images; entered in `FUNCTIONS`."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning.formats.architecture.functions import declare


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool,
    scale: float | None, grouped: bool,
) -> Tensor:  # fmt: skip
    return F.scaled_dot_product_attention(
        query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=grouped
    )


def _padded(x: Tensor, pad: list[int], mode: str, value: float | None) -> Tensor:
    return F.pad(x, pad, mode, value)


def _interpolated(
    x: Tensor, size: Any, scale: Any, mode: str, corners: bool | None, recompute: bool | None,
    antialias: bool,
) -> Tensor:  # fmt: skip
    given = scale if size is None else None
    factors = given if isinstance(given, list) else [given or 1.0]
    if any(not math.isfinite(f) or f > 2**16 for f in factors):
        raise ValueError(f"a scale of {given}")
    return F.interpolate(x, size, scale, mode, corners, recompute, antialias)


_CONV = (
    "input:tensor weight:tensor bias:tensor? stride:ints=1 padding:ints{same,valid}=0 "
    "dilation:ints=1 groups:int=1"
)
_TRANSPOSED = (
    "input:tensor weight:tensor bias:tensor? stride:ints=1 padding:ints=0 output_padding:ints=0 "
    "groups:int=1 dilation:ints=1"
)
for _dims in (1, 2, 3):
    declare(f"conv{_dims}d", getattr(F, f"conv{_dims}d"), _CONV)
    declare(f"conv_transpose{_dims}d", getattr(F, f"conv_transpose{_dims}d"), _TRANSPOSED)
    declare(
        f"max_pool{_dims}d",
        getattr(F, f"max_pool{_dims}d"),
        "input:tensor kernel_size:ints stride:ints? padding:ints=0 dilation:ints=1 "
        "ceil_mode:bool=false",
    )
    _more = "" if _dims == 1 else " divisor_override:int?"
    declare(
        f"avg_pool{_dims}d",
        getattr(F, f"avg_pool{_dims}d"),
        "input:tensor kernel_size:ints stride:ints=[] padding:ints=0 ceil_mode:bool=false "
        f"count_include_pad:bool=true{_more}",
    )
    declare(
        f"adaptive_avg_pool{_dims}d",
        getattr(F, f"adaptive_avg_pool{_dims}d"),
        "input:tensor output_size:ints",
    )
    declare(
        f"adaptive_max_pool{_dims}d",
        getattr(F, f"adaptive_max_pool{_dims}d"),
        "input:tensor output_size:ints",
    )
declare("linear", F.linear, "input:tensor weight:tensor bias:tensor?", "F.linear")
declare(
    "bilinear", F.bilinear, "input1:tensor input2:tensor weight:tensor bias:tensor?", "F.bilinear"
)
declare(
    "embedding",
    F.embedding,
    "input:tensor weight:tensor padding_idx:int?",
    "F.embedding(input weight padding_idx)",
)
declare(
    "batch_norm",
    lambda x, m, v, w, b, eps: F.batch_norm(x, m, v, w, b, False, 0.1, eps),
    "input:tensor running_mean:tensor running_var:tensor weight:tensor? bias:tensor? "
    "eps:float=1e-05",
    "F.batch_norm(input running_mean running_var weight bias training _momentum eps)",
)
declare(
    "instance_norm",
    lambda x, m, v, w, b, use, eps: F.instance_norm(x, m, v, w, b, use, 0.1, eps),
    "input:tensor running_mean:tensor? running_var:tensor? weight:tensor? bias:tensor? "
    "use_input_stats:bool=true eps:float=1e-05",
    "F.instance_norm(input running_mean running_var weight bias use_input_stats _momentum eps)",
)
declare(
    "layer_norm",
    F.layer_norm,
    "input:tensor normalized_shape:ints weight:tensor? bias:tensor? eps:float=1e-05",
    "F.layer_norm;torch.layer_norm(input normalized_shape weight bias eps _cudnn)",
)
declare("rms_norm", F.rms_norm, "input:tensor normalized_shape:ints weight:tensor? eps:float?")
declare(
    "group_norm",
    F.group_norm,
    "input:tensor num_groups:int weight:tensor? bias:tensor? eps:float=1e-05",
)
declare(
    "normalize", F.normalize, "input:tensor p:float=2.0 dim:ints=1 eps:float=1e-12", "F.normalize"
)
declare("cosine_similarity", F.cosine_similarity, "x1:tensor x2:tensor dim:int=1 eps:float=1e-08")
declare(
    "scaled_dot_product_attention",
    _attention,
    "query:tensor key:tensor value:tensor attn_mask:tensor? is_causal:bool=false scale:float? "
    "enable_gqa:bool=false",
    "F.scaled_dot_product_attention(query key value attn_mask dropout_p is_causal)",
)
declare(
    "pad",
    _padded,
    'input:tensor pad:ints mode:{constant,reflect,replicate,circular}="constant" value:float?',
    "F.pad",
)
declare(
    "interpolate",
    _interpolated,
    "input:tensor size:ints? scale_factor:floats? "
    'mode:{nearest,linear,bilinear,bicubic,trilinear,area,nearest-exact}="nearest" '
    "align_corners:bool? recompute_scale_factor:bool? antialias:bool=false",
    "F.interpolate",
)
declare(
    "grid_sample",
    F.grid_sample,
    'input:tensor grid:tensor mode:{bilinear,nearest,bicubic}="bilinear" '
    'padding_mode:{zeros,border,reflection}="zeros" align_corners:bool?',
    "F.grid_sample",
)
declare("pixel_shuffle", torch.pixel_shuffle, "input:tensor upscale_factor:int")
declare("pixel_unshuffle", torch.pixel_unshuffle, "input:tensor downscale_factor:int")
_WINDOW = "kernel_size:ints dilation:ints=1 padding:ints=0 stride:ints=1"
declare("unfold", F.unfold, "input:tensor " + _WINDOW, "F.unfold")
declare("fold", F.fold, f"input:tensor output_size:ints {_WINDOW}", "F.fold")

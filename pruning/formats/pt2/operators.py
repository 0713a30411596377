"""The operators that a graph may use, and what each of their arguments may be.

None of them reads files, runs code, draws random numbers (dropout apart), depends on data for the
size of its result, gives uninitialised memory, or trusts sizes that it could check (such as
`_reshape_alias` and `_fft_c2r`, which read past the end of their input).
"""

from functools import cache

import torch

_NAMES = """
conv1d conv2d conv3d convolution _convolution conv_transpose1d conv_transpose2d conv_transpose3d
linear addmm mm bmm baddbmm matmul mv addmv addbmm dot vdot inner outer ger einsum tensordot kron
linalg_vector_norm linalg_norm linalg_cross linalg_vecdot linalg_multi_dot bilinear
batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional
_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update
_batch_norm_with_update_functional
layer_norm native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm
_weight_norm norm frobenius_norm
relu relu6 relu_ relu6_ leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu gelu_ silu silu_
mish mish_ hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ hardshrink softshrink
softplus sigmoid sigmoid_ log_sigmoid log_sigmoid_forward tanh tanh_ prelu _prelu_kernel glu
threshold threshold_ softmax _softmax log_softmax _log_softmax _safe_softmax
avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool1d_with_indices
max_pool2d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d max_unpool2d max_unpool3d
view reshape view_as reshape_as _unsafe_view flatten unflatten ravel squeeze
unsqueeze squeeze_ unsqueeze_ expand expand_as broadcast_to broadcast_tensors repeat
repeat_interleave tile permute transpose transpose_ swapaxes swapdims movedim moveaxis t t_ mT
numpy_T contiguous clone alias detach detach_ lift_fresh_copy lift_fresh lift adjoint
view_copy permute_copy transpose_copy expand_copy squeeze_copy unsqueeze_copy
slice_copy select_copy alias_copy detach_copy split_copy split_with_sizes_copy unbind_copy t_copy
cat concat concatenate stack hstack vstack dstack split split_with_sizes unsafe_split
unsafe_split_with_sizes tensor_split chunk unsafe_chunk unbind select slice narrow narrow_copy
diagonal diag diag_embed diagflat unfold flip fliplr flipud roll rot90 meshgrid as_strided
slice_scatter select_scatter diagonal_scatter pixel_shuffle pixel_unshuffle channel_shuffle
native_channel_shuffle im2col col2im block_diag atleast_1d atleast_2d atleast_3d
add add_ sub sub_ mul mul_ div div_ rsub subtract multiply divide true_divide floor_divide
remainder fmod neg neg_ negative abs abs_ absolute sign sgn pow pow_ square square_ sqrt sqrt_ rsqrt
rsqrt_ reciprocal exp exp_ exp2 expm1 log log_ log2 log10 log1p sin sin_ cos cos_ tan asin acos atan
sinh cosh asinh acosh atanh atan2 arctan2 hypot erf erf_ erfc erfinv floor ceil round trunc frac
clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ clip clip_ maximum minimum fmax fmin lerp
lerp_ addcmul addcmul_ addcdiv addcdiv_ logit logit_ nan_to_num nan_to_num_ positive deg2rad rad2deg
sinc xlogy special_expit logaddexp logaddexp2 copysign heaviside float_power gcd
bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift __and__ __or__
__xor__ logical_and logical_or logical_xor logical_not logical_and_ logical_or_ logical_not_
eq ne lt le gt ge isclose isnan isinf isfinite isin
sum mean prod amax amin aminmax max min argmax argmin all any var std var_mean std_mean logsumexp
cumsum cumsum_ cumprod cummax cummin logcumsumexp nansum nanmean median count_nonzero topk sort
argsort diff kthvalue msort mode cdist _cdist_forward pairwise_distance cosine_similarity trace
index index_select index_put index_put_ index_add index_add_ index_copy index_copy_ index_fill
index_fill_ _unsafe_index _unsafe_index_put _unsafe_masked_index gather scatter scatter_ scatter_add
scatter_add_ scatter_reduce take take_along_dim masked_fill masked_fill_ masked_scatter where tril
tril_ triu triu_ tril_indices triu_indices bucketize searchsorted one_hot embedding
scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu
_scaled_dot_product_attention_math
lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator
pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d
dropout dropout_ native_dropout feature_dropout alpha_dropout feature_alpha_dropout
arange full zeros ones full_like zeros_like ones_like new_full new_zeros new_ones scalar_tensor eye
linspace fill fill_ zero_ copy copy_ zero tril_indices hann_window
to _to_copy type_as
sym_size sym_numel
fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn
fft_rfftn fft_irfftn fft_fftshift fft_ifftshift
view_as_real view_as_complex complex polar real imag angle conj resolve_conj resolve_neg
conj_physical _conj
"""
ATEN = frozenset(_NAMES.split())
_LEFT_OUT = frozenset(
    [("repeat_interleave", "Tensor"), ("repeat_interleave", "self_Tensor")]
    + [(name, "data") for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")]
)
"""Overloads whose result's size depends on data, or that trust sizes given as data."""

DROPPED = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_async.default",
        "_assert_async.msg",
        "_assert_scalar.default",
        "_assert_tensor_metadata.default",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)
"""Checks that give no result; what they check shows when the graph runs."""

SYMBOLIC = {
    "_operator.add": ("a", "b"),
    "_operator.sub": ("a", "b"),
    "_operator.mul": ("a", "b"),
    "_operator.floordiv": ("a", "b"),
    "_operator.mod": ("a", "b"),
    "_operator.neg": ("a",),
    "torch.sym_max": ("a", "b"),
    "torch.sym_min": ("a", "b"),
}
"""Arithmetic of sizes. Powers and shifts are left out: they could make numbers of any length."""

COMPARISONS = frozenset(f"_operator.{name}" for name in ("eq", "ne", "le", "ge", "lt", "gt")) | {
    "torch.sym_not",
    "_operator.and_",
    "_operator.or_",
}
"""Read where only dropped checks use them, and dropped with them."""

_FORBIDDEN = ("Generator", "Storage", "Stream", "Dimname", "Any", "Dict", "__torch__", "complex")


@cache
def overload(target: str) -> torch._ops.OpOverload | None:
    """The operator that a target names, if it may be used.

    Only names of the list above are ever looked up; overloads that write to an `out` argument,
    take a random generator or named dimensions are not among them.
    """
    head, _, rest = target.partition("torch.ops.aten.")
    name, _, kind = rest.partition(".")
    if head or name not in ATEN:
        return None
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or kind not in packet.overloads():
        return None
    found: torch._ops.OpOverload = getattr(packet, kind)
    types = [str(argument.type) for argument in found._schema.arguments]
    if any(word in kind_ for kind_ in types for word in _FORBIDDEN):
        return None
    if (name, kind) in _LEFT_OUT:
        return None
    outs = any(a.is_out or a.name == "out" for a in found._schema.arguments)
    return None if outs else found

"""Resize and Upsample: every axis on its own, as weighted picks along it.

Coordinates are computed in float32 as onnxruntime does: the choice of a nearest number depends on
their last bit.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import priced, reals
from pruning.formats.onnx.ops.resampling import Axis, Method, places
from pruning.formats.onnx.values import Value, axis_of, host, ints, tensors

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_half_pixel_for_nn", "tf_crop_and_resize",
)  # fmt: skip
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_POLICIES = ("stretch", "not_larger", "not_smaller")


@dataclass(frozen=True)
class _Options:
    """What does not depend on the values: method, axes, and how sizes are kept in proportion."""

    method: Method
    axes: list[int] | None
    policy: str
    scales: list[float] | None = None
    roi: list[float] | None = None


def _resize(node: Node, builder: Builder) -> None:
    attributes, simple = node.attributes, builder.opset < 11
    mode = attributes.string("mode", "nearest")
    coordinates = attributes.string(
        "coordinate_transformation_mode", "asymmetric" if simple else "half_pixel"
    )
    nearest = attributes.string("nearest_mode", "simple" if simple else "round_prefer_floor")
    if mode not in ("nearest", "linear", "cubic") or coordinates not in _COORDINATES:
        raise node.invalid(f"mode={mode!r} with {coordinates!r}")
    if nearest not in (*_NEAREST, "simple"):
        raise node.invalid(f"nearest_mode={nearest!r}")
    policy = attributes.string("keep_aspect_ratio_policy", "stretch")
    if policy not in _POLICIES:
        raise node.invalid(f"keep_aspect_ratio_policy={policy!r}")
    method = Method(
        mode=mode,
        coordinates=coordinates,
        nearest=nearest,
        cubic=attributes.float("cubic_coeff_a", -0.75),
        exclude=bool(attributes.int("exclude_outside", 0)),
        antialias=bool(attributes.int("antialias", 0)) and mode != "nearest",
        extrapolation=attributes.float("extrapolation_value", 0.0),
    )
    roi, scales = (None, node.input(1)) if simple else (node.input(1), node.input(2))
    options = _Options(
        method,
        attributes.ints("axes"),
        policy,
        _numbers(builder, scales),
        _numbers(builder, roi) if coordinates == "tf_crop_and_resize" else [],
    )
    _call(node, builder, options, roi, scales, None if simple else node.input(3))


def _numbers(builder: Builder, name: str | None) -> list[float] | None:
    """The numbers of a constant: as an input of a step it might be a tensor on a device."""
    constant = builder.constant(name)
    if constant is None or math.prod(constant.shape) > 64:
        return None
    return [float(number) for number in constant.host().reshape(-1)]


def _call(
    node: Node,
    builder: Builder,
    options: _Options,
    roi: str | None,
    scales: str | None,
    sizes: str | None,
) -> None:
    inputs = [
        node.input(0),
        roi if options.roi is None else None,
        scales if options.scales is None else None,
        sizes,
    ]
    builder.call(node, partial(resize, options=options), inputs)


def _upsample(node: Node, builder: Builder) -> None:
    """Opset 7 holds the scales in an attribute, opset 9 reads them."""
    mode = node.attributes.string("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise node.invalid(f"mode={mode!r}")
    method = Method("nearest" if mode == "nearest" else "linear", "asymmetric", "simple")
    scales = reals(node, "scales") or _numbers(builder, node.input(1))
    _call(node, builder, _Options(method, None, "stretch", scales), None, node.input(1), None)


def resize(
    x: Value, roi: Value | None, scales: Value | None, sizes: Value | None, options: _Options
) -> Tensor:
    """X with its axes resized by scales, or to sizes."""
    (x,) = tensors(x)
    for axis in _axes(x, roi, scales, sizes, options):
        x = _along(x, axis, options.method)
    return x


def _axes(
    x: Tensor, roi: Value | None, scales: Value | None, sizes: Value | None, options: _Options
) -> list[Axis]:
    rank = x.dim()
    axes = [axis_of(a, rank, "Resize") for a in (options.axes or range(rank))]
    region = None
    if options.method.coordinates == "tf_crop_and_resize":
        given = (options.roi or []) if roi is None else host(roi, "Resize's roi")
        region = np.array(given, np.float64).reshape(-1)
    factors = options.scales
    if factors is None and scales is not None:
        factors = [float(s) for s in host(scales, "Resize's scales").reshape(-1)]
    if factors:
        if len(factors) != len(axes) or not all(0 < f < 1e6 for f in factors):
            raise SecateurError("model_invalid", f"Resize by {factors} of {len(axes)} axes.")
        wanted = [math.floor(np.float32(f) * np.float32(x.shape[a]))
                  for f, a in zip(factors, axes, strict=True)]  # fmt: skip
    else:
        wanted = ints(sizes if sizes is not None else np.zeros(0), "Resize's sizes")
        if len(wanted) != len(axes) or min(wanted, default=1) < 1:
            raise SecateurError("model_invalid", f"Resize to {wanted} of {len(axes)} axes.")
        wanted, factors = _proportioned([x.shape[a] for a in axes], wanted, options.policy)
    shape = list(x.shape)
    for axis, size in zip(axes, wanted, strict=True):
        shape[axis] = size
    priced(x, shape, "Resize")
    if region is not None and region.size != 2 * len(axes):
        raise SecateurError("model_invalid", f"Resize with a roi of {region.size} numbers.")
    found = []
    for i, axis in enumerate(axes):
        bounds = None
        if region is not None:
            bounds = float(region[i]), float(region[i + len(axes)])
        found.append(Axis(axis, x.shape[axis], wanted[i], factors[i], bounds))
    return found


def _proportioned(have: list[int], wanted: list[int], policy: str) -> tuple[list[int], list[float]]:
    """Sizes and factors for wanted sizes, in the proportions of the input where asked for."""
    if min(have, default=1) < 1:
        raise SecateurError("model_invalid", "Resize of an empty axis.")
    each = [np.float32(w) / np.float32(h) for w, h in zip(wanted, have, strict=True)]
    if policy == "stretch":
        return wanted, [float(e) for e in each]
    factor = float(min(each) if policy == "not_larger" else max(each))
    return [max(1, math.floor(factor * h + 0.5)) for h in have], [factor] * len(have)


def _along(x: Tensor, axis: Axis, method: Method) -> Tensor:
    if axis.size == axis.result and axis.factor == 1.0 and axis.region is None:
        return x
    if axis.size < 1:
        raise SecateurError("model_invalid", "Resize of an empty axis.")
    picked, weights, outside = places(axis, method)
    if not x.is_floating_point() and weights is not None:
        raise SecateurError(
            "operator_attribute_unsupported", f"Resize of {x.dtype} with mode={method.mode!r}."
        )
    if weights is None:
        result = x.index_select(axis.axis, tensors(x, picked[:, 0])[1])
    else:
        shape = [1] * x.dim()
        shape[axis.axis] = axis.result
        result = torch.zeros((), dtype=x.dtype, device=x.device)
        for tap in range(picked.shape[1]):
            factor = tensors(x, weights[:, tap])[1].to(x.dtype).reshape(shape)
            result = result + x.index_select(axis.axis, tensors(x, picked[:, tap])[1]) * factor
    if outside is not None and outside.any():
        shape = [1] * x.dim()
        shape[axis.axis] = axis.result
        mask = tensors(x, outside)[1].reshape(shape)
        result = torch.where(mask, torch.full_like(result, method.extrapolation), result)
    return result


OPERATORS = {"Resize": _resize, "Upsample": _upsample}

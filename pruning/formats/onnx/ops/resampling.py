"""Where the numbers of a resized axis come from, and with which weights."""

from dataclasses import dataclass

import numpy as np

from pruning.errors import SecateurError
from pruning.formats.onnx.values import LARGEST, Host


@dataclass(frozen=True)
class Method:
    """How Resize interpolates; the names are those of its attributes."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float = -0.75
    exclude: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True)
class Axis:
    """One axis: its size before and after, the factor between them, and tf_crop's region."""

    axis: int
    size: int
    result: int
    factor: float
    region: tuple[float, float] | None = None


def places(axis: Axis, method: Method) -> tuple[Host, Host | None, Host | None]:
    """Indices [result, taps], their weights (None for a plain pick) and what lies outside."""
    if axis.result > LARGEST:
        raise SecateurError("model_too_large", f"Resize of an axis to {axis.result} numbers.")
    at = coordinates(axis, method.coordinates)
    outside = None
    if axis.region is not None:
        outside = (at < 0) | (at > axis.size - 1)
    if method.mode == "nearest":
        picked = np.clip(_nearest(at, method.nearest, axis.factor), 0, axis.size - 1)
        return picked.astype(np.int64).reshape(-1, 1), None, outside
    reach = 1 if method.mode == "linear" else 2
    spread = max(1.0, 1.0 / axis.factor) if method.antialias else 1.0
    taps = 2 * int(np.ceil(reach * spread))
    if taps * axis.result > LARGEST:
        raise SecateurError("model_too_large", f"Resize with {taps} weights a number.")
    picked = np.floor(at).astype(np.int64)[:, None] + np.arange(1 - taps // 2, 1 + taps // 2)
    distance = np.abs(picked - at[:, None].astype(np.float64)) / spread
    weights = _linear(distance) if method.mode == "linear" else _cubic(distance, method.cubic)
    if method.exclude or method.antialias:
        if method.exclude:
            weights = np.where((picked < 0) | (picked >= axis.size), 0.0, weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(picked, 0, axis.size - 1), weights.astype(np.float32), outside


def coordinates(axis: Axis, mode: str) -> Host:
    """Where each place of the result lies on the axis before."""
    real = np.float32
    at, factor = np.arange(axis.result, dtype=real), real(axis.factor)
    if mode == "asymmetric":
        return at / factor
    if mode == "tf_half_pixel_for_nn":
        return (at + real(0.5)) / factor
    if mode == "align_corners":
        _check_whole(axis, mode)
        if axis.result == 1:
            return np.zeros(1, real)
        return at * real(axis.size - 1) / real(axis.result - 1)
    if mode == "tf_crop_and_resize":
        assert axis.region is not None
        _check_whole(axis, mode)
        start, end = map(real, axis.region)
        if axis.result == 1:
            return np.full(1, real(0.5) * (start + end) * real(axis.size - 1), real)
        step = (end - start) * real(axis.size - 1) / real(axis.result - 1)
        return start * real(axis.size - 1) + at * step
    if mode == "pytorch_half_pixel" and axis.result == 1:
        return np.zeros(1, real)
    half = (at + real(0.5)) / factor - real(0.5)
    if mode == "half_pixel_symmetric":
        adjustment = real(axis.result) / (factor * real(axis.size))
        return real(axis.size / 2) * (real(1) - adjustment) + half
    return half


def _check_whole(axis: Axis, mode: str) -> None:
    """Where the scaled size is no whole number, onnxruntime and ONNX's reference disagree."""
    if abs(axis.factor * axis.size - axis.result) > 1e-4 * axis.result:
        raise SecateurError(
            "operator_attribute_unsupported",
            f"Resize with {mode!r} of {axis.size} numbers by {axis.factor:g}.",
            hint="Export with sizes instead of scales.",
        )


def _nearest(at: Host, mode: str, factor: float) -> Host:
    if mode == "simple":
        return np.ceil(at) if factor < 1 else np.trunc(at)
    if mode == "floor":
        return np.floor(at)
    if mode == "ceil":
        return np.ceil(at)
    if mode == "round_prefer_floor":
        return np.ceil(at - np.float32(0.5))
    return np.floor(at + np.float32(0.5))


def _linear(distance: Host) -> Host:
    return np.clip(1.0 - distance, 0.0, None)


def _cubic(distance: Host, a: float) -> Host:
    """Cubic convolution (Keys 1981, equation 4)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))

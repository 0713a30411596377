"""Fourier transforms, windows and the mel scale of audio networks."""

from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import computing_dtype
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import compute, priced
from pruning.formats.onnx.values import Host, Value, affordable, axis_of, ints, is_host, number


def _dft(node: Node, builder: Builder) -> None:
    options = {
        "inverse": bool(node.attributes.int("inverse", 0)),
        "onesided": bool(node.attributes.int("onesided", 0)),
        "fixed": node.attributes.int("axis", 1) if builder.opset < 20 else -2,
    }
    builder.call(node, partial(dft, options=options), [node.input(i) for i in range(3)])


def dft(x: Value, length: Value | None, axis: Value | None, options: dict[str, Any]) -> Value:
    """The discrete Fourier transform along an axis; the last axis holds real and imaginary part.

    `onesided` keeps the frequencies up to half of the length, or, of an inverse, takes only these
    and gives real numbers.
    """
    rank = len(x.shape)
    (given,) = [options["fixed"]] if axis is None else ints(axis, "DFT's axis")
    along = axis_of(given, rank, "DFT")
    inverse, half = options["inverse"], options["onesided"]
    if along == rank - 1 or x.shape[-1] not in (1, 2):
        raise SecateurError("model_invalid", f"DFT of axis {given} of shape {list(x.shape)}.")
    size = int(x.shape[along])
    default = 2 * (size - 1) if inverse and half else size
    (count,) = [default] if length is None else ints(length, "DFT's dft_length")
    shape = [int(s) for s in x.shape[:-1]]
    shape[along] = count
    if count < 1:
        raise SecateurError("model_invalid", f"DFT of length {count}.")
    if is_host(x):
        affordable([2, *shape], "DFT")

    def transform(x: Tensor) -> Tensor:
        priced(x, [2, *shape], "DFT")
        if inverse and half:
            return torch.fft.irfft(_complex(x), count, along).unsqueeze(-1).to(x.dtype)
        if not inverse and half and x.shape[-1] == 1:
            return torch.view_as_real(torch.fft.rfft(x.squeeze(-1), count, along))
        function = torch.fft.ifft if inverse else torch.fft.fft
        result = function(_complex(x), count, along)
        if half:
            result = result.narrow(along, 0, count // 2 + 1)
        return torch.view_as_real(result)

    found: Value = compute(transform, x)
    return found


def _complex(x: Tensor) -> Tensor:
    if x.shape[-1] == 2:
        return torch.view_as_complex(x.contiguous())
    return torch.complex(x.squeeze(-1), torch.zeros_like(x.squeeze(-1)))


def _stft(node: Node, builder: Builder) -> None:
    onesided = bool(node.attributes.int("onesided", 1))
    function = partial(stft, onesided=onesided)
    builder.call(node, function, [node.input(i) for i in range(4)])


def stft(
    signal: Value, step: Value, window: Value | None, length: Value | None, onesided: bool
) -> Value:
    """Spectra [samples, frames, frequencies, 2] of overlapping frames of a signal."""
    (hop,) = ints(step, "STFT's frame_step")
    total = int(signal.shape[1])
    if length is not None:
        (size,) = ints(length, "STFT's frame_length")
    else:
        size = total if window is None else int(window.shape[0])
    if hop < 1 or not 1 <= size <= total or (window is not None and window.shape != (size,)):
        raise SecateurError("model_invalid", f"STFT of {total} numbers in frames of {size}.")
    frames = (total - size) // hop + 1
    if is_host(signal, *([] if window is None else [window])):
        affordable([int(signal.shape[0]), frames, size, 2], "STFT")

    def transform(x: Tensor, window: Tensor | None) -> Tensor:
        priced(x, [x.shape[0], frames, size, 2], "STFT")
        parts = x.unsqueeze(-1) if x.dim() == 2 else x
        if parts.shape[-1] not in (1, 2):
            raise SecateurError("model_invalid", f"STFT of a signal of shape {list(x.shape)}.")
        # [samples, frames, parts, size]
        cut = parts.unfold(1, size, hop)
        cut = cut if window is None else cut * window
        if cut.shape[2] == 1:
            function = torch.fft.rfft if onesided else torch.fft.fft
            return torch.view_as_real(function(cut.squeeze(2)))
        result = torch.fft.fft(torch.complex(cut[:, :, 0], cut[:, :, 1]))
        return torch.view_as_real(result[..., : size // 2 + 1] if onesided else result)

    found: Value = compute(transform, signal, window)
    return found


def _window(*weights: float):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        periodic = bool(node.attributes.int("periodic", 1))
        dtype = _dtype(node, node.attributes.int("output_datatype", TensorProto.FLOAT))
        function = partial(window, weights=weights, periodic=periodic, dtype=dtype)
        builder.call(node, function, [node.input(0)])

    return build


def _dtype(node: Node, kind: int) -> np.dtype:
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        raise node.invalid(f"an unknown type {kind}") from None
    if dtype.kind not in "fiu":
        raise node.unsupported(f"a window of type {dtype.name}")
    return computing_dtype(dtype)


def window(size: Value, weights: tuple[float, ...], periodic: bool, dtype: np.dtype) -> Host:
    """A sum of cosines of growing frequency with alternating signs, on the host."""
    (count,) = ints(size, "The size of a window")
    if count < 0:
        raise SecateurError("model_invalid", f"A window of {count} numbers.")
    affordable([count], "A window")
    at = np.arange(count) * 2 * np.pi / max(1, count if periodic else count - 1)
    terms = [(-1) ** k * weight * np.cos(k * at) for k, weight in enumerate(weights)]
    return np.sum(terms, axis=0).astype(dtype)


def _mel(node: Node, builder: Builder) -> None:
    dtype = _dtype(node, node.attributes.int("output_datatype", TensorProto.FLOAT))
    builder.call(node, partial(mel_weights, dtype=dtype), [node.input(i) for i in range(5)])


def mel_weights(
    bins: Value, length: Value, rate: Value, low: Value, high: Value, dtype: np.dtype
) -> Host:
    """Triangles [length / 2 + 1, bins] evenly spaced on the mel scale, on the host."""
    (count,), (size,), (frequency,) = (ints(v, "MelWeightMatrix") for v in (bins, length, rate))
    ends = [number(v, "MelWeightMatrix") for v in (low, high)]
    if not 1 <= count <= 1 << 16 or size < 1 or frequency < 1 or not 0 <= ends[0] <= ends[1]:
        raise SecateurError("model_invalid", f"MelWeightMatrix of {count} bins, length {size}.")
    rows = size // 2 + 1
    affordable([rows, count], "MelWeightMatrix")
    first, last = (2595 * np.log10(1 + end / 700) for end in ends)
    mels = first + np.arange(count + 2) * ((last - first) / (count + 2))
    edges = np.floor((size + 1) * (700 * (10 ** (mels / 2595) - 1)) / frequency).astype(np.int64)
    result = np.zeros((rows, count))
    for i in range(count):
        lower, centre, upper = edges[i : i + 3]
        if lower == centre:
            result[centre : centre + 1, i] = 1
        else:
            rise = np.arange(lower, min(centre + 1, rows))
            result[rise, i] = (rise - lower) / (centre - lower)
        if upper > centre:
            fall = np.arange(centre, min(upper, rows))
            result[fall, i] = (upper - fall) / (upper - centre)
    return result.astype(dtype)


OPERATORS = {
    "DFT": _dft,
    "STFT": _stft,
    "HannWindow": _window(0.5, 0.5),
    "HammingWindow": _window(25 / 46, 21 / 46),
    "BlackmanWindow": _window(0.42, 0.5, 0.08),
    "MelWeightMatrix": _mel,
}

"""Operators over their attributes and opsets, against onnxruntime (or ONNX's own reference)."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pruning.formats.onnx import read_onnx
from tests.pruning.formats.onnx_cases import run_onnx

torch.set_num_threads(1)


@dataclass
class Case:
    """One node: its first input is the network's, the others are initialisers ('' where absent)."""

    operator: str
    x: np.ndarray
    rest: list
    opset: int
    attributes: dict
    outputs: int = 1
    reference: bool = False

    @property
    def model(self) -> onnx.ModelProto:
        names = ["x", *(f"c{i}" if value is not None else "" for i, value in enumerate(self.rest))]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, name="node", **self.attributes)
        kind = helper.np_dtype_to_tensor_dtype(self.x.dtype)
        graph = helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("x", kind, self.x.shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(v, f"c{i}") for i, v in enumerate(self.rest) if v is not None],
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=8 + 2 * (self.opset > 20),
        )
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        for ours, theirs in zip(model.graph.output, inferred, strict=True):
            ours.CopyFrom(theirs)
            if not ours.type.tensor_type.elem_type:
                ours.type.tensor_type.elem_type = kind
            ours.type.tensor_type.shape.SetInParent()
        return model


def case(operator, x, *rest, opset=17, outputs=1, reference=False, **attributes):
    return Case(operator, x, list(rest), opset, attributes, outputs, reference)


def real(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


def scales(*values):
    return np.array(values, np.float32)


def resize():
    x = real(2, 3, 5, 7)
    everything = [
        ("half_pixel", 11), ("pytorch_half_pixel", 11), ("align_corners", 11),
        ("asymmetric", 11), ("half_pixel_symmetric", 19), ("tf_half_pixel_for_nn", 11),
    ]  # fmt: skip
    factors = (1.0, 1.0, 2.0, 1.7), (1.0, 1.0, 0.6, 3.0), (1.0, 1.0, 0.4, 0.43)
    for (mode, opset), factor in product(everything, factors):
        sizes = whole(2, 3, *(math.floor(f * s) for f, s in zip(factor[2:], (5, 7), strict=True)))
        for kind in ("nearest", "linear", "cubic"):
            options = {"mode": kind, "coordinate_transformation_mode": mode}
            given = (scales(*factor),) if mode != "align_corners" else (scales(), sizes)
            yield case("Resize", x, scales(), *given, opset=opset, **options)
            if mode == "half_pixel":
                yield case("Resize", x, None, None, sizes, opset=18, **options)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for factor in factors:
            yield case("Resize", x, None, scales(*factor), opset=13, nearest_mode=nearest,
                       coordinate_transformation_mode="asymmetric")  # fmt: skip
    for kind, factor in product(("linear", "cubic"), factors):
        if factor[2] < 1:
            yield case("Resize", x, None, scales(*factor), opset=18, mode=kind, antialias=1)
    yield case("Resize", x, None, scales(1, 1, 0.6, 1.7), mode="cubic", exclude_outside=1)
    yield case("Resize", x, None, scales(1, 1, 0.6, 1.7), mode="cubic", cubic_coeff_a=-0.5)
    roi = scales(0, 0, 0.1, -0.2, 1, 1, 0.7, 1.3)
    for kind in ("nearest", "linear"):
        yield case("Resize", x, roi, None, whole(2, 3, 4, 6), mode=kind, extrapolation_value=9.0,
                   coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    for policy in ("stretch", "not_larger", "not_smaller"):
        yield case("Resize", x, None, None, whole(8, 8), opset=18, axes=[2, 3], mode="linear",
                   keep_aspect_ratio_policy=policy)  # fmt: skip
    for kind, factor in product(("nearest", "linear"), factors):
        yield case("Resize", x, scales(*factor), opset=10, mode=kind)
        if min(factor) >= 1:
            yield case("Upsample", x, scales(*factor), opset=9, mode=kind)
    yield case("Resize", real(2, 3, 4), None, scales(1, 1, 2.5), mode="linear")
    yield case("Resize", real(1, 2, 3, 4, 2), None, scales(1, 1, 2, 0.5, 2), mode="linear")


def convolutions():
    for opset in (9, 22):
        for stride, dilation, more, group in product((1, 2, 3), (1, 2), (0, 1), (1, 2)):
            if more >= stride:
                continue
            options = {"strides": [stride, 2], "dilations": [dilation, 1], "group": group}
            weight = real(4, 3, 3, 2, seed=1)
            for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]):
                yield case("ConvTranspose", real(2, 4, 5, 6), weight, opset=opset, pads=pads,
                           output_padding=[more, 0], **options)  # fmt: skip
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            for stride in (1, 2, 3):
                yield case("ConvTranspose", real(2, 4, 5), real(4, 3, 3), real(3), opset=opset,
                           auto_pad=pad, strides=[stride])  # fmt: skip
        for size in (13, 14, 15):
            yield case("ConvTranspose", real(2, 4, 5), real(4, 3, 3), real(3), opset=opset,
                       strides=[3], output_shape=[size])  # fmt: skip
    yield case("ConvTranspose", real(1, 2, 3, 4, 2), real(2, 1, 2, 3, 2), real(1))


def pads():
    x = real(2, 3, 4, 5)
    for mode, opset in product(("constant", "reflect", "edge", "wrap"), (9, 11, 13, 18, 19, 25)):
        if mode == "wrap" and opset < 19:
            continue
        sizes = [0, 1, 2, 1, 0, 1, 3, 2]
        if opset < 11:
            yield case("Pad", x, opset=opset, mode=mode, pads=sizes, value=0.5)
            continue
        yield case("Pad", x, whole(*sizes), opset=opset, mode=mode)
        if mode == "constant":
            yield case("Pad", x, whole(*sizes), np.float32(2.5), opset=opset)
            yield case("Pad", x, whole(0, -1, 2, 1, 0, 0, -1, 2), opset=opset)
        if opset >= 18:
            yield case("Pad", x, whole(2, 1, 0, 3), None, whole(3, -2), opset=opset, mode=mode)
    for sizes in ((6, 3), (3, 8), (4, 5), (7, 2)):
        yield case("CenterCropPad", x, whole(*sizes), opset=18, axes=[2, 3])


def ranking():
    ties = np.random.default_rng(0).integers(0, 4, (3, 5, 6)).astype(np.float32)
    for opset, axis, largest in product((10, 11, 24), (0, 1, -1), (0, 1)):
        more = {} if opset < 11 else {"largest": largest}
        yield case("TopK", ties, whole(2), opset=opset, outputs=2, axis=axis, **more)
    for opset, axis, keep in product((9, 11, 13), (0, 1, 2), (0, 1)):
        for operator in ("ArgMax", "ArgMin"):
            yield case(operator, ties, opset=opset, axis=axis, keepdims=keep)
            if opset > 11:
                yield case(operator, ties, opset=opset, axis=-1, select_last_index=1)
    for opset, axis in product((9, 11, 13), (0, 1, 2)):
        yield case("Hardmax", ties, opset=opset, axis=axis)
    for exclusive, reverse, axis in product((0, 1), (0, 1), (0, -1)):
        yield case("CumSum", ties, np.array(axis, np.int64), exclusive=exclusive, reverse=reverse)
        yield case("CumProd", ties, np.array(axis, np.int64), opset=26, exclusive=exclusive,
                   reverse=reverse, reference=True)  # fmt: skip
    for upper, k in product((0, 1), (-1, 0, 2)):
        yield case("Trilu", ties, np.array(k, np.int64), upper=upper)
    for axis in (0, 1, -1):
        yield case("OneHot", whole([0, 2, -1], [1, 5, -4]), whole(4), scales(-1.0, 3.0), axis=axis)
    yield case("Compress", ties, np.array([True, False, True]), axis=0)
    yield case("Compress", ties, np.array([False, True, True, False, True]))
    for k in (-1, 0, 1):
        yield case("EyeLike", real(3, 4), k=k)


def indices():
    x = real(4, 3, 5)
    at = whole([[0, 2], [-1, 1], [3, 0]])
    yield case("GatherElements", x, whole([[0, -1]], [[2, 1]]), axis=2)
    for opset in (12, 13):
        yield case("GatherND", x, at, opset=opset)
        yield case("GatherND", x, whole([[0], [2]], [[1], [1]], [[0], [2]], [[2], [0]]),
                   opset=opset, batch_dims=1)  # fmt: skip
    update = real(2, 1, 2, seed=3)
    yield case("Scatter", x, whole([[0, 3]], [[4, 1]]).reshape(2, 1, 2), update, opset=9, axis=2)
    for reduction in ("none", "add", "mul", "max", "min"):
        places = whole([[0, 3]], [[4, 1]]).reshape(2, 1, 2)
        yield case("ScatterElements", x, places, update, opset=18, axis=2, reduction=reduction)
        yield case("ScatterND", x, whole([0, 1], [3, 2]), real(2, 5), opset=18,
                   reduction=reduction)  # fmt: skip
    yield case("ScatterND", x, whole([0, 1], [-1, 2]), real(2, 5), opset=11)


def products():
    x, y = real(2, 3, 4), real(2, 4, 5)
    for equation in ("bij,bjk->bik", "bij, bjk", "...ij,...jk->...ik", "bij,cjk->bcik"):
        yield case("Einsum", x, y, equation=equation)
    yield case("Einsum", real(3, 3), equation="ii->i")
    yield case("Einsum", real(2, 3, 4), equation="bij->bji")
    yield case("Det", real(2, 3, 3))


def normalisations():
    x = real(2, 6, 5, 4)
    for opset in (9, 22):
        yield case("InstanceNormalization", x, real(6), real(6, seed=1), opset=opset, epsilon=1e-3)
        yield case("InstanceNormalization", real(2, 6, 7), real(6), real(6, seed=1), opset=opset)
        for p, axis in product((1, 2), (0, 1, -1)):
            yield case("LpNormalization", x, opset=opset, p=p, axis=axis)
    yield case("GroupNormalization", x, real(6), real(6, seed=1), opset=21, num_groups=3)
    for axis in (-1, 1, -2):
        yield case("RMSNormalization", x, real(*x.shape[axis:]), opset=23, axis=axis)
    yield case("RMSNormalization", x, real(4), opset=23, axis=-2)
    yield case("MeanVarianceNormalization", x)
    yield case("MeanVarianceNormalization", x, axes=[1, 3])
    for size in (1, 2, 3, 4, 9):
        yield case(
            "LRN",
            real(6, 6, 2, 3),
            size=size,
            alpha=0.3,
            beta=0.6,
            bias=1.5,
            reference=size % 2 == 0,
        )
    for opset, keep in product((9, 13, 18), (0, 1)):
        for operator in ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"):
            for axes in ([1], [0, -1], None):
                given = {"axes": axes} if axes and opset < 18 else {}
                more = (whole(*axes),) if axes and opset >= 18 else ()
                yield case(operator, np.abs(x) + 0.1, *more, opset=opset, keepdims=keep, **given)


def pools():
    x = real(2, 3, 6, 7)
    for ceil, stride, p in product((0, 1), (1, 2, 3), (1, 2, 3)):
        options = {"kernel_shape": [3, 2], "strides": [stride, 2], "pads": [1, 0, 1, 1]}
        yield case("MaxPool", x, outputs=2, ceil_mode=ceil, **options)
        yield case("LpPool", x, opset=18, p=p, ceil_mode=ceil, **options)
        yield case("LpPool", x, opset=18, p=p, kernel_shape=[2, 2], dilations=[2, 1])
    yield case("MaxPool", x, outputs=2, kernel_shape=[2, 2], storage_order=1)
    yield case("MaxPool", real(2, 3, 8), outputs=2, kernel_shape=[3], dilations=[2])
    for p in (1, 2, 3):
        yield case("LpPool", x, opset=11, p=p, kernel_shape=[2, 2], auto_pad="SAME_UPPER")
        yield case("GlobalLpPool", x, p=p)
    places = whole(0, 3, 8, 11).reshape(1, 1, 2, 2)
    yield case("MaxUnpool", real(1, 1, 2, 2), places, kernel_shape=[2, 2], strides=[2, 2])
    yield case("MaxUnpool", real(1, 1, 2, 2), places, whole(1, 1, 5, 4), kernel_shape=[2, 2],
               strides=[2, 2], reference=True)  # fmt: skip


def sampling():
    grid = np.random.default_rng(1).uniform(-1.2, 1.2, (2, 4, 3, 2)).astype(np.float32)
    for padding, align in product(("zeros", "border", "reflection"), (0, 1)):
        options = {"padding_mode": padding, "align_corners": align}
        for old, new in (("bilinear", "linear"), ("nearest", "nearest"), ("bicubic", "cubic")):
            yield case("GridSample", real(2, 3, 5, 6), grid, opset=16, mode=old, **options)
            yield case("GridSample", real(2, 3, 5, 6), grid, opset=20, mode=new, **options)
    for align in (0, 1):
        yield case("AffineGrid", real(2, 2, 3), whole(2, 3, 4, 5), opset=20, align_corners=align)
        yield case("AffineGrid", real(2, 3, 4), whole(2, 3, 2, 4, 5), opset=20, align_corners=align)


def arrangement():
    x = real(2, 8, 4, 6)
    for opset in (9, 13):
        yield case("SpaceToDepth", x, opset=opset, blocksize=2)
        yield case("DepthToSpace", x, opset=opset, blocksize=2)
        yield case("Tile", x, whole(1, 2, 1, 3), opset=opset)
    for mode in ("DCR", "CRD"):
        yield case("DepthToSpace", x, opset=11, blocksize=2, mode=mode)
    for time in (0, 1):
        yield case("ReverseSequence", real(4, 4, 3), whole(1, 4, 2, 3), time_axis=time,
                   batch_axis=1 - time)  # fmt: skip
    yield case("Col2Im", real(2, 12, 12), whole(5, 5), whole(2, 3), opset=18)
    yield case("Col2Im", real(2, 12, 4), whole(5, 5), whole(2, 3), opset=18, strides=[2, 3],
               pads=[0, 1, 0, 1])  # fmt: skip
    yield case("Col2Im", real(2, 6, 4), whole(8), whole(3), opset=18, dilations=[2],
               reference=True)  # fmt: skip


def functions():
    x = real(3, 4) * 0.7
    for operator in ("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Atanh"):
        yield case(operator, np.clip(x, -0.9, 0.9))
    yield case("Acosh", np.abs(x) + 1.1)
    halves = scales(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.7)
    odd = scales(np.inf, -np.inf, np.nan, 0.0, -1.0, 3.5, -2.5)
    for operator in ("Round", "Sign"):
        yield case(operator, halves, opset=13)
    yield case("IsNaN", odd)
    for low, high in product((0, 1), (0, 1)):
        yield case("IsInf", odd, detect_negative=low, detect_positive=high)
    for a, b in ((whole(-7, 7, -6, 5), whole(3, -3, 4, 5)), (halves, scales(*[0.4] * 7))):
        yield case("Mod", a, b, opset=13, fmod=1)
    yield case("Mod", whole(-7, 7, -6, 5), whole(3, -3, 4, 5), opset=13)
    for operator in ("LessOrEqual", "GreaterOrEqual"):
        yield case(operator, halves, scales(0.5), opset=16)
    yield case("Xor", np.array([True, False]), np.array([True]))
    for operator in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield case(operator, whole(5, -3, 12), whole(6), opset=18)
    yield case("BitwiseNot", whole(5, -3, 12), opset=18)
    yield case("Mean", x, real(4), real(3, 1), opset=13)
    yield case("CastLike", x, whole(1), opset=15)
    yield case("ThresholdedRelu", x, alpha=0.3)
    yield case("Shrink", x, lambd=0.4, bias=0.1)


def spectra():
    signal = real(2, 16, 1)
    for opset, onesided, length in product((17, 20), (0, 1), (None, 12, 20)):
        given = None if length is None else np.array(length, np.int64)
        axis = (np.array(1, np.int64),) if opset == 20 else ()
        yield case("DFT", signal, given, *axis, opset=opset, onesided=onesided)
    yield case("DFT", real(2, 16, 2), None, opset=17, inverse=1)
    yield case("DFT", real(2, 9, 2), None, np.array(1, np.int64), opset=20, inverse=1, onesided=1,
               reference=True)  # fmt: skip
    yield case("DFT", real(2, 9, 2), None, np.array(-2, np.int64), opset=20)
    step, size = np.array(4, np.int64), np.array(8, np.int64)
    for onesided in (0, 1):
        yield case("STFT", signal, step, real(8), opset=17, onesided=onesided)
        yield case("STFT", signal, step, None, size, opset=17, onesided=onesided)
        yield case("STFT", signal, step, real(8), size, opset=17, onesided=onesided)


FAMILIES = (
    resize, convolutions, pads, ranking, indices, products, normalisations, pools, sampling,
    arrangement, functions, spectra,
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_each_case_computes_what_onnxruntime_does(family):
    wrong = []
    for number, each in enumerate(family()):
        model = each.model
        if each.reference:
            theirs = ReferenceEvaluator(model).run(None, {"x": each.x})
        else:
            theirs = run_onnx(model, each.x)
        module = read_onnx(model.SerializeToString()).module
        with torch.no_grad():
            ours = module(torch.from_numpy(each.x))
        ours = ours if isinstance(ours, tuple) else (ours,)
        for a, b in zip(ours, theirs, strict=True):
            same = a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
            if not same or a.numpy().dtype != b.dtype:
                wrong.append((number, each.operator, each.opset, each.attributes, each.rest))
                break
    assert not wrong, wrong[:5]

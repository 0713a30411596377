"""Operators of the domain ai.onnx.ml that converters of scikit-learn put around a network."""

import math
from functools import partial

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import broadcast, compute, reals

_TREES = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
_LINEAR = ("LinearClassifier", "LinearRegressor")
_KERNELS = ("SVMClassifier", "SVMRegressor")
_TABLES = ("CategoryMapper", "DictVectorizer", "FeatureVectorizer", "LabelEncoder",
           "OneHotEncoder", "CastMap", "ZipMap")  # fmt: skip


def _extract(node: Node, builder: Builder) -> None:
    builder.call(node, partial(compute, extract), [node.input(0), node.input(1)])


def extract(x: Tensor, places: Tensor) -> Tensor:
    """The entries of x along its last axis at the places; of one axis becomes a row."""
    rows = x if x.dim() > 1 else x.unsqueeze(0)
    return rows.index_select(rows.dim() - 1, places.reshape(-1).long())


def _scaler(node: Node, builder: Builder) -> None:
    offset, scale = reals(node, "offset"), reals(node, "scale")
    function = partial(scaled, offset=offset or [0.0], scale=scale or [1.0])
    builder.call(node, partial(compute, function), [node.input(0)])


def scaled(x: Tensor, offset: list[float], scale: list[float]) -> Tensor:
    """(x - offset) * scale, one number for all entries of the last axis or one for each."""
    width = x.shape[-1]
    if {len(offset), len(scale)} - {1, width}:
        raise SecateurError(
            "model_invalid", f"Scaler of {len(offset)} and {len(scale)} numbers for {width}."
        )
    x = x.float()
    return (x - x.new_tensor(offset)) * x.new_tensor(scale)


def _normalizer(node: Node, builder: Builder) -> None:
    norm = node.attributes.string("norm", "MAX")
    if norm not in ("MAX", "L1", "L2"):
        raise node.invalid(f"norm={norm!r}")
    builder.call(node, partial(compute, partial(normalized, norm=norm)), [node.input(0)])


def normalized(x: Tensor, norm: str) -> Tensor:
    """X over the norm of its last axis, as it is where that is 0."""
    x = x.float()
    if norm == "MAX":
        size = x.amax(-1, keepdim=True)
    else:
        size = x.abs().sum(-1, keepdim=True) if norm == "L1" else x.norm(dim=-1, keepdim=True)
    return x / torch.where(size == 0, torch.ones_like(size), size)


def _imputer(node: Node, builder: Builder) -> None:
    values = reals(node, "imputed_value_floats")
    missing = node.attributes.float("replaced_value_float", math.nan)
    node.attributes.ints("imputed_value_int64s")
    node.attributes.int("replaced_value_int64")
    if not values:
        raise node.unsupported("no imputed_value_floats")
    function = partial(imputed, values=values, missing=missing)
    builder.call(node, partial(compute, function), [node.input(0)])


def imputed(x: Tensor, values: list[float], missing: float) -> Tensor:
    """X with other numbers where it is `missing`."""
    gaps = torch.isnan(x) if math.isnan(missing) else x == missing
    return torch.where(gaps, x.new_tensor(values), x)


def _binarizer(node: Node, builder: Builder) -> None:
    threshold = node.attributes.float("threshold", 0.0)
    builder.call(node, partial(broadcast, partial(binarized, threshold=threshold)), [node.input(0)])


def binarized(x: Tensor, threshold: float) -> Tensor:
    """1 where x is over the threshold, 0 elsewhere."""
    return (x > threshold).to(x.dtype)


def _refuse(why: str, hint: str):  # type: ignore[no-untyped-def]
    def build(node: Node, builder: Builder) -> None:
        raise SecateurError(
            "operator_unsupported",
            f"{node.operator} {why}, which is not read.",
            where=node.label,
            hint=hint,
            operators=[node.operator],
        )

    return build


_NETWORKS = "Networks are read: of scikit-learn MLPClassifier and MLPRegressor."

OPERATORS = {
    "ArrayFeatureExtractor": _extract,
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "Imputer": _imputer,
    "Binarizer": _binarizer,
    **dict.fromkeys(_TREES, _refuse("is an ensemble of trees, no network", _NETWORKS)),
    **dict.fromkeys(_KERNELS, _refuse("is a support vector machine, no network", _NETWORKS)),
    **dict.fromkeys(
        _LINEAR,
        _refuse("keeps its weights in attributes of the node rather than in a tensor", _NETWORKS),
    ),
    **dict.fromkeys(
        _TABLES,
        _refuse(
            "works on texts and dictionaries before the network or inside of it",
            "Export the network alone, and prepare its inputs outside.",
        ),
    ),
}

"""Operators of the domain ai.onnx.ml that converters of scikit-learn put around a network."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.ops.dispatch import broadcast, compute, priced, reals

_TREES = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
_LINEAR = ("LinearClassifier", "LinearRegressor")
_KERNELS = ("SVMClassifier", "SVMRegressor")
_TABLES = ("CategoryMapper", "DictVectorizer", "FeatureVectorizer", "CastMap", "ZipMap")


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


def _one_hot_encoder(node: Node, builder: Builder) -> None:
    categories = node.attributes.ints("cats_int64s")
    node.attributes.int("zeros")  # 0 makes other numbers an error in a runtime: no data have them
    if not categories:
        raise _refusal(node, _TEXTS, _OUTSIDE)
    builder.call(node, partial(compute, partial(one_hot, categories=categories)), [node.input(0)])


def one_hot(x: Tensor, categories: list[int]) -> Tensor:
    """1 at the category that x is, along a new last axis; 0 everywhere for other numbers."""
    priced(x, (*x.shape, len(categories)), "OneHotEncoder")
    places = torch.tensor(categories, device=x.device)
    return (x.long().unsqueeze(-1) == places).float()


def _label_encoder(node: Node, builder: Builder) -> None:
    keys = reals(node, "keys_floats") or node.attributes.ints("keys_int64s")
    integers = node.attributes.ints("values_int64s")
    values = integers or reals(node, "values_floats")
    default = node.attributes.int("default_int64", -1), node.attributes.float("default_float", 0.0)
    if not keys or not values:
        raise _refusal(node, _TEXTS, _OUTSIDE)
    if len(keys) != len(values):
        raise node.invalid(f"{len(keys)} keys for {len(values)} values")
    function = partial(
        looked_up, keys=keys, values=values, default=default[0] if integers else default[1]
    )
    builder.call(node, partial(compute, function), [node.input(0)])


def looked_up(x: Tensor, keys: list[float], values: list[float], default: float) -> Tensor:
    """The value of the first key that x equals, `default` where there is none."""
    priced(x, (*x.shape, len(keys)), "LabelEncoder")
    same = x.unsqueeze(-1) == torch.tensor(keys, dtype=x.dtype, device=x.device)
    found = torch.tensor(values, device=x.device)[same.int().argmax(-1)]
    return torch.where(same.any(-1), found, found.new_tensor(default))


def _refuse(why: str, hint: str) -> Callable[[Node, Builder], None]:
    def build(node: Node, builder: Builder) -> None:
        raise _refusal(node, why, hint)

    return build


def _refusal(node: Node, why: str, hint: str) -> SecateurError:
    return SecateurError(
        "operator_unsupported",
        f"{node.operator} {why}, which is not read.",
        where=node.label,
        hint=hint,
        operators=[node.operator],
    )


_TEXTS = "works on texts or dictionaries"
_OUTSIDE = "Export the network alone, and prepare its inputs outside."
_NETWORKS = "Networks are read: of scikit-learn MLPClassifier and MLPRegressor."

OPERATORS = {
    "ArrayFeatureExtractor": _extract,
    "Scaler": _scaler,
    "Normalizer": _normalizer,
    "Imputer": _imputer,
    "Binarizer": _binarizer,
    "OneHotEncoder": _one_hot_encoder,
    "LabelEncoder": _label_encoder,
    **dict.fromkeys(_TREES, _refuse("is an ensemble of trees, no network", _NETWORKS)),
    **dict.fromkeys(_KERNELS, _refuse("is a support vector machine, no network", _NETWORKS)),
    **dict.fromkeys(
        _LINEAR,
        _refuse("keeps its weights in attributes of the node rather than in a tensor", _NETWORKS),
    ),
    **dict.fromkeys(_TABLES, _refuse(_TEXTS, _OUTSIDE)),
}

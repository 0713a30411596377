"""Torch calls whose arguments come in several forms, brought to those of our functions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pruning.formats.architecture.functions import FUNCTIONS

if TYPE_CHECKING:
    from pruning.formats.architecture.trace import Tracer

Adapter = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any]], Any]

READ_OUT = {"__bool__", "item", "tolist", "__int__", "__float__", "__index__", "__contains__",
            "numpy", "__array__", "nonzero", "masked_select", "unique", "allclose",
            "equal"}  # fmt: skip
"""What gives numbers or shapes that depend on the data."""

PASSIVE = {"dim", "ndimension", "is_floating_point", "is_complex", "is_contiguous", "stride",
           "numel", "nelement", "element_size", "get_device", "__len__", "__repr__", "__format__",
           "__hash__", "__deepcopy__", "_assert", "is_tensor", "is_same_size", "register_hook",
           "storage_offset", "data_ptr", "is_grad_enabled", "_set_grad_enabled", "set_grad_enabled",
           "tensor", "as_tensor", "scalar_tensor", "from_numpy", "__get__", "get_default_dtype",
           "is_inference", "untyped_storage", "is_nonzero", "broadcast_shapes"}  # fmt: skip
"""What says something of a tensor that the graph does not need, or makes constants."""

ADAPTERS: dict[str, Adapter] = {}

_RENAMED = {"axis": "dim", "keepdims": "keepdim", "split_size": "split_size_or_sections",
            "ord": "p", "min_value": "min", "max_value": "max"}  # fmt: skip
_DROPPED = {"inplace", "device", "layout", "pin_memory", "requires_grad", "memory_format",
            "non_blocking", "copy", "generator"}  # fmt: skip


def bound(
    tracer: "Tracer", name: str, order: tuple[str, ...], target: str, args: Any, kwargs: Any
) -> dict[str, Any]:
    """A call's arguments by the names of our function."""
    if len(args) > len(order):
        raise tracer.refuse(f"calls {name} with {len(args)} arguments")
    given = dict(zip(order, args, strict=False)) | kwargs
    parameters = {p.name: p for p in FUNCTIONS[target].parameters}
    found = {}
    for key, value in given.items():
        key = _RENAMED.get(key, key)
        if key.startswith("_") or key in _DROPPED:
            continue
        if key in parameters:
            same = not isinstance(value, Tensor) and value is parameters[key].default
            if not same and not (value is None and not parameters[key].optional):
                found[key] = value
        elif value not in (None, False, 0):
            raise tracer.refuse(f"calls {name} with {key}={value!r}, which is not read")
    missing = [n for n, p in parameters.items() if not p.optional and n not in found
               and p.default is not None and p.default.__class__ is object]  # fmt: skip
    if missing:
        raise tracer.refuse(f"calls {name} without {', '.join(missing)}, which is not read")
    return found


def _adapter(*names: str) -> Callable[[Adapter], Adapter]:
    def enter(adapter: Adapter) -> Adapter:
        for name in names:
            ADAPTERS[name] = adapter
        return adapter

    return enter


def _many(values: tuple[Any, ...]) -> list[Any]:
    """Sizes given one by one or as a sequence."""
    if len(values) == 1 and isinstance(values[0], list | tuple):
        return list(values[0])
    return list(values)


@_adapter("size")
def _size(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    shape = tracer.shape(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return shape if dim is None else shape[dim]


@_adapter("view", "reshape", "expand", "repeat", "permute", "flip", "tile")
def _shaped(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    name = func.__name__
    sizes = _many((*args[1:], *kwargs.values()))
    if any(isinstance(size, torch.dtype) for size in sizes):
        raise tracer.unknown("view with a type")
    target, key = {
        "view": ("reshape", "shape"), "reshape": ("reshape", "shape"), "expand": ("expand", "size"),
        "repeat": ("repeat", "size"), "permute": ("permute", "dims"), "flip": ("flip", "dims"),
        "tile": ("repeat", "size"),
    }[name]  # fmt: skip
    if name == "tile":
        sizes = [1] * (args[0].dim() - len(sizes)) + sizes
    return tracer.call(func, args, kwargs, target, {"input": args[0], key: sizes})


@_adapter("view_as", "reshape_as", "expand_as")
def _as_other(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    target, key = ("expand", "size") if func.__name__ == "expand_as" else ("reshape", "shape")
    given = {"input": args[0], key: list(tracer.shape(args[1]))}
    return tracer.call(func, args, kwargs, target, given)


@_adapter("__getitem__")
def _indexed(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    tensor, index = args
    parts = list(index) if isinstance(index, tuple) else [index]
    parts = [torch.as_tensor(part) if isinstance(part, list) else part for part in parts]
    if any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts):
        raise tracer.refuse("takes the elements of a mask, whose number depends on the data",
                            "Use torch.where or masked_fill.")  # fmt: skip
    return tracer.call(func, args, kwargs, "getitem", {"input": tensor, "index": parts})


@_adapter("__setitem__")
def _assigned(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    raise tracer.refuse("assigns to a part of a tensor",
                        "Use torch.cat, torch.where or masked_fill.")  # fmt: skip


def _turned(target: str) -> Adapter:
    def adapter(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
        names = [p.name for p in FUNCTIONS[target].parameters[:2]]
        given = dict(zip(names, (args[1], args[0]), strict=True)) | kwargs
        return tracer.call(func, args, kwargs, target, given)

    return adapter


for _name, _target in {
    "__rsub__": "sub", "rsub": "sub", "__rdiv__": "div", "__rtruediv__": "div", "__rpow__": "pow",
    "__rfloordiv__": "floor_divide", "__rmod__": "remainder", "__rmatmul__": "matmul",
}.items():  # fmt: skip
    ADAPTERS[_name] = _turned(_target)


@_adapter("max", "min")
def _extreme(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    name = func.__name__
    values = (*args[1:], *kwargs.values())
    if not values:
        return tracer.call(func, args, kwargs, f"{name}_all", {"input": args[0]})
    if isinstance(values[0], Tensor):
        given = {"input": args[0], "other": values[0]}
        return tracer.call(func, args, kwargs, f"{name}imum", given)
    keys = ("input", "dim", "keepdim")
    given = bound(tracer, name, keys, f"{name}_dim", args, kwargs)
    return tracer.call(func, args, kwargs, f"{name}_dim", given)


@_adapter("var", "std")
def _spread(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    rest = list(args[1:])
    named = dict(kwargs)
    if rest and isinstance(rest[0], bool):
        named["unbiased"] = rest.pop(0)
    named |= dict(zip(("dim", "unbiased", "keepdim"), rest, strict=False))
    unbiased = named.get("unbiased", True)
    correction = named.get("correction", int(unbiased))
    given = {"input": args[0], "dim": named.get("dim", named.get("axis")),
             "correction": 1 if correction is None else correction,
             "keepdim": bool(named.get("keepdim", False))}  # fmt: skip
    return tracer.call(func, args, kwargs, func.__name__, given)


@_adapter("norm", "vector_norm")
def _norm(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    linear = getattr(func, "__module__", None) != "torch.functional" and "linalg" in str(func)
    order = ("input", "p", "dim", "keepdim")
    values = dict(zip(order, args, strict=False)) | kwargs
    values = {_RENAMED.get(k, k): v for k, v in values.items() if v is not None}
    p = values.get("p", 2.0)
    if linear and func.__name__ == "norm":
        raise tracer.unknown("linalg.norm")
    p = 2.0 if p == "fro" else p
    if not isinstance(p, int | float):
        raise tracer.unknown(f"norm with p={p!r}")
    given = {"input": values["input"], "p": float(p), "dim": values.get("dim"),
             "keepdim": bool(values.get("keepdim", False))}  # fmt: skip
    return tracer.call(func, args, kwargs, "norm", given)


@_adapter("to", "float", "double", "half", "bfloat16", "long", "int", "bool", "type_as", "type",
          "byte", "short", "char")  # fmt: skip
def _cast(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    result = func(*args, **kwargs)
    if not isinstance(result, Tensor):
        return result
    if result.dtype == args[0].dtype:
        return tracer.result(result, "function", "identity", {"input": tracer.encoded(args[0])})
    given = {"input": tracer.encoded(args[0]), "dtype": tracer.encoded(result.dtype)}
    return tracer.result(result, "function", "to", given)


@_adapter("t")
def _transposed(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    if args[0].dim() != 2:
        raise tracer.unknown("t")
    given = {"input": args[0], "dim0": 0, "dim1": 1}
    return tracer.call(func, args, kwargs, "transpose", given)


@_adapter("einsum")
def _einsum(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    operands = _many(args[1:])
    if len(operands) > 2:
        raise tracer.refuse("calls einsum with more than two tensors", "Split it into products.")
    given = {"equation": args[0], "operands": operands}
    return tracer.call(func, args, kwargs, "einsum", given)


@_adapter("arange")
def _range(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    keys = ("end",) if len(args) == 1 else ("start", "end", "step")
    named = dict(zip(keys, args, strict=False)) | {
        k: v for k, v in kwargs.items() if k in ("start", "end", "step")
    }
    result = func(*args, **kwargs)
    declared = {k: tracer.encoded(v) for k, v in (named | {"dtype": result.dtype}).items()}
    return tracer.result(result, "function", "arange", declared)


@_adapter("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like",
          "full_like")  # fmt: skip
def _filled(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    name, rest = func.__name__, list(args)
    kind = name.removeprefix("new_").removesuffix("_like")
    value: Any = {"zeros": 0, "ones": 1}.get(kind)
    if kind == "full":
        value = kwargs["fill_value"] if "fill_value" in kwargs else rest.pop()
    if name.endswith("_like"):
        sizes: list[Any] = list(tracer.shape(args[0]))
    else:
        if name.startswith("new_"):
            rest.pop(0)
        sizes = _many((*rest, *(kwargs[k] for k in ("size",) if k in kwargs)))
    result = func(*args, **kwargs)
    if isinstance(value, int) and result.is_floating_point() and not isinstance(value, bool):
        value = float(value)
    given = {"size": sizes, "fill_value": value, "dtype": result.dtype}
    declared = {key: tracer.encoded(v) for key, v in given.items()}
    return tracer.result(result, "function", "full", declared)


_DROPOUTS = {"dropout": "Dropout", "dropout1d": "Dropout1d", "dropout2d": "Dropout2d",
             "dropout3d": "Dropout3d", "alpha_dropout": "AlphaDropout",
             "feature_alpha_dropout": "FeatureAlphaDropout"}  # fmt: skip


@_adapter(*_DROPOUTS)
def _dropout(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    training = named.get("training", named.get("train", True))
    if training:
        raise tracer.refuse("draws at random also in eval mode", "Pass training=self.training.")
    path = tracer.layer(_DROPOUTS[func.__name__], {"p": float(named.get("p", 0.5))}, func.__name__)
    result = func(*args, **kwargs)
    return tracer.result(result, "layer", path, {"input": tracer.encoded(named["input"])})


@_adapter("batch_norm")
def _batch_norm(tracer: "Tracer", func: Any, args: Any, kwargs: Any) -> Any:
    keys = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    named = dict(zip(keys, args, strict=False)) | kwargs
    if named.pop("training", False) or named.get("running_mean") is None:
        raise tracer.refuse("normalises by the batch also in eval mode", "Use nn.BatchNorm2d.")
    given = {k: v for k, v in named.items() if v is not None and k in (*keys[:5], "eps")}
    return tracer.call(func, args, kwargs, "batch_norm", given)

"""Types, sizes and arguments as they stand in a .pt2 document: each checked and built anew."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pruning.formats.pt2 import expressions
from pruning.formats.pt2.schema import (
    MOST_SIZE,
    boolean,
    identifier,
    integer,
    listed,
    number,
    record,
    refuse,
    text,
    variant,
)
from pruning.formats.safetensors import DTYPES

TYPES: dict[int, tuple[str, np.dtype]] = {
    1: ("uint8", DTYPES["U8"]),
    2: ("int8", DTYPES["I8"]),
    3: ("int16", DTYPES["I16"]),
    4: ("int32", DTYPES["I32"]),
    5: ("int64", DTYPES["I64"]),
    6: ("float16", DTYPES["F16"]),
    7: ("float32", DTYPES["F32"]),
    8: ("float64", DTYPES["F64"]),
    10: ("complex64", np.dtype(np.complex64)),
    12: ("bool", DTYPES["BOOL"]),
    13: ("bfloat16", DTYPES["BF16"]),
}
"""torch.export's numbers of the types that are read."""

MOST_DIMS = 16
STRIDED = 7
_WORDS = r"[a-z_]{0,30}|[A-Za-z,.\-> ]{1,200}"


def scalar_type(value: Any, where: str) -> int:
    """The number of a type."""
    found = integer(value, where)
    if found not in TYPES:
        raise refuse(f"The type {found} is not read", where)
    return found


def device(value: Any, where: str) -> dict[str, Any]:
    """A device; only kinds that hold plain memory."""
    found = record(value, where, ("type",), ("index",))
    kind = text(found["type"], where, "cpu|cuda|mps|xpu")
    index = found.get("index")
    return {"type": kind, "index": None if index is None else integer(index, where, 0, 63)}


def sym_int(value: Any, where: str, low: int = 0) -> dict[str, Any]:
    """A size: a number, or a formula of symbols."""
    kind, inner = variant(value, where)
    if kind == "as_int":
        return {"as_int": integer(inner, where, low, MOST_SIZE)}
    if kind != "as_expr":
        raise refuse("A size is neither a number nor a formula", where)
    found = record(inner, where, ("expr_str",), ("hint",))
    source = text(found["expr_str"], where, r"(?s).*")
    hint = found.get("hint")
    made: dict[str, Any] = {"expr_str": expressions.rewritten(source, where), "hint": None}
    if hint is not None:
        name, value = variant(hint, where)
        if name != "as_int":
            raise refuse("The hint of a size is no integer", where)
        made["hint"] = {"as_int": integer(value, where, low, MOST_SIZE)}
    return {"as_expr": made}


def tensor_meta(value: Any, where: str, fixed: bool = False) -> dict[str, Any]:
    """Type, sizes and strides of a tensor.

    Args:
        value: As it stands in the document.
        where: Named in errors.
        fixed: Whether sizes must be numbers.
    """
    keys = ("dtype", "sizes", "requires_grad", "device", "strides", "storage_offset", "layout")
    found = record(value, where, keys)
    sizes = listed(found["sizes"], where, sym_int, MOST_DIMS)
    strides = listed(found["strides"], where, sym_int, MOST_DIMS)
    offset = sym_int(found["storage_offset"], where)
    if len(sizes) != len(strides):
        raise refuse("A tensor has another number of strides than of sizes", where)
    if fixed and not all("as_int" in part for part in (*sizes, *strides, offset)):
        raise refuse("A stored tensor has a size that is no number", where)
    if integer(found["layout"], where) != STRIDED:
        raise refuse("A tensor is not strided (sparse and blocked layouts are not read)", where)
    return {
        "dtype": scalar_type(found["dtype"], where),
        "sizes": sizes,
        "requires_grad": boolean(found["requires_grad"], where),
        "device": device(found["device"], where),
        "strides": strides,
        "storage_offset": offset,
        "layout": STRIDED,
    }


class Names:
    """Which values of the graph are known so far: a value is used after it was made."""

    def __init__(self) -> None:
        self.tensors: set[str] = set()
        self.sizes: set[str] = set()
        self.used: set[str] = set()

    def tensor(self, value: Any, where: str) -> dict[str, str]:
        """A reference to a tensor that is known."""
        name = identifier(record(value, where, ("name",))["name"], where)
        if name not in self.tensors:
            raise refuse(f"The tensor {name} is used before it is made", where)
        self.used.add(name)
        return {"name": name}

    def size(self, value: Any, where: str) -> dict[str, Any]:
        """A size: a reference to one that is known, or a number."""
        kind, inner = variant(value, where)
        if kind == "as_int":
            return {"as_int": integer(inner, where)}
        name = identifier(inner, where) if kind == "as_name" else ""
        if name not in self.sizes:
            raise refuse(f"The size {name} is used before it is made", where)
        self.used.add(name)
        return {"as_name": name}

    def optional(self, value: Any, where: str) -> dict[str, Any]:
        """A tensor or nothing."""
        kind, inner = variant(value, where)
        if kind == "as_none":
            return {"as_none": True}
        if kind != "as_tensor":
            raise refuse("Here stands neither a tensor nor nothing", where)
        return {"as_tensor": self.tensor(inner, where)}

    def argument(self, value: Any, where: str) -> dict[str, Any]:
        """An argument of an operator, of one of the kinds below."""
        kind, inner = variant(value, where)
        lists: dict[str, Callable[[Any, str], Any]] = {
            "as_tensors": self.tensor,
            "as_ints": integer,
            "as_floats": number,
            "as_bools": boolean,
            "as_sym_ints": self.size,
            "as_optional_tensors": self.optional,
        }
        singles: dict[str, Callable[[Any, str], Any]] = {
            "as_tensor": self.tensor,
            "as_int": integer,
            "as_float": number,
            "as_bool": boolean,
            "as_sym_int": self.size,
            "as_optional_tensor": self.optional,
            "as_scalar_type": scalar_type,
            "as_device": device,
        }
        if kind in lists:
            return {kind: listed(inner, where, lists[kind])}
        if kind in singles:
            return {kind: singles[kind](inner, where)}
        if kind == "as_none":
            return {"as_none": True}
        if kind == "as_string":
            return {"as_string": text(inner, where, _WORDS)}
        if kind == "as_memory_format":
            return {kind: integer(inner, where, 1, 4)}
        if kind == "as_layout":
            return {kind: integer(inner, where, STRIDED, STRIDED)}
        raise refuse(f"An argument of the kind {kind[:40]!r} is not read", where)

"""Arguments of layers and functions: declared in one line each, checked when read and when run.

A signature is text of our own such as `input:tensor dim:ints? keepdim:bool=false`: a name, a kind,
`?` where null is allowed, and a default in JSON. The kinds are the methods of `_KINDS`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning.formats.architecture.schema import invalid, shown

REQUIRED = object()
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    # Halves are computed in float32.
    "float16": torch.float32,
    "bfloat16": torch.float32,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_LONGEST_LIST = 4096
_LITERAL = ("bool", "dtype", "choice", "equation", "size", "count", "few", "sizes", "chance")
_LARGEST = 2**63
_EQUATION = re.compile(r"[a-zA-Z. ]{1,40}(,[a-zA-Z. ]{1,40})?(->[a-zA-Z. ]{0,40})?")


@dataclass(frozen=True)
class Ref:
    """The value of an earlier node."""

    node: str


@dataclass(frozen=True)
class Slice:
    """A slice whose ends may be values."""

    start: Any
    stop: Any
    step: Any


@dataclass(frozen=True)
class Parameter:
    """One argument of a layer or a function."""

    name: str
    kind: str
    optional: bool
    default: Any
    choices: tuple[str, ...] = ()

    def admits(self, value: Any) -> bool:
        """Whether a value, or a reference to one, can stand here."""
        if value is None:
            return self.optional
        if self.choices and isinstance(value, str):
            return value in self.choices
        if isinstance(value, Ref):
            return self.kind not in _LITERAL
        return _KINDS[self.kind](value)


def signature(text: str) -> tuple[Parameter, ...]:
    """The parameters that a line declares."""
    return tuple(_parameter(word) for word in text.split())


def _parameter(word: str) -> Parameter:
    head, _, default = word.partition("=")
    name, _, kind = head.partition(":")
    optional = kind.endswith("?")
    kind, _, choices = kind.removesuffix("?").partition("{")
    value: Any = json.loads(default) if default else (None if optional else REQUIRED)
    listed = tuple(choices.removesuffix("}").split(",")) if choices else ()
    return Parameter(name, kind or "choice", optional, value, listed)


def read(
    parameters: tuple[Parameter, ...], given: Mapping[str, Any], where: str, what: str
) -> dict[str, Any]:
    """The file's arguments as values and references, defaults filled in.

    Raises:
        SecateurError: `model_invalid` for arguments unknown, missing or of another kind.
    """
    known = {p.name: p for p in parameters}
    for name in given:
        if name not in known:
            raise invalid(
                f"{where}: {what} takes no {shown(name)!r}, but {', '.join(known) or 'nothing'}",
                where,
            )
    found = {}
    for p in parameters:
        if p.name in given:
            value = _value(given[p.name], p, where)
        elif p.default is REQUIRED:
            raise invalid(f"{where}: {what} needs {p.name}", where)
        else:
            value = p.default
        if not p.admits(value):
            raise invalid(f"{where}: {p.name} of {what} {_expected(p)}", where)
        found[p.name] = value
    return found


def _expected(parameter: Parameter) -> str:
    if parameter.choices:
        return f"is one of {', '.join(parameter.choices)}"
    return f"does not hold what its kind, {parameter.kind}, allows"


def _value(value: Any, parameter: Parameter, where: str) -> Any:
    if parameter.kind == "dtype" and isinstance(value, str):
        return DTYPES.get(value, value)
    return _parsed(value, where, 0)


def _parsed(value: Any, where: str, depth: int) -> Any:
    if depth > 4:
        raise invalid(f"{where}: an argument is nested too deep", where)
    if isinstance(value, list):
        if len(value) > _LONGEST_LIST:
            raise invalid(f"{where}: a list of {len(value)} entries", where)
        return [_parsed(part, where, depth + 1) for part in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"node": str(name)} if len(value) == 1:
            return Ref(name)
        case {"slice": [start, stop, step]} if len(value) == 1:
            return Slice(*(_parsed(part, where, depth + 1) for part in (start, stop, step)))
        case {"ellipsis": True} if len(value) == 1:
            return ...
        case {"float": "inf" | "-inf" as number} if len(value) == 1:
            return float(number)
    raise invalid(f"{where}: {shown(json.dumps(value))} is no argument", where)


def references(value: Any) -> Iterator[str]:
    """The nodes that an argument refers to."""
    if isinstance(value, Ref):
        yield value.node
    elif isinstance(value, Slice):
        for part in (value.start, value.stop, value.step):
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def resolve(value: Any, values: Mapping[str, Any]) -> Any:
    """The argument with the values in place of the references."""
    if isinstance(value, Ref):
        return values[value.node]
    if isinstance(value, Slice):
        return slice(*(resolve(part, values) for part in (value.start, value.stop, value.step)))
    if isinstance(value, list):
        return [resolve(part, values) for part in value]
    return value


def _int(value: Any) -> bool:
    return isinstance(value, Ref) or (type(value) is int and -_LARGEST <= value < _LARGEST)


def _float(value: Any) -> bool:
    return (type(value) is float and not math.isnan(value)) or _int(value)


def _listed(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(each(part) for part in value)


def _tensor(value: Any) -> bool:
    return isinstance(value, Tensor | Ref)


def _end(value: Any) -> bool:
    return value is None or _int(value)


def _index(value: Any) -> bool:
    if isinstance(value, Slice | slice):
        return all(_end(part) for part in (value.start, value.stop, value.step))
    return value is None or value is ... or type(value) is bool or _int(value) or _tensor(value)


def _extent(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _extents(value: Any) -> bool:
    if not isinstance(value, list):
        return _extent(value)
    return 0 < len(value) <= 8 and all(part is None or _extent(part) for part in value)


_ints, _floats = _listed(_int), _listed(_float)
_KINDS: dict[str, Callable[[Any], bool]] = {
    "tensor": _tensor,
    "tensors": _listed(_tensor),
    "number": lambda value: _tensor(value) or type(value) is bool or _float(value),
    "int": _int,
    "size": lambda value: type(value) is int and 1 <= value < 2**31,
    "count": _extent,
    "few": lambda value: type(value) is int and 1 <= value <= 128,
    "sizes": _extents,
    "ints": lambda value: _int(value) or _ints(value),
    "chance": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "float": _float,
    "floats": lambda value: _float(value) or _floats(value),
    "bool": lambda value: type(value) is bool,
    "dtype": lambda value: isinstance(value, torch.dtype),
    "choice": lambda value: False,
    "equation": lambda value: isinstance(value, str) and bool(_EQUATION.fullmatch(value)),
    "index": lambda value: all(map(_index, value)) if isinstance(value, list) else _index(value),
    "tuple": lambda value: isinstance(value, tuple | list | Ref),
}

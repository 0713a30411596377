"""architecture.json: a network as layers and a graph of calls, declared. Torch-free.

Names in the file only ever look things up: kinds and functions in our own tables, nodes and layers
in the file itself. docs/architecture-json.md is the reference.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pruning.errors import SecateurError
from pruning.formats.json_cost import MOST, cost
from pruning.formats.limits import Limits
from pruning.formats.safetensors import unique

FILE = "architecture.json"
FORMAT = "secateur-architecture"
VERSION = 1

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
          "bool")  # fmt: skip
DType = Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8",
                "uint8", "bool"]  # fmt: skip

MOST_NODES = 6_000
"""Nodes of a graph; each is run several times while the file is checked."""

INLINE = 4096
"""Numbers of a constant that may stand in the JSON; larger ones lie with the weights."""


def _name(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it is not printable")
    return text


def _path(text: str) -> str:
    parts = text.split(".")
    if len(parts) > 32 or not all(parts):
        raise ValueError("it is no dotted path")
    return _name(text)


Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_name)]
Path = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_path)]
Size = Annotated[int, Field(ge=1, lt=2**31, strict=True)]
Extent = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Input(_Part):
    """What the network takes; names stand for free sizes, that of the samples is `batch`."""

    name: Name
    dtype: Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "bool"]
    shape: Annotated[list[Size | Name], Field(max_length=16)]


class Output(_Part):
    """A node whose value the network gives back."""

    name: Name
    node: Name


class Layer(_Part):
    """A layer of torch.nn: its kind and the arguments it is made with."""

    kind: Name
    args: dict[str, Any] = {}


class Stored(_Part):
    """A tensor of its own that belongs to no layer; a buffer is not trained."""

    shape: Annotated[list[Extent], Field(max_length=16)]
    dtype: DType = "float32"
    buffer: bool = False


class Constant(_Part):
    """Numbers of the graph: given here, or without `values` the tensor `constants.<name>`."""

    dtype: DType
    shape: Annotated[list[Extent], Field(max_length=16)]
    values: Annotated[list[bool | int | float | str], Field(max_length=INLINE)] | None = None


class Node(_Part):
    """One value: the result of a layer or a function, a parameter, or a constant.

    `target` is a key of `layers`, the name of a function, a key of `parameters` (or the path of a
    layer's own parameter) or a key of `constants`. In `args`, {"node": name} is an earlier value,
    {"slice": [start, stop, step]} and {"ellipsis": true} index, {"float": "-inf"} is a number.
    """

    name: Name
    op: Literal["layer", "function", "parameter", "constant"]
    target: Name
    args: dict[str, Any] = {}


class Architecture(_Part):
    """The whole file. `ties` lists groups of tensor names that are one tensor."""

    format: Literal["secateur-architecture"]
    version: Literal[1]
    producer: Annotated[str, Field(max_length=200)] = ""
    inputs: Annotated[list[Input], Field(min_length=1, max_length=64)]
    outputs: Annotated[list[Output], Field(min_length=1, max_length=64)]
    layers: dict[Path, Layer]
    parameters: dict[Path, Stored] = {}
    constants: dict[Name, Constant] = {}
    graph: list[Node]
    ties: list[Annotated[list[Name], Field(min_length=2)]] = []


def parse(raw: bytes, limits: Limits) -> Architecture:
    """The file's content, typed and bounded.

    Raises:
        SecateurError: `model_unreadable` for what is not JSON, `model_invalid` for what does not
            follow the schema, `model_too_large` for too many nodes, layers or tensors.
    """
    if len(raw) > limits.text_bytes:
        raise SecateurError(
            "model_too_large",
            f"{FILE} has {len(raw)} bytes; the limit is {limits.text_bytes}.",
            where=FILE,
        )
    if (taken := cost(raw)) > MOST:
        raise SecateurError(
            "model_too_large",
            f"{FILE} would take about {taken} bytes of memory; the limit is {MOST}.",
            where=FILE,
        )
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=_refused)
    except RecursionError:
        raise _unreadable("it is nested too deep") from None
    except ValueError as error:
        raise _unreadable(shown(str(error))) from None
    _check_counts(value, limits)
    try:
        return Architecture.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid(
            f"{shown(where) or FILE}: {shown(first['msg'])}", shown(where) or FILE
        ) from None
    except RecursionError:
        raise _unreadable("it is nested too deep") from None


def dump(architecture: Architecture) -> bytes:
    """The file for an architecture: one node, layer or tensor a line."""
    fields = architecture.model_dump(mode="json", exclude_defaults=True)
    fields = {"format": FORMAT, "version": VERSION} | fields
    lines = []
    for key, value in fields.items():
        if isinstance(value, list) and value:
            body = ",\n".join(f"    {_compact(item)}" for item in value)
            lines.append(f"  {_compact(key)}: [\n{body}\n  ]")
        elif isinstance(value, dict) and value:
            body = ",\n".join(f"    {_compact(k)}: {_compact(v)}" for k, v in value.items())
            lines.append(f"  {_compact(key)}: {{\n{body}\n  }}")
        else:
            lines.append(f"  {_compact(key)}: {_compact(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def shown(text: str, length: int = 120) -> str:
    """Text of a file as it may stand in a message."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= length else clean[: length - 3] + "..."


def invalid(reason: str, where: str | None = None, hint: str | None = None) -> SecateurError:
    """The error for a file that follows the schema and still describes no network."""
    return SecateurError(
        "model_invalid",
        f"{FILE} is not valid: {reason}.",
        where=where and shown(where),
        hint=hint
        or "`secateur export` writes a valid one; docs/architecture-json.md describes it.",
    )


def _check_counts(value: Any, limits: Limits) -> None:
    if not isinstance(value, dict):
        raise invalid("it is no JSON object", FILE)
    most = {
        "graph": min(limits.nodes, MOST_NODES),
        "layers": limits.tensors,
        "parameters": limits.tensors,
        "constants": limits.tensors,
        "ties": limits.tensors,
    }
    for key, limit in most.items():
        part = value.get(key)
        if isinstance(part, list | dict) and len(part) > limit:
            raise SecateurError(
                "model_too_large",
                f"{FILE} has {len(part)} entries in {key}; the limit is {limit}.",
                where=key,
            )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _refused(text: str) -> None:
    raise ValueError(f'{text} is no JSON number; write {{"float": "-inf"}}')


def _unreadable(reason: str) -> SecateurError:
    return SecateurError(
        "model_unreadable",
        f"{FILE} can't be read: {reason}.",
        where=FILE,
        hint="`secateur export` writes one; docs/architecture-json.md describes it.",
    )

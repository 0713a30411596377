"""A program of torch.export built anew from what an uploaded document says, and nothing else of it.

Every operator, name, size and argument is looked up or checked; stack traces, module names, guards,
sample inputs and whatever is not needed to run the graph is left out.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.pt2 import expressions, trees
from pruning.formats.pt2.graph import Graph
from pruning.formats.pt2.schema import (
    boolean,
    identifier,
    integer,
    listed,
    mapping,
    number,
    path,
    record,
    refuse,
    text,
    variant,
)

SCHEMA = 8
DOCUMENT = "models/model.json"
_VERIFIERS = ("TRAINING", "ATEN", "")


@dataclass
class Program:
    """A checked program.

    Attributes:
        document: As torch.export's JSON has it.
        plain: The same for loading it here: on the CPU, trees without output classes.
        tensors: Names of stored tensors the graph takes: parameters, buffers and constants.
        operators: How often each operator is used.
    """

    document: dict[str, Any]
    plain: dict[str, Any]
    tensors: dict[str, str]
    operators: Counter[str] = field(default_factory=Counter)


def rebuilt(document: Any, limits: Limits) -> Program:
    """The program of a parsed `models/model.json`.

    Raises:
        SecateurError: `opset_unsupported`, `operator_unsupported`, `model_invalid`,
            `model_too_large`, with the place in the document.
    """
    keys = ("graph_module", "opset_version", "range_constraints", "schema_version")
    fields = record(document, DOCUMENT, keys, ("verifiers", "torch_version", "guards_code"))
    version = _version(fields["schema_version"])
    module = record(
        fields["graph_module"],
        "graph_module",
        ("graph", "signature", "module_call_graph"),
        ("metadata", "treespec_namedtuple_fields"),
    )
    graph = Graph(module["graph"], limits)
    signature = _Signature(module["signature"], graph)
    calls = [_root_call(module["module_call_graph"], signature, plain) for plain in (False, True)]
    made = {
        "opset_version": _opset(fields["opset_version"]),
        "range_constraints": _ranges(fields["range_constraints"]),
        "schema_version": version,
        "verifiers": listed(fields.get("verifiers", []), "verifiers", _verifier, 4),
        "torch_version": text(
            fields.get("torch_version", ""), "torch_version", r"[\w.+<=\-]{0,60}"
        ),
        "guards_code": [],
    }
    documents = [
        {
            "graph_module": {
                "graph": graph.made,
                "signature": signature.made,
                "module_call_graph": [call],
                "metadata": {},
                "treespec_namedtuple_fields": {},
            },
            **made,
        }
        for call in calls
    ]
    return Program(documents[0], on_cpu(documents[1]), signature.tensors, graph.operators)


class _Signature:
    """What each input and output of the graph is."""

    def __init__(self, value: Any, graph: Graph) -> None:
        fields = record(value, "signature", ("input_specs", "output_specs"))
        self._graph = graph
        self.tensors: dict[str, str] = {}
        inputs = listed(fields["input_specs"], "input_specs", self._input, 100_000)
        outputs = listed(fields["output_specs"], "output_specs", self._output, 10_000)
        if len(inputs) != len(graph.inputs) or len(outputs) != len(graph.outputs):
            raise refuse("The signature does not fit the graph", "signature")
        for made, given in zip(inputs, graph.inputs, strict=True):
            kind, inner = next(iter(made.items()))
            if "as_tensor" in given and kind != "constant_input":
                arg = inner["arg"].get("as_tensor", inner["arg"])
                if arg != given["as_tensor"]:
                    raise refuse("The signature does not fit the graph's inputs", "signature")
        self.user_inputs = sum(next(iter(i)) in ("user_input", "constant_input") for i in inputs)
        self.user_outputs = sum(next(iter(o)) == "user_output" for o in outputs)
        self.made = {"input_specs": inputs, "output_specs": outputs}

    def _stored(self, value: Any, key: str, where: str) -> dict[str, Any]:
        """A stored tensor: each is taken by one input alone."""
        fields = record(value, where, ("arg", key), ("persistent",))
        name = path(fields[key], where)
        argument = self._graph.names.tensor(fields["arg"], where)
        if name in self.tensors:
            raise refuse(f"Two inputs take {name}", where)
        self.tensors[name] = key
        return {"arg": argument, key: name}

    def _input(self, value: Any, where: str) -> dict[str, Any]:
        kind, inner = variant(value, where)
        if kind == "parameter":
            return {kind: self._stored(inner, "parameter_name", where)}
        if kind == "buffer":
            made = self._stored(inner, "buffer_name", where)
            return {kind: {**made, "persistent": boolean(inner.get("persistent"), where)}}
        if kind == "tensor_constant":
            return {kind: self._stored(inner, "tensor_constant_name", where)}
        if kind == "user_input":
            arg = record(inner, where, ("arg",))["arg"]
            return {kind: {"arg": self._graph.names.argument(arg, where)}}
        if kind == "constant_input":
            fields = record(inner, where, ("name", "value"))
            name = fields["name"] and identifier(fields["name"], where)
            return {kind: {"name": name, "value": _constant(fields["value"], where)}}
        raise refuse(f"Inputs of the kind {kind[:40]!r} are not read", where)

    def _output(self, value: Any, where: str) -> dict[str, Any]:
        kind, inner = variant(value, where)
        if kind == "user_output":
            arg = record(inner, where, ("arg",))["arg"]
            return {kind: {"arg": self._graph.names.argument(arg, where)}}
        if kind == "buffer_mutation":
            fields = record(inner, where, ("arg", "buffer_name"))
            argument = self._graph.names.tensor(fields["arg"], where)
            return {kind: {"arg": argument, "buffer_name": path(fields["buffer_name"], where)}}
        raise refuse(f"Outputs of the kind {kind[:40]!r} are not read", where)


def _constant(value: Any, where: str) -> dict[str, Any]:
    kind, inner = variant(value, where)
    if kind == "as_none":
        return {kind: True}
    if kind == "as_int":
        return {kind: integer(inner, where)}
    if kind == "as_float":
        return {kind: number(inner, where)}
    if kind == "as_bool":
        return {kind: boolean(inner, where)}
    return {"as_string": text(inner, where, r"[\w .\-]{0,200}")}


def _root_call(value: Any, signature: _Signature, plain: bool) -> dict[str, Any]:
    """How arguments and results of the whole program nest; entries of submodules go."""
    calls = listed(value, "module_call_graph", lambda v, w: v, 100_000)
    first = record(calls[0] if calls else None, "module_call_graph", ("fqn", "signature"))
    where = "module_call_graph[0]"
    keys = ("inputs", "outputs", "in_spec", "out_spec")
    fields = record(first["signature"], where, keys, ("forward_arg_names",))
    into = trees.rewritten(fields["in_spec"], f"{where}.in_spec", signature.user_inputs)
    out = trees.rewritten(fields["out_spec"], f"{where}.out_spec", signature.user_outputs)
    names = fields.get("forward_arg_names")
    made = {
        "inputs": [],
        "outputs": [],
        "in_spec": into[plain],
        "out_spec": out[plain],
        "forward_arg_names": None if names is None else listed(names, where, identifier, 1_000),
    }
    return {"fqn": "", "signature": made}


def _version(value: Any) -> dict[str, int]:
    fields = record(value, "schema_version", ("major", "minor"))
    major = integer(fields["major"], "schema_version")
    if major != SCHEMA:
        raise SecateurError(
            "opset_unsupported",
            f"The document is of schema version {major}; version {SCHEMA} is read.",
            where="schema_version",
            hint="Save it again with torch.export.save of torch 2.11 or newer.",
        )
    return {"major": major, "minor": integer(fields["minor"], "schema_version", 0, 10_000)}


def _opset(value: Any) -> dict[str, int]:
    found = mapping(value, "opset_version", 100)
    return {"aten": integer(found.get("aten", 10), "opset_version", 0, 10_000)}


def _ranges(value: Any) -> dict[str, Any]:
    found = {}
    for name, limits in mapping(value, "range_constraints", 10_000).items():
        where = f"range_constraints: {name}"
        fields = record(limits, where, (), ("min_val", "max_val"))
        bounds = [fields.get("min_val"), fields.get("max_val")]
        checked = [None if b is None else integer(b, where) for b in bounds]
        # Formulas and sizes that depend on data are only ever checked; the graph runs without.
        if expressions.is_symbol(name):
            found[name] = {"min_val": checked[0], "max_val": checked[1]}
    return found


def _verifier(value: Any, where: str) -> str:
    if value not in _VERIFIERS or not isinstance(value, str):
        raise refuse("A dialect other than TRAINING and ATEN is not read", where)
    return value


def on_cpu(value: Any) -> Any:
    """The same document with every device the CPU."""
    if isinstance(value, dict):
        if value.keys() == {"type", "index"}:
            return {"type": "cpu", "index": None}
        return {key: on_cpu(part) for key, part in value.items()}
    if isinstance(value, list):
        return [on_cpu(part) for part in value]
    return value

"""The graph of a program, built anew node by node; operators, names and arguments checked."""

from collections import Counter
from typing import Any

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.pt2.inline import inlined
from pruning.formats.pt2.operators import COMPARISONS, DROPPED, SYMBOLIC, overload
from pruning.formats.pt2.schema import (
    LARGEST,
    identifier,
    integer,
    listed,
    mapping,
    record,
    refuse,
    shown,
    text,
    variant,
)
from pruning.formats.pt2.values import Names, sym_int, tensor_meta


class Graph:
    """Inputs, nodes and outputs, in this order: nothing is used before it is made."""

    def __init__(self, value: Any, limits: Limits) -> None:
        keys = ("inputs", "outputs", "nodes", "tensor_values", "sym_int_values", "sym_bool_values")
        fields = record(inlined(value), "graph", keys, ("sym_float_values", "custom_obj_values"))
        if fields.get("custom_obj_values"):
            raise SecateurError(
                "model_pickled", "The graph uses custom objects.", where="custom_obj_values"
            )
        self.names = Names()
        self.operators: Counter[str] = Counter()
        most = 4 * limits.nodes
        self._metas = mapping(fields["tensor_values"], "tensor_values", most)
        self._sizes = mapping(fields["sym_int_values"], "sym_int_values", most)
        self.kept: dict[str, dict[str, Any]] = {"tensor": {}, "size": {}}
        self.inputs = listed(fields["inputs"], "graph.inputs", self._input, limits.tensors)
        nodes = fields["nodes"]
        if isinstance(nodes, list) and len(nodes) > limits.nodes:
            raise SecateurError(
                "model_too_large", f"The graph has {len(nodes)} nodes, over {limits.nodes}."
            )
        _check_operators(nodes)
        made = listed(_without_checks(nodes), "graph.nodes", self._node, limits.nodes)
        self.outputs = listed(fields["outputs"], "graph.outputs", self.names.argument, 10_000)
        self.made = {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "nodes": made,
            "tensor_values": self.kept["tensor"],
            "sym_int_values": self.kept["size"],
            "sym_bool_values": {},
            "is_single_tensor_return": False,
            "custom_obj_values": {},
            "sym_float_values": {},
        }

    def _new_tensor(self, value: Any, where: str) -> dict[str, str]:
        name = self._new(record(value, where, ("name",))["name"], where)
        if name not in self._metas:
            raise refuse(f"Nothing is said of the tensor {name}", where)
        self.kept["tensor"][name] = tensor_meta(self._metas[name], f"tensor_values: {name}")
        self.names.tensors.add(name)
        return {"name": name}

    def _new_size(self, value: Any, where: str) -> dict[str, str]:
        kind, inner = variant(value, where)
        name = self._new(inner if kind == "as_name" else None, where)
        if name not in self._sizes:
            raise refuse(f"Nothing is said of the size {name}", where)
        low = -LARGEST
        self.kept["size"][name] = sym_int(self._sizes[name], f"sym_int_values: {name}", low)
        self.names.sizes.add(name)
        return {"as_name": name}

    def _new(self, value: Any, where: str) -> str:
        name = identifier(value, where)
        if name in self.names.tensors or name in self.names.sizes:
            raise refuse(f"The name {name} is given to two values", where)
        return name

    def _input(self, value: Any, where: str) -> dict[str, Any]:
        kind, inner = variant(value, where)
        if kind == "as_tensor":
            return {"as_tensor": self._new_tensor(inner, where)}
        if kind == "as_none":
            return {"as_none": True}
        if kind in ("as_int", "as_float", "as_bool", "as_string"):
            return self.names.argument(value, where)
        raise refuse("An input is neither a tensor nor a constant", where)

    def _node(self, value: Any, where: str) -> dict[str, Any]:
        fields = record(
            value,
            where,
            ("target", "inputs", "outputs"),
            ("metadata", "is_hop_single_tensor_return", "name"),
        )
        target = fields["target"]
        self.operators[target.removeprefix("torch.ops.")] += 1
        name = None if fields.get("name") is None else identifier(fields["name"], where)
        where = f"{name} ({target})"
        inputs = listed(fields["inputs"], where, self._named_argument, 1_000)
        self._check_arguments(target, inputs, where)
        outputs = listed(fields["outputs"], where, self._output, 10_000)
        if len(outputs) > 1 or any("as_tensors" in part for part in outputs):
            self._check_own_name(name, where)
        return {
            "target": target,
            "inputs": inputs,
            "outputs": outputs,
            "metadata": {},
            "is_hop_single_tensor_return": None,
            "name": name,
        }

    def _check_own_name(self, name: str | None, where: str) -> None:
        """The name of a node of several results is one of its own."""
        if name is not None:
            self._new(name, where)

    def _check_arguments(self, target: str, inputs: list[dict[str, Any]], where: str) -> None:
        found = overload(target)
        names = [argument.name for argument in found._schema.arguments] if found else []
        given = [argument["name"] for argument in inputs]
        if found is None:
            if len(given) != len(SYMBOLIC[target]):
                raise refuse("Arithmetic of sizes with other arguments than it takes", where)
            kinds = {next(iter(argument["arg"])) for argument in inputs}
            if not kinds <= {"as_int", "as_sym_int"}:
                raise refuse("Arithmetic of sizes with something else", where)
            return
        if len(set(given)) != len(given) or not set(given) <= set(names):
            raise refuse("The operator has other arguments than it takes", where)

    def _named_argument(self, value: Any, where: str) -> dict[str, Any]:
        fields = record(value, where, ("name", "arg"), ("kind",))
        kind = fields.get("kind")
        return {
            "name": text(fields["name"], where, r"[A-Za-z_]\w{0,60}"),
            "arg": self.names.argument(fields["arg"], f"{where}.{fields['name']}"),
            "kind": None if kind is None else integer(kind, where, 0, 2),
        }

    def _output(self, value: Any, where: str) -> dict[str, Any]:
        kind, inner = variant(value, where)
        if kind == "as_tensor":
            return {kind: self._new_tensor(inner, where)}
        if kind == "as_tensors":
            return {kind: listed(inner, where, self._new_tensor, 10_000)}
        if kind == "as_sym_int":
            return {kind: self._new_size(inner, where)}
        if kind == "as_none":
            return {kind: True}
        raise refuse("A result is neither a tensor nor a size", where)


def _check_operators(nodes: Any) -> None:
    """Refuses a graph with operators that are not on the list, all of them at once."""
    unknown: Counter[str] = Counter()
    for index, node in enumerate(nodes if isinstance(nodes, list) else []):
        target = node.get("target") if isinstance(node, dict) else None
        if not isinstance(target, str) or len(target) > 200:
            raise refuse("A node has no operator", f"graph.nodes[{index}]")
        known = target in SYMBOLIC or target in COMPARISONS or target in DROPPED
        if not known and overload(target) is None:
            unknown[shown(target)] += 1
    if unknown:
        listing = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items())[:20])
        raise SecateurError(
            "operator_unsupported",
            f"The graph uses operators that are not read: {listing}.",
            where=next(iter(unknown)),
            hint="Export with plain aten operators: no custom operators, control flow, random "
            "numbers or sizes that depend on data. ep.run_decompositions() replaces many.",
            operators=sorted(unknown)[:100],
        )


def _without_checks(nodes: Any) -> Any:
    """The nodes without those that only check something, and without what only these use."""
    if not isinstance(nodes, list):
        return nodes
    kept: list[Any] = []
    used: set[str] = set()
    for node in reversed(nodes):
        target = node["target"]
        if target in DROPPED:
            continue
        if target in COMPARISONS and not used.intersection(_texts(node.get("outputs"))):
            continue
        if target in COMPARISONS:
            raise SecateurError(
                "operator_unsupported",
                "The graph compares sizes and goes on with the result.",
                where=target,
                hint="Export with fixed sizes.",
            )
        used.update(_texts(node.get("inputs")))
        kept.append(node)
    return kept[::-1]


def _texts(value: Any) -> set[str]:
    """All texts anywhere in a value; more than the names in use, never fewer."""
    found: set[str] = set()
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            found.add(part)
        elif isinstance(part, list):
            stack.extend(part)
        elif isinstance(part, dict):
            stack.extend(part.values())
    return found

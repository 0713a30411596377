"""Blocks of a graph that only set a mode (no gradients, no autocast), put in their callers' place.

torch.export writes `with torch.no_grad():` as an operator that takes a graph. What the block
computes is the same without it, so its nodes move into the graph around it, and everything else is
checked there.
"""

from typing import Any

from pruning.formats.pt2.schema import refuse

_GRADIENTS = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"
_LEADING = {_GRADIENTS: 1, _AUTOCAST: 4}
_DEEPEST = 8
_MOST = 1_000


def inlined(graph: Any) -> Any:
    """The graph's document with such blocks replaced by their nodes; unchecked, like the graph.

    Raises:
        SecateurError: `model_invalid` for a block that is not of the form torch writes.
    """
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    if not isinstance(nodes, list) or not any(_is_block(node) for node in nodes):
        return graph
    try:
        return _Inlining(graph).graph(graph, 0)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration):
        raise refuse("A block of the graph is not of the form that torch writes", "graph") from None


def _is_block(node: Any) -> bool:
    return isinstance(node, dict) and node.get("target") in (_GRADIENTS, _AUTOCAST)


class _Inlining:
    def __init__(self, graph: dict[str, Any]) -> None:
        self.taken: set[str] = {*graph["tensor_values"], *graph["sym_int_values"]}
        self.taken.update(str(node.get("name")) for node in graph["nodes"])
        self.blocks = 0

    def graph(self, graph: dict[str, Any], depth: int) -> dict[str, Any]:
        """A copy with its blocks replaced, from the inside out."""
        self.blocks += 1
        if depth > _DEEPEST or self.blocks > _MOST:
            raise refuse("The graph has too many blocks within blocks", "graph")
        made = {**graph, "nodes": []}
        for key in ("tensor_values", "sym_int_values"):
            made[key] = dict(graph[key])
        for node in graph["nodes"]:
            if _is_block(node):
                self._block(node, made, depth)
            else:
                made["nodes"].append(node)
        return made

    def _block(self, node: dict[str, Any], made: dict[str, Any], depth: int) -> None:
        lead = _LEADING[node["target"]]
        args = [argument["arg"] for argument in node["inputs"]]
        if node["target"] == _AUTOCAST and args[2] != {"as_bool": False}:
            raise refuse("A block runs in mixed precision (autocast)", str(node.get("name")))
        block, given = args[lead]["as_graph"], args[lead + 1 :]
        inner = self.graph(block["graph"], depth + 1)
        results = _names(node["outputs"])
        new: dict[str, str] = {}
        for placeholder, argument in zip(inner["inputs"], given, strict=True):
            new[_name(placeholder)] = _name(argument)
        passed: list[tuple[str, str]] = []
        for output, result in zip(inner["outputs"], results, strict=True):
            if _name(output) in new:
                passed.append((_name(output), result))
            else:
                new[_name(output)] = result
        for name in [*inner["tensor_values"], *inner["sym_int_values"]]:
            if name not in new:
                new[name] = self._fresh(f"{block['name']}_{name}")
        for key in ("tensor_values", "sym_int_values"):
            for name, value in inner[key].items():
                made[key].setdefault(new[name], value)
        made["nodes"] += [self._renamed(inside, new) for inside in inner["nodes"]]
        made["nodes"] += [_alias(new[name], result) for name, result in passed]

    def _renamed(self, node: dict[str, Any], new: dict[str, str]) -> dict[str, Any]:
        outputs = _renamed(node["outputs"], new)
        own = node.get("name")
        if own is not None:
            own = new[own] if own in new else self._fresh(f"block_{own}")
        inputs = [{**each, "arg": _renamed(each["arg"], new)} for each in node["inputs"]]
        return {**node, "inputs": inputs, "outputs": outputs, "name": own}

    def _fresh(self, name: str) -> str:
        found, count = name[:200], 1
        while found in self.taken:
            count += 1
            found = f"{name[:200]}_{count}"
        self.taken.add(found)
        return found


def _name(argument: dict[str, Any]) -> str:
    ((kind, inner),) = argument.items()
    return str(inner["as_name"] if kind == "as_sym_int" else inner["name"])


def _names(outputs: list[Any]) -> list[str]:
    """The names of a block's results, which come one by one or as a list."""
    found = []
    for output in outputs:
        ((kind, inner),) = output.items()
        found += [part["name"] for part in inner] if kind == "as_tensors" else [_name(output)]
    return found


def _renamed(value: Any, new: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(part, new) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        key: new[part] if key in ("name", "as_name") else _renamed(part, new)
        for key, part in value.items()
    }


def _alias(source: str, result: str) -> dict[str, Any]:
    """A block's result that is one of its arguments or another result."""
    tensor = {"name": "self", "arg": {"as_tensor": {"name": source}}, "kind": 1}
    return {
        "target": "torch.ops.aten.alias.default",
        "inputs": [tensor],
        "outputs": [{"as_tensor": {"name": result}}],
        "name": result,
    }

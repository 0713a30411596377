"""How a program's arguments and results nest, as torch's pytree writes it: checked, written anew.

torch looks a node's type up among those registered, and gives its context to that type's own
reader; one of them (defaultdict) imports a module by name. Only tuples, lists, dictionaries and the
output classes of `transformers` pass.
"""

import json
import re
from typing import Any

from pruning.formats.pt2.schema import listed, parse, record, refuse, text

_DEEPEST = 20
_OUTPUT_CLASS = r"(transformers|diffusers)(\.[A-Za-z_]\w{0,100}){1,12}"
_KEY = r"[\w.\- ]{1,200}"
_LISTS = ("builtins.tuple", "builtins.list")
_DICTS = ("builtins.dict", "collections.OrderedDict")


def rewritten(value: Any, where: str, leaves: int) -> tuple[str, str]:
    """A tree's text made anew, and the same without classes that a reader might not have.

    Args:
        value: The text as it stands in the file.
        where: Named in errors.
        leaves: How many leaves the tree must have.

    Raises:
        SecateurError: `model_invalid` for other types or a wrong number of leaves.
    """
    source = text(value, where, r"(?s).{1,200000}")
    document = parse(source.encode(), where)
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise refuse("The tree is not one of version 1", where)
    own, plain, count = _node(document[1], where, 0)
    if count != leaves:
        raise refuse(f"The tree has {count} leaves, the graph {leaves}", where)
    return json.dumps([1, own]), json.dumps([1, plain])


def _node(value: Any, where: str, depth: int) -> tuple[Any, Any, int]:
    if depth > _DEEPEST:
        raise refuse(f"The tree is more than {_DEEPEST} deep", where)
    node = record(value, where, ("type", "context", "children_spec"))
    kind, context, children = node["type"], node["context"], node["children_spec"]
    parts = listed(children, where, lambda v, w: _node(v, w, depth + 1), 10_000)
    inner = [part[0] for part in parts], [part[1] for part in parts]
    count = sum(part[2] for part in parts)
    if kind is None:
        if context is not None or children:
            raise refuse("A leaf of the tree has content", where)
        leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        return leaf, leaf, 1
    if kind in _LISTS:
        said, plain_kind = "null", kind
        if context != said:
            raise refuse("A list in the tree has a context", where)
    elif kind in _DICTS or (isinstance(kind, str) and re.fullmatch(_OUTPUT_CLASS, kind)):
        said, plain_kind = _keys(context, where, len(children)), "builtins.dict"
    else:
        raise refuse("The tree holds a type other than tuple, list and dict", where)
    own = {"type": kind, "context": said, "children_spec": inner[0]}
    return own, {"type": plain_kind, "context": said, "children_spec": inner[1]}, count


def _keys(context: Any, where: str, count: int) -> str:
    keys = parse(text(context, where, r"(?s).{1,100000}").encode(), where)
    found = listed(keys, where, lambda v, w: text(v, w, _KEY), 10_000)
    if len(found) != count or len(set(found)) != count:
        raise refuse("The keys of a dictionary in the tree do not fit its values", where)
    return json.dumps(found)

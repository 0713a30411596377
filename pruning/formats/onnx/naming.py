"""Module paths for layers, taken from the names in the file where these are safe.

Names in an upload are an attacker's to choose, so a component must match a strict pattern, must
not hide an attribute of `nn.Module`, and a path may not run through another layer.
"""

import re
from collections.abc import Iterable

from torch import nn

_COMPONENT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}|[0-9]{1,9}")
_DEEPEST = 16


class Scope(nn.Module):
    """A part of a dotted path: holds layers, computes nothing."""


def candidates(weight: str, bias: str | None, node: str) -> list[str]:
    """Paths that the names in the file suggest, best first; not yet checked to be safe."""
    found = [weight.removesuffix(".weight")] if weight.endswith(".weight") else []
    if bias and bias.endswith(".bias"):
        found.append(bias.removesuffix(".bias"))
    if "/" in node:
        found.append(_from_scopes(node))
    return [*found, weight, node]


class Paths:
    """Registers layers in a module, each under a path of its own.

    Args:
        root: The module.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._next: dict[str, int] = {}

    def place(self, layer: nn.Module, suggestions: Iterable[str], fallback: str) -> str:
        """Registers `layer` and returns its path.

        The first usable suggestion is taken; a path taken by another layer gets a number up to 99,
        the fallback any number.
        """
        for path in suggestions:
            if _is_safe(path) and (found := self._numbered(layer, path, 99)):
                return found
        found = self._numbered(layer, fallback, None)
        assert found is not None
        return found

    def _numbered(self, layer: nn.Module, path: str, most: int | None) -> str | None:
        # A number that was refused stays so: the search goes on where the last one ended.
        while most is None or self._next.get(path, 1) <= most:
            number = self._next.get(path, 1)
            self._next[path] = number + 1
            attempt = path if number == 1 else f"{path}_{number}"
            if _register(self._root, layer, attempt):
                return attempt
        return None


def _is_safe(path: str) -> bool:
    parts = path.split(".")
    return len(parts) <= _DEEPEST and all(_COMPONENT.fullmatch(part) for part in parts)


def _register(root: nn.Module, layer: nn.Module, path: str) -> bool:
    *scopes, leaf = path.split(".")
    parent = root
    missing: list[str] = []
    for part in scopes:
        child = parent._modules.get(part) if not missing else None
        if child is None:
            if hasattr(_PLAIN if missing else parent, part):
                return False
            missing.append(part)
        elif isinstance(child, Scope):
            parent = child
        else:
            return False
    if hasattr(_PLAIN if missing else parent, leaf):
        return False
    for part in missing:
        child = Scope()
        parent.add_module(part, child)
        parent = child
    parent.add_module(leaf, layer)
    return True


def _from_scopes(node: str) -> str:
    """`/features/features.0/Conv` as torch names nodes -> `features.0`."""
    path: list[str] = []
    for scope in node.strip("/").split("/")[:-1]:
        parts = scope.split(".")
        path += parts[1:] if path and len(parts) > 1 and parts[0] == path[-1] else parts
    return ".".join(path)


_PLAIN = Scope()

"""Finds the arithmetic of a method: the module named like its `kind` in the method's package."""

import importlib
import keyword
from types import ModuleType


def method(package: str, kind: str) -> ModuleType:
    """The module `pruning.<package>.<kind>` (with a trailing `_` where `kind` is a keyword)."""
    name = f"{kind}_" if keyword.iskeyword(kind) else kind
    return importlib.import_module(f"pruning.{package}.{name}")

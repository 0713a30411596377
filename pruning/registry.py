"""Finds the arithmetic of a method: the module named like its `kind` in the method's package.

An installed package may bring methods of its own: its entry point `<kind>` in the group
`secateur.<package>` names the module that stands for `pruning/<package>/<kind>.py`. Only what was
installed beside Secateur is ever found; nothing that was uploaded is.
"""

import importlib
import keyword
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType


def method(package: str, kind: str) -> ModuleType:
    """The module `pruning.<package>.<kind>` (with a trailing `_` where `kind` is a keyword).

    Raises:
        ModuleNotFoundError: Neither Secateur nor an installed package has such a method.
    """
    return importlib.import_module(_module(package, kind))


@cache
def _module(package: str, kind: str) -> str:
    name = f"{kind}_" if keyword.iskeyword(kind) else kind
    own = f"pruning.{package}.{name}"
    return own if find_spec(own) is not None else installed(package).get(kind, own)


def installed(package: str) -> dict[str, str]:
    """Modules that installed packages bring for `pruning.<package>`, by kind.

    Raises:
        ValueError: Two packages bring the same kind.
    """
    found: dict[str, str] = {}
    for point in entry_points(group=f"secateur.{package}"):
        if found.setdefault(point.name, point.value) != point.value:
            raise ValueError(f"secateur.{package}: {point.name} is both {found[point.name]} "
                             f"and {point.value}")  # fmt: skip
    return found

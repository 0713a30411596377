"""Every method a spec can name, with its parameters, formula, paper, needs and cost. Torch-free.

A declaration is found by being a `Declaration` in a module of `pruning.catalogue.criteria` or
`pruning.catalogue.compensation`: adding one means adding its file and the file of its arithmetic.
An installed package adds its own through entry points (docs/add-a-criterion.md).
"""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from pruning.catalogue import compensation as _compensation
from pruning.catalogue import criteria as _criteria
from pruning.catalogue.about import About, Cost, Declaration, Need, Size
from pruning.registry import installed

__all__ = [
    "PLANNED",
    "About",
    "Cost",
    "Declaration",
    "Need",
    "Size",
    "compensations",
    "criteria",
    "describe",
]

PLANNED: dict[str, tuple[str, ...]] = {
    "pattern": ("channel",),
}
"""Named in the design but not built: refused with `not_available` rather than as unknown."""


def _declared(package: ModuleType) -> dict[str, type[Declaration]]:
    found: dict[str, type[Declaration]] = {}
    own = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    others = installed(package.__name__.removeprefix("pruning."))
    for name in [*(f"{package.__name__}.{n}" for n in own), *(others[k] for k in sorted(others))]:
        module = importlib.import_module(name)
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Declaration)
                and value.__module__ == module.__name__
            ):
                kind = value.model_fields["kind"].default
                if kind in found:
                    raise ValueError(f"{name} declares {kind}, which {found[kind]} is already")
                found[kind] = value
    return found


@cache
def criteria() -> dict[str, type[Declaration]]:
    """Criterion declarations by kind."""
    return _declared(_criteria)


@cache
def compensations() -> dict[str, type[Declaration]]:
    """Compensation declarations by kind."""
    return _declared(_compensation)


def describe(kind: str, declaration: type[Declaration]) -> dict[str, Any]:
    """One catalogue entry as JSON values: what the methods' own `About` says, and the parameters.

    `parameters` is the JSON Schema of the declaration's fields.
    """
    about = declaration.about
    return {
        "kind": kind,
        "title": about.title,
        "summary": about.summary,
        "formula": about.formula,
        "paper": about.paper,
        "unit": about.unit,
        "needs": list(about.needs),
        "cost": about.cost_formula,
        "parameters": declaration.model_json_schema(),
    }

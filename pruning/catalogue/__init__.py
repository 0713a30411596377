"""Every method a spec can name, with its parameters, formula, paper, needs and cost. Torch-free.

A declaration is found by being a `Declaration` in a module of `pruning.catalogue.criteria` or
`pruning.catalogue.compensation`: adding one means adding its file and the file of its arithmetic.
"""

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from pruning.catalogue import compensation as _compensation
from pruning.catalogue import criteria as _criteria
from pruning.catalogue.about import About, Cost, Declaration, Need, Size

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
    "criterion": ("random", "taylor", "snip", "grasp", "synflow", "wanda"),
    "compensation": ("layerwise",),
    "pattern": ("nm", "block", "channel"),
    "target": ("weights", "bytes", "flops", "max_drop"),
    "allocation": ("erk", "owl", "search"),
    "schedule": ("one_by_one",),
    "recovery": ("batch_norm",),
}
"""Named in the design but not built: refused with `not_available` rather than as unknown."""


def _declared(package: ModuleType) -> dict[str, type[Declaration]]:
    found: dict[str, type[Declaration]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Declaration)
                and value.__module__ == module.__name__
            ):
                found[value.model_fields["kind"].default] = value
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

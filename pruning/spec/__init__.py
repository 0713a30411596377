"""The spec: what a job shall do. Every field has a default, unknown fields are errors. Torch-free.

Wherever there is a choice, the field is a union told apart by `kind`; criteria and compensations
come from `pruning.catalogue`, so a new one appears here without a change to this package.
"""

from pruning.spec.allocation import (
    ERKAllocation,
    GlobalAllocation,
    OWLAllocation,
    SearchAllocation,
    UniformAllocation,
)
from pruning.spec.objective import Gates, Objective
from pruning.spec.pattern import NM, Block, Unstructured
from pruning.spec.places import places
from pruning.spec.read import default_spec, parse_spec
from pruning.spec.recovery import SGD, Adam, AdamW, FineTune, NoRecovery
from pruning.spec.schedule import OneByOne, OneShot, Rounds
from pruning.spec.selection import Scope, Target
from pruning.spec.spec import Spec
from pruning.spec.trust import Trust

__all__ = [
    "NM",
    "SGD",
    "Adam",
    "AdamW",
    "Block",
    "ERKAllocation",
    "FineTune",
    "Gates",
    "GlobalAllocation",
    "NoRecovery",
    "OWLAllocation",
    "Objective",
    "OneByOne",
    "OneShot",
    "Rounds",
    "Scope",
    "SearchAllocation",
    "Spec",
    "Target",
    "Trust",
    "UniformAllocation",
    "Unstructured",
    "default_spec",
    "parse_spec",
    "places",
]

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
from pruning.spec.comparison import Comparison
from pruning.spec.gates import Between, Gates, Latency
from pruning.spec.inputs import Input
from pruning.spec.objective import Metric, Objective
from pruning.spec.pattern import NM, Block, Unstructured
from pruning.spec.places import places
from pruning.spec.read import default_spec, parse_spec
from pruning.spec.recovery import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Constant,
    Cosine,
    Distill,
    EarlyStop,
    FineTune,
    NoRecovery,
    OneCycle,
)
from pruning.spec.schedule import (
    AtInitialisation,
    OneByOne,
    OneShot,
    Proximal,
    RewindRates,
    RewindWeights,
    Rounds,
    Stop,
)
from pruning.spec.selection import Scope
from pruning.spec.spec import Spec
from pruning.spec.target import Curve, MaxDrop, Target
from pruning.spec.trust import Trust

__all__ = [
    "NM",
    "SGD",
    "Adam",
    "AdamW",
    "AtInitialisation",
    "BatchNorm",
    "Between",
    "Block",
    "Comparison",
    "Constant",
    "Cosine",
    "Curve",
    "Distill",
    "ERKAllocation",
    "EarlyStop",
    "FineTune",
    "Gates",
    "GlobalAllocation",
    "Input",
    "Latency",
    "MaxDrop",
    "Metric",
    "NoRecovery",
    "OWLAllocation",
    "Objective",
    "OneByOne",
    "OneCycle",
    "OneShot",
    "Proximal",
    "RewindRates",
    "RewindWeights",
    "Rounds",
    "Scope",
    "SearchAllocation",
    "Spec",
    "Stop",
    "Target",
    "Trust",
    "UniformAllocation",
    "Unstructured",
    "default_spec",
    "parse_spec",
    "places",
]

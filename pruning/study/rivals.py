"""What a comparison runs: the specs of the other criteria, and of the job's own. Torch-free."""

from typing import Any

from pruning.catalogue import Declaration
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.compensation.obs import OBSUpdate
from pruning.catalogue.criteria.layer_obs import LayerOBS
from pruning.catalogue.criteria.magnitude import Magnitude
from pruning.catalogue.criteria.obs import OBS
from pruning.spec import (
    AtInitialisation,
    GlobalAllocation,
    NoRecovery,
    OneShot,
    Rounds,
    SearchAllocation,
    Spec,
    Unstructured,
)


def rivals(spec: Spec) -> list[Declaration]:
    """The criteria that the job's own is compared with, each once."""
    found: list[Declaration] = []
    for criterion in spec.comparison.criteria:
        if criterion != spec.criterion and criterion not in found:
            found.append(criterion)
    return found


def names(criteria: list[Declaration]) -> list[str]:
    """Kinds; where that is not clear, with what the criterion says other than by default."""
    kinds = [criterion.kind for criterion in criteria]
    return [c.kind if kinds.count(c.kind) == 1 else _in_full(c) for c in criteria]


def _in_full(criterion: Declaration) -> str:
    fields = type(criterion).model_fields
    said = [
        f"{name} {value}"
        for name, value in criterion
        if name != "kind" and value != fields[name].default
    ]
    return f"{criterion.kind} ({', '.join(said) or 'defaults'})"


def modes(spec: Spec) -> list[bool]:
    """Whether runs go through recovery: those that do not come first."""
    both = spec.comparison.recovered and not isinstance(spec.recovery, NoRecovery)
    return [False, True] if both else [False]


def plain(spec: Spec, criterion: Declaration) -> Spec:
    """In one shot without recovery: the job's own where it is one, else the default one."""
    made = _by(spec, criterion)
    schedule = spec.schedule if isinstance(spec.schedule, OneShot) else OneShot()
    alone = isinstance(made.allocation, GlobalAllocation) and isinstance(spec.pattern, Unstructured)
    if isinstance(criterion, Magnitude) and alone:
        # Under one threshold the smallest weights are the same whether they go in one step or more.
        schedule = OneShot(recomputations=1)
    return made.model_copy(update={"schedule": schedule, "recovery": NoRecovery()})


def trained(spec: Spec, criterion: Declaration, stopped: int | None) -> Spec:
    """Through the job's schedule and recovery, all the way to the target.

    Args:
        spec: The job's.
        criterion: In place of its own.
        stopped: The round after which the job's own run was stopped, so many the others have too.
    """
    made, schedule = _by(spec, criterion), spec.schedule
    if not isinstance(schedule, Rounds):
        return made
    rounds = schedule.rounds if stopped is None else stopped
    whole = schedule.model_copy(update={"stop": None, "rounds": rounds})
    return made.model_copy(update={"schedule": whole})


def _by(spec: Spec, criterion: Declaration) -> Spec:
    """The spec with a criterion, the compensation that belongs to it and an allocation it can take.

    With its own criterion the spec stays as it is.
    """
    if criterion == spec.criterion:
        return spec
    compensation: Declaration = NoCompensation()
    if not isinstance(spec.schedule, AtInitialisation):
        if isinstance(criterion, OBS):
            compensation = OBSUpdate()
        elif isinstance(criterion, LayerOBS):
            compensation = Layerwise(damping=criterion.damping)
    update: dict[str, Any] = {"criterion": criterion, "compensation": compensation}
    if isinstance(spec.allocation, SearchAllocation) and not isinstance(compensation, Layerwise):
        update["allocation"] = GlobalAllocation()
    return spec.model_copy(update=update)

"""The spec itself, and which of its parts exclude each other."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.compensation.obs import OBSUpdate
from pruning.catalogue.criteria.obs import OBS
from pruning.spec.methods import Compensation, Criterion
from pruning.spec.objective import Gates, Objective
from pruning.spec.part import Part
from pruning.spec.recovery import FineTune, NoRecovery
from pruning.spec.schedule import OneByOne, OneShot, Rounds
from pruning.spec.selection import (
    GlobalAllocation,
    Scope,
    Target,
    UniformAllocation,
    Unstructured,
)
from pruning.spec.trust import Trust


class Spec(Part):
    """One pruning job, as asked for."""

    objective: Objective = Objective()
    criterion: Criterion = OBS()
    compensation: Compensation = NoCompensation()
    pattern: Unstructured = Unstructured()
    target: Target = Target()
    allocation: Annotated[GlobalAllocation | UniformAllocation, Field(discriminator="kind")] = (
        GlobalAllocation()
    )
    scope: Scope = Scope()
    schedule: Annotated[OneShot | Rounds | OneByOne, Field(discriminator="kind")] = OneShot()
    recovery: Annotated[NoRecovery | FineTune, Field(discriminator="kind")] = NoRecovery()
    trust: Trust = Trust()
    gates: Gates = Gates()
    outputs: tuple[Literal["native", "masks", "bitmask"], ...] = ("native", "masks", "bitmask")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _compensation_follows_criterion(cls, data: Any) -> Any:
        """Left out, `compensation` is the OBS update for criterion obs and none otherwise."""
        if isinstance(data, dict) and "compensation" not in data:
            criterion = data.get("criterion", {"kind": "obs"})
            kind = (
                criterion.get("kind")
                if isinstance(criterion, dict)
                else getattr(criterion, "kind", None)
            )
            data = {**data, "compensation": {"kind": "obs" if kind == "obs" else "none"}}
        return data

    @model_validator(mode="after")
    def _parts_agree(self) -> "Spec":
        if isinstance(self.compensation, OBSUpdate) and not isinstance(self.criterion, OBS):
            raise ValueError(
                "compensation obs needs criterion obs, whose curvature it uses; "
                "set compensation to {kind: none} or criterion to {kind: obs}"
            )
        if isinstance(self.schedule, OneByOne) and isinstance(self.criterion, OBS):
            _check_one_by_one(self)
        if self.gates.max_drop.keys() - set(self.objective.metrics):
            raise ValueError("gates.max_drop names a metric that objective.metrics does not list")
        if "native" not in self.outputs:
            raise ValueError("outputs must hold native, the pruned model itself")
        return self


def _check_one_by_one(spec: Spec) -> None:
    """The greedy path of OBS is over one full inverse, and moves the survivors as it goes."""
    if isinstance(spec.compensation, NoCompensation):
        raise ValueError("schedule one_by_one with criterion obs needs compensation obs")
    if not isinstance(spec.allocation, GlobalAllocation):
        raise ValueError("schedule one_by_one with criterion obs needs allocation global")
    if getattr(spec.criterion, "inverse", None) not in ("auto", "full"):
        raise ValueError("schedule one_by_one with criterion obs needs inverse full")

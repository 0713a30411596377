"""The spec itself."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.criteria.obs import OBS
from pruning.spec.agreement import check_agreement
from pruning.spec.allocation import (
    ERKAllocation,
    GlobalAllocation,
    OWLAllocation,
    SearchAllocation,
    UniformAllocation,
)
from pruning.spec.comparison import Comparison
from pruning.spec.defaults import filled
from pruning.spec.gates import Gates
from pruning.spec.inputs import Input
from pruning.spec.methods import Compensation, Criterion
from pruning.spec.objective import Objective
from pruning.spec.part import Part
from pruning.spec.pattern import NM, Block, Unstructured
from pruning.spec.recomputations import by_itself
from pruning.spec.recovery import BatchNorm, FineTune, NoRecovery
from pruning.spec.schedule import AtInitialisation, OneByOne, OneShot, Proximal, Rounds
from pruning.spec.selection import Scope
from pruning.spec.target import Curve, Target
from pruning.spec.trust import Trust


class Spec(Part):
    """One pruning job, as asked for."""

    objective: Objective = Objective()
    inputs: dict[str, Input] = {}
    criterion: Criterion = OBS()
    compensation: Compensation = NoCompensation()
    pattern: Annotated[Unstructured | NM | Block, Field(discriminator="kind")] = Unstructured()
    target: Target = Target(sparsity=0.5)
    curve: Curve = Curve()
    allocation: Annotated[
        GlobalAllocation | UniformAllocation | ERKAllocation | OWLAllocation | SearchAllocation,
        Field(discriminator="kind"),
    ] = GlobalAllocation()
    scope: Scope = Scope()
    schedule: Annotated[
        OneShot | Rounds | OneByOne | AtInitialisation | Proximal, Field(discriminator="kind")
    ] = OneShot()
    recovery: Annotated[NoRecovery | BatchNorm | FineTune, Field(discriminator="kind")] = (
        NoRecovery()
    )
    comparison: Comparison = Comparison()
    trust: Trust = Trust()
    gates: Gates = Gates()
    outputs: tuple[Literal["native", "masks", "sparse"], ...] = ("native", "masks", "sparse")
    seed: int = Field(0, ge=0, lt=2**31)

    @property
    def schedule_in_full(self) -> OneShot | Rounds | OneByOne | AtInitialisation | Proximal:
        """The schedule, with what `auto` stands for."""
        schedule = self.schedule
        if not isinstance(schedule, OneShot) or schedule.recomputations != "auto":
            return schedule
        return OneShot(recomputations=by_itself(self)[0])

    @property
    def declared(self) -> dict[str, int | Literal["shared"]]:
        """The axis of the samples by input, as far as it is declared."""
        return {name: part.samples for name, part in self.inputs.items()}

    @model_validator(mode="before")
    @classmethod
    def _parts_follow_each_other(cls, data: Any) -> Any:
        return filled(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _parts_agree(self) -> "Spec":
        check_agreement(self)
        return self

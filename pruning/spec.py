"""The spec: what a job shall do. Every field has a default, unknown fields are errors. Torch-free.

Wherever there is a choice, the field is a union told apart by `kind`; criteria and compensations
come from `pruning.catalogue`, so a new one appears here without a change to this file.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pruning import catalogue
from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.compensation.obs import OBSUpdate
from pruning.catalogue.criteria.obs import OBS
from pruning.errors import SecateurError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_of(declarations: Iterable[type[BaseModel]]) -> Any:
    return reduce(or_, declarations)


if TYPE_CHECKING:
    Criterion = catalogue.Declaration
    Compensation = catalogue.Declaration
else:
    # Built at import from what the catalogue found; a type checker sees the base class.
    Criterion = Annotated[_one_of(catalogue.criteria().values()), Field(discriminator="kind")]
    Compensation = Annotated[
        _one_of(catalogue.compensations().values()), Field(discriminator="kind")
    ]


class Objective(_Part):
    """The loss that curvature and predictions refer to, and the metrics that are measured."""

    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    metrics: tuple[Literal["accuracy"], ...] = ("accuracy",)


class Unstructured(_Part):
    """Single weights, anywhere."""

    kind: Literal["unstructured"] = "unstructured"


class Target(_Part):
    """How much goes: the share of the weights in scope that will be zero."""

    sparsity: float = Field(0.5, ge=0.0, lt=1.0)


class GlobalAllocation(_Part):
    """One threshold for the whole network."""

    kind: Literal["global"] = "global"


class UniformAllocation(_Part):
    """The same sparsity in every layer."""

    kind: Literal["uniform"] = "uniform"


class Scope(_Part):
    """Which weights may go. `exclude` holds shell patterns matched against layer names."""

    exclude: tuple[str, ...] = ()
    biases: Literal[False] = False
    embeddings: Literal[False] = False
    output_head: bool = True


class OneShot(_Part):
    """Down to the target without recovery in between.

    `recomputations`: the curvature is computed this many times on the way, each at the weights
    reached so far, with the same share of the survivors removed every time.
    """

    kind: Literal["one_shot"] = "one_shot"
    recomputations: int = Field(4, ge=1, le=64)


class Rounds(_Part):
    """Rounds of prune and recover; `curve` is the sparsity over the rounds."""

    kind: Literal["rounds"] = "rounds"
    rounds: int = Field(5, ge=1, le=100)
    curve: Literal["cubic", "linear", "geometric"] = "cubic"


class SGD(_Part):
    """Stochastic gradient descent."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)


class Adam(_Part):
    """Adam (L2 penalty inside the gradient)."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)


class AdamW(_Part):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)


class NoRecovery(_Part):
    """The pruned network is the result."""

    kind: Literal["none"] = "none"


class FineTune(_Part):
    """Training of the survivors under the mask, after each step of the schedule."""

    kind: Literal["fine_tune"] = "fine_tune"
    epochs: int = Field(3, ge=1, le=1_000)
    batch_size: int = Field(64, ge=1, le=65_536)
    optimizer: Annotated[SGD | Adam | AdamW, Field(discriminator="kind")] = AdamW()


class Gates(_Part):
    """Limits the result must keep; `max_drop` maps a metric to its largest allowed drop."""

    max_drop: dict[Literal["accuracy"], Annotated[float, Field(ge=0.0, le=1.0)]] = {}


class Spec(_Part):
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
    schedule: Annotated[OneShot | Rounds, Field(discriminator="kind")] = OneShot()
    recovery: Annotated[NoRecovery | FineTune, Field(discriminator="kind")] = NoRecovery()
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
        if self.gates.max_drop.keys() - set(self.objective.metrics):
            raise ValueError("gates.max_drop names a metric that objective.metrics does not list")
        if "native" not in self.outputs:
            raise ValueError("outputs must hold native, the pruned model itself")
        return self


def parse_spec(data: Any) -> Spec:
    """The spec that JSON or YAML values describe.

    Raises:
        SecateurError: `not_available` for a method the design names but this version lacks,
            `spec_conflict` where two parts exclude each other, else `spec_invalid` with one
            entry a wrong field under `details.errors`.
    """
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise SecateurError(
            "spec_invalid", f"A spec is a mapping, not {type(data).__name__}.", where="spec"
        )
    _refuse_planned(data)
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise _refusal(error) from None


def _refuse_planned(data: dict[str, Any]) -> None:
    for field, kinds in catalogue.PLANNED.items():
        part = data.get(field)
        if not isinstance(part, dict):
            continue
        named = set(part) if field == "target" else {part.get("kind")}
        for kind in kinds:
            if kind in named:
                raise SecateurError(
                    "not_available",
                    f"{field} {kind} is planned, and this version does not have it.",
                    where=f"spec.{field}",
                    hint="GET /v1/criteria lists what there is.",
                )


_UNIONS = {"criterion", "compensation", "allocation", "schedule", "recovery", "optimizer"}


def _place(loc: tuple[int | str, ...]) -> str:
    """Dotted path of a wrong field, without the tags that pydantic puts in for unions."""
    parts = ["spec"]
    tag = False
    for part in map(str, loc):
        if not tag and "[" not in part and not part.startswith("constrained-"):
            parts.append(part)
        tag = not tag and part in _UNIONS
    return ".".join(parts)


def _field_names(schema: dict[str, Any]) -> set[str]:
    """Every field name that occurs anywhere in a spec."""
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}


def _explain(error: Any, place: str) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    name = place.rsplit(".", 1)[-1]
    near = get_close_matches(name, _field_names(Spec.model_json_schema()), n=1)
    return f"There is no field {name!r} here." + (f" Did you mean {near[0]!r}?" if near else "")


def _refusal(error: ValidationError) -> SecateurError:
    messages: dict[str, list[str]] = {}
    found = error.errors(include_url=False, include_input=False, include_context=False)
    for e in found:
        place = _place(e["loc"])
        messages.setdefault(place, []).append(_explain(e, place))
    problems = [{"where": w, "message": " or: ".join(m)} for w, m in messages.items()]
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return SecateurError(
        "spec_conflict" if all(e["type"] == "value_error" for e in found) else "spec_invalid",
        first["message"] + more,
        where=first["where"],
        hint="docs/spec.md and GET /v1/criteria list the fields and their values.",
        errors=problems,
    )

"""The spec: what a job shall do. Every field has a default, unknown fields are errors. Torch-free.

Wherever there is a choice, the field is a union told apart by `kind`; criteria and compensations
come from `pruning.catalogue`, so a new one appears here without a change to this file.
"""

import re
import reprlib
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pruning import catalogue
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.compensation.obs import OBSUpdate
from pruning.catalogue.criteria.layer_obs import LayerOBS
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
    """The loss that curvature and predictions refer to, and the metrics that are measured.

    `loss`: `cross_entropy` of class scores, `mse`, `bce` (binary cross-entropy of scores, one an
    output), `causal_lm` (next-token cross-entropy, label -100 for positions that do not count), or
    `match_dense`, which needs no labels: the distance to the dense model's own outputs, squared or
    the Kullback-Leibler divergence of their softmax.
    """

    loss: Literal["cross_entropy", "mse", "bce", "causal_lm", "match_dense"] = "cross_entropy"
    distance: Literal["squared", "kl"] = "squared"
    metrics: tuple[Literal["accuracy"], ...] = ("accuracy",)

    @property
    def needs_labels(self) -> bool:
        """Whether the loss is defined by labels."""
        return self.loss != "match_dense"

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that have a meaning for the loss."""
        return self.metrics if self.loss in ("cross_entropy", "bce", "causal_lm") else ()

    @model_validator(mode="after")
    def _distance_is_of_match_dense(self) -> "Objective":
        if self.distance != "squared" and self.loss != "match_dense":
            raise ValueError("objective.distance belongs to loss match_dense alone")
        return self


class Unstructured(_Part):
    """Single weights, anywhere."""

    kind: Literal["unstructured"] = "unstructured"


class NM(_Part):
    """Exactly `n` weights stay of every `m` neighbours along the input channels."""

    kind: Literal["nm"] = "nm"
    n: int = Field(2, ge=1)
    m: int = Field(4, ge=2, le=64)

    @property
    def sparsity(self) -> float:
        """The share that goes, which the pattern fixes."""
        return 1.0 - self.n / self.m

    @model_validator(mode="after")
    def _some_go(self) -> "NM":
        if self.n >= self.m:
            raise ValueError("pattern.n is how many of each m stay, so it must be less than m")
        return self


class Block(_Part):
    """Blocks of outputs x input channels stay or go as a whole."""

    kind: Literal["block"] = "block"
    shape: tuple[Annotated[int, Field(ge=1, le=256)], Annotated[int, Field(ge=1, le=256)]] = (1, 4)


class Target(_Part):
    """How much goes: the share of the weights in scope that will be zero."""

    sparsity: float = Field(0.5, ge=0.0, lt=1.0)


class GlobalAllocation(_Part):
    """One threshold for the whole network."""

    kind: Literal["global"] = "global"


class UniformAllocation(_Part):
    """The same sparsity in every layer."""

    kind: Literal["uniform"] = "uniform"


class ERKAllocation(_Part):
    """Erdős-Rényi-Kernel: a layer keeps a share in proportion to its dimensions' sum / product."""

    kind: Literal["erk"] = "erk"


class OWLAllocation(_Part):
    """Layers with more outliers |w| |x| keep more.

    `threshold`: an outlier is this many times its layer's mean. `spread`: densities differ from
    each other by at most twice this.
    """

    kind: Literal["owl"] = "owl"
    threshold: float = Field(5.0, gt=1.0, allow_inf_nan=False)
    spread: float = Field(0.08, ge=0.0, le=0.5)


class SearchAllocation(_Part):
    """The cheapest sparsities of all layers together for a budget, by dynamic programming.

    `budget`: what the target's share is a share of: the `weights` in scope, their `flops`
    (multiply-adds), or the `time` that each layer was measured to take, as far as it is in
    proportion to the weights kept.
    """

    kind: Literal["search"] = "search"
    budget: Literal["weights", "flops", "time"] = "weights"


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


class OneByOne(_Part):
    """One weight at a time, each the one that costs least then; for small networks.

    `recompute`: the curvature is computed again after so many deletions, 1 for each of them. In
    between, criterion obs downdates its inverse and moves the survivors after every deletion.
    """

    kind: Literal["one_by_one"] = "one_by_one"
    recompute: int = Field(16, ge=1, le=4_096)


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


class Trust(_Part):
    """What is found out, at the dense weights, about how far the report's numbers can be trusted.

    Args:
        checks: Whether the theory's assumptions are checked.
        bootstrap: Resamples of the calibration batches; 0 leaves the bootstrap out. `auto` is 16
            where a resample costs little beside the job, and none where each would invert a
            matrix over more than 1,024 weights.
        batches: Batches that the calibration data are cut into to be drawn from.
        ladder: Whether loss is predicted and measured at ten heights on the way to the target.
        factor: Predicted and measured increase may differ this much for the model to hold.
        layers: The ladder of each layer alone is measured with at most so many layers in scope.
    """

    checks: bool = True
    bootstrap: Literal["auto"] | Annotated[int, Field(ge=0, le=1_000)] = "auto"
    batches: int = Field(12, ge=2, le=64)
    ladder: bool = True
    factor: float = Field(2.0, gt=1.0, le=100.0)
    layers: int = Field(8, ge=0, le=1_000)


class Spec(_Part):
    """One pruning job, as asked for."""

    objective: Objective = Objective()
    criterion: Criterion = OBS()
    compensation: Compensation = NoCompensation()
    pattern: Annotated[Unstructured | NM | Block, Field(discriminator="kind")] = Unstructured()
    target: Target = Target()
    allocation: Annotated[
        GlobalAllocation | UniformAllocation | ERKAllocation | OWLAllocation | SearchAllocation,
        Field(discriminator="kind"),
    ] = GlobalAllocation()
    scope: Scope = Scope()
    schedule: Annotated[OneShot | Rounds | OneByOne, Field(discriminator="kind")] = OneShot()
    recovery: Annotated[NoRecovery | FineTune, Field(discriminator="kind")] = NoRecovery()
    trust: Trust = Trust()
    gates: Gates = Gates()
    outputs: tuple[Literal["native", "masks", "bitmask"], ...] = ("native", "masks", "bitmask")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="before")
    @classmethod
    def _parts_follow_each_other(cls, data: Any) -> Any:
        """What is left out follows what is there.

        The compensation is the OBS update for criterion obs and none for others; the criterion,
        allocation and schedule of layer-wise pruning are its own; a pattern n:m fixes the target.
        """
        if not isinstance(data, dict):
            return data
        filled = dict(data)
        if _kind(data.get("compensation")) == "layerwise":
            for field, value in _with_layerwise(data["compensation"]).items():
                filled.setdefault(field, value)
        elif "compensation" not in data:
            obs = _kind(data.get("criterion", {"kind": "obs"})) == "obs"
            filled["compensation"] = {"kind": "obs" if obs else "none"}
        if _kind(data.get("pattern")) == "nm":
            filled.setdefault("allocation", {"kind": "uniform"})
            filled.setdefault("schedule", {"kind": "one_shot", "recomputations": 1})
            with suppress(ValidationError):
                pattern = NM.model_validate(data["pattern"])
                filled.setdefault("target", {"sparsity": pattern.sparsity})
        return filled

    @model_validator(mode="after")
    def _parts_agree(self) -> "Spec":
        if isinstance(self.compensation, OBSUpdate) and not isinstance(self.criterion, OBS):
            raise ValueError(
                "compensation obs needs criterion obs, whose curvature it uses; "
                "set compensation to {kind: none} or criterion to {kind: obs}"
            )
        if isinstance(self.schedule, OneByOne) and isinstance(self.criterion, OBS):
            _check_one_by_one(self)
        _check_layerwise(self)
        _check_pattern(self)
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


def _kind(part: Any) -> Any:
    return part.get("kind") if isinstance(part, dict) else getattr(part, "kind", None)


def _with_layerwise(compensation: Any) -> dict[str, Any]:
    """What goes with layer-wise pruning where the spec leaves it open."""
    given = compensation if isinstance(compensation, dict) else compensation.model_dump()
    chosen = given.get("solver", "auto") != "least_squares"
    criterion = {"kind": "layer_obs" if chosen else "wanda"}
    if chosen and "damping" in given:
        criterion["damping"] = given["damping"]
    return {
        "criterion": criterion,
        "allocation": {"kind": "uniform"},
        "schedule": {"kind": "one_shot", "recomputations": 1},
    }


def _check_layerwise(spec: Spec) -> None:
    compensation, criterion = spec.compensation, spec.criterion
    if not isinstance(compensation, Layerwise):
        if isinstance(spec.allocation, SearchAllocation):
            raise ValueError("allocation search needs compensation layerwise, whose ladders it is "
                             "made over")  # fmt: skip
        return
    if isinstance(spec.schedule, OneByOne):
        raise ValueError("compensation layerwise can't be combined with schedule one_by_one; "
                         "its solver greedy goes one by one within each layer")  # fmt: skip
    if not compensation.chooses:
        return
    if not isinstance(criterion, LayerOBS):
        raise ValueError(
            f"the solver {compensation.resolve()} chooses the mask itself, by criterion "
            "{kind: layer_obs}; leave the criterion out, or set solver to least_squares"
        )
    if criterion.damping != compensation.damping:
        raise ValueError("criterion.damping and compensation.damping must be the same; give the "
                         "compensation's alone")  # fmt: skip


def _check_pattern(spec: Spec) -> None:
    pattern = spec.pattern
    if not isinstance(pattern, NM):
        return
    if not isinstance(spec.allocation, UniformAllocation):
        raise ValueError("pattern nm takes the same share of every layer: allocation uniform")
    if abs(spec.target.sparsity - pattern.sparsity) > 1e-9:
        raise ValueError(
            f"pattern nm with n {pattern.n} and m {pattern.m} removes {pattern.sparsity:g} of the "
            f"weights, and target.sparsity asks for {spec.target.sparsity:g}; leave the target out"
        )
    if not isinstance(spec.schedule, OneShot) or spec.schedule.recomputations != 1:
        raise ValueError("pattern nm needs schedule {kind: one_shot, recomputations: 1}")


def default_spec(labelled: bool, data: str = "The calibration data") -> dict[str, Any]:
    """The spec of a job that names none, by whether its calibration data have labels.

    Args:
        labelled: Whether there are labels.
        data: What to call the data in the refusal.

    Raises:
        SecateurError: `not_available`: without labels the sensible thing is layer-wise, which this
            version lacks.
    """
    if labelled:
        return {}
    spec = {
        "compensation": {"kind": "layerwise"},
        "recovery": {"kind": "none"},
        "target": {"sparsity": 0.5},
    }
    try:
        parse_spec(spec)
    except SecateurError as error:
        if error.code != "not_available":
            raise
        raise SecateurError(
            "not_available",
            f"{data} has no labels (an array named target). Without labels Secateur prunes "
            "layer by layer (compensation layerwise), which this version does not have yet.",
            where="spec.compensation",
            hint="Add the labels to the file as an array named target, or send a spec with "
            "objective {loss: match_dense}.",
        ) from None
    return spec


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
        named = list(part) if field == "target" else [part.get("kind")]
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


@cache
def _parts() -> dict[str, dict[str, type[BaseModel]]]:
    """Every mapping of a spec by its place, told apart by kind where that decides."""

    def by_kind(*declarations: type[BaseModel]) -> dict[str, type[BaseModel]]:
        return {d.model_fields["kind"].default: d for d in declarations}

    return {
        "spec": {"": Spec},
        "spec.objective": {"": Objective},
        "spec.criterion": dict(catalogue.criteria()),
        "spec.compensation": dict(catalogue.compensations()),
        "spec.pattern": by_kind(Unstructured),
        "spec.target": {"": Target},
        "spec.allocation": by_kind(GlobalAllocation, UniformAllocation),
        "spec.scope": {"": Scope},
        "spec.schedule": by_kind(OneShot, Rounds),
        "spec.recovery": by_kind(NoRecovery, FineTune),
        "spec.recovery.optimizer": by_kind(SGD, Adam, AdamW),
        "spec.gates": {"": Gates},
    }


_BOUNDS = {
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
}


def _explain(error: Any, place: str) -> str:
    """What is wrong, in plain words and with the value that is."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _stray_field(place, error["loc"])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        shown = f"{bound:g}" if isinstance(bound, float) else str(bound)
        return f"{_shown(error['input'])} is not {words} {shown}."
    if kind == "literal_error":
        return f"{_shown(error['input'])} is not {context['expected']}." + _did_you_mean(
            error["input"], re.findall(r"'([^']*)'", context["expected"])
        )
    if kind.startswith("union_tag") or (kind == "model_attributes_type" and place in _parts()):
        return _wrong_kind(place, error["input"])
    if kind == "model_type":
        return f"{place.rsplit('.', 1)[-1]} is a mapping, not {_shown(error['input'])}."
    return str(error["msg"]).removeprefix("Value error, ")


def _wrong_kind(place: str, given: Any) -> str:
    what, kinds = place.rsplit(".", 1)[-1], list(_parts().get(place, {}))
    listed = f" The kinds are {', '.join(kinds)}."
    if not isinstance(given, dict):
        if given in kinds:
            return f"{what} is a mapping: write {{kind: {given}}}."
        return f"{what} is a mapping with a kind, not {_shown(given)}.{listed}"
    if "kind" not in given:
        return f"{what} needs a kind.{listed}"
    kind = given["kind"]
    return f"There is no {what} of kind {_shown(kind)}.{_did_you_mean(kind, kinds)}{listed}"


def _stray_field(place: str, loc: tuple[int | str, ...]) -> str:
    parent, name = place.rsplit(".", 1)
    variants = _parts().get(parent, {})
    tag = str(loc[-2]) if len(loc) > 1 else ""
    here = variants.get(tag) or next(iter(variants.values()), None)
    nothing = f"There is no field {name!r} here."
    kinds = [kind for kind, part in variants.items() if name in part.model_fields]
    if kinds:
        return f"The field {name!r} belongs to kind: {' or '.join(kinds)}, not to kind: {tag}."
    if here is not None and (near := get_close_matches(name, here.model_fields, n=1)):
        return f"{nothing} Did you mean {near[0]!r}?"
    others: dict[str, str] = {}
    for where, found in _parts().items():
        for part in found.values():
            for field in part.model_fields.keys() - {"kind"}:
                others.setdefault(field, f"{where}.{field}".removeprefix("spec."))
    return nothing + _did_you_mean(name, others, others)


def _did_you_mean(given: Any, known: Iterable[str], shown: dict[str, str] | None = None) -> str:
    near = get_close_matches(given, list(known), n=1) if isinstance(given, str) else []
    return f" Did you mean {(shown or {}).get(near[0], near[0])!r}?" if near else ""


def _shown(value: Any) -> str:
    """A given value, cut where it is long."""
    return reprlib.repr(value)


def _refusal(error: ValidationError) -> SecateurError:
    messages: dict[str, list[str]] = {}
    found = error.errors(include_url=False)
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

"""What a spec means for one model and its data: checked and priced before anything runs.

Torch-free: the API answers `POST /v1/plans` and refuses impossible jobs with it, and a run begins
with the same checks.
"""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pruning.axes import declared_facts
from pruning.budget.planned import planned_budget
from pruning.catalogue.about import Size
from pruning.catalogue.criteria.obs import BLOCK_LIMIT, OBS, Inverse
from pruning.combinations import check_combination, check_pattern, check_sizes
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, LayerFact, ModelFacts
from pruning.match import match, match_classes
from pruning.meaning import check_labels, check_model
from pruning.report.numbers import asked_share, limit, points, share
from pruning.report.schema import ReportWarning, Substitution
from pruning.report.scope import ScopeSection
from pruning.schedule import one_shot
from pruning.schedule.earlier import check_facts, check_use
from pruning.schedule.step import planned_steps, removal_target, scorings
from pruning.scope import check_patterns, choose, lack_of, section, warnings
from pruning.spec import FineTune, Spec, Unstructured
from pruning.study import chance
from pruning.study.search import check_drop
from pruning.zero_words import Zeros, of_zeros

ROLES = ("calibration", "training", "evaluation")

HELD_OUT_SHARE = 0.2
"""Share of the calibration data kept for evaluation where no evaluation data are given."""

CHANGED, LEAST_CHANGED = 3.0, 0.03
"""Answers that are guessed to change either way, in units of the allowed drop, and at least."""

MIN_SAMPLES = 2
"""Fewest samples of any role."""

MIN_SAMPLES_TO_SPLIT = 10
"""Fewest calibration samples from which an evaluation share is split off."""


class PlanCost(BaseModel):
    """Estimate for criterion and compensation, all steps: peak bytes, floating-point operations.

    With `damping: auto` the five dampings that every step tries at least are in it. Activations of
    a batch and what `trust` asks for are beside it: the bootstrap holds at most 512 MiB more.
    """

    model_config = ConfigDict(extra="forbid")

    bytes: int
    flops: int


class Plan(BaseModel):
    """What will happen.

    `scope` says what is left out and why. `inverse` is the inverse that criterion obs will use,
    None for the other criteria. `layers` are the names in scope; `remove` of their
    `weights_in_scope` weights will be zero: an upper bound where the target is a drop, an estimate
    where it is bytes or flops. `zeros` of them are zero in the model and stay so, None where
    that is not known. `runs` of the schedule from the dense network are made at most: probes of a
    search, points of a curve.
    """

    model_config = ConfigDict(extra="forbid")

    layers: list[str]
    scope: ScopeSection
    weights_in_scope: int
    remove: int
    zeros: int | None = None
    inverse: Inverse | None
    cost: PlanCost
    runs: int = 1
    evaluation: Literal["given", "held_out"]
    calibration_samples: int
    evaluation_samples: int
    warnings: list[ReportWarning] = []
    substitutions: list[Substitution] = []


SMALL_BATCH, FREE_BATCH = 16, 256
"""Fixed batch sizes below the first are warned of; the second is what others are compared with."""


def held_out_count(samples: int) -> int:
    """Samples split off for evaluation: `HELD_OUT_SHARE` of them, rounded half up."""
    return max(1, math.floor(HELD_OUT_SHARE * samples + 0.5))


def plan(
    spec: Spec,
    model: ModelFacts,
    data: dict[str, DatasetFacts],
    rewind_to: ModelFacts | None = None,
) -> Plan:
    """Checks a spec against a model's and its data's facts, and says what will happen.

    Args:
        spec: What is asked for.
        model: Facts of the model.
        data: Facts of the data by role; `calibration` is needed.
        rewind_to: Facts of the earlier checkpoint that the job names.

    Raises:
        SecateurError: The job can't run as asked; `where` names the field or array.
    """
    check_use(spec, rewind_to is not None)
    model = declared_facts(model, spec.declared)
    if rewind_to is not None:
        check_facts(model, rewind_to)
    chosen = choose(model.layers, spec.scope, lack_of(spec))
    layers = chosen.kept
    check_patterns(tuple(spec.gates.layer_sparsity), layers, "spec.gates.layer_sparsity")
    _check_data(spec, model, data)
    doubtful = check_model(spec, model)
    check_labels(spec, data)
    weights = sum(layer.parameters for layer in layers)
    unit = spec.pattern.unit
    zeros = _zeros(spec, layers)
    gone = zeros if zeros and isinstance(spec.pattern, Unstructured) else 0
    budget = planned_budget(spec, layers, model, keep_zeros=bool(gone))
    asked = removal_target(spec, weights) if budget is None else budget.uniform(unit)
    remove = max(gone, asked)
    steps = scorings(planned_steps(spec.schedule_in_full, weights, remove, unit, gone))
    check_pattern(spec, [(layer.name, tuple(layer.shape), layer.groups) for layer in layers])
    check_combination(spec, weights, elsewhere=rewind_to is not None)
    check_sizes(spec, {layer.name: layer.parameters for layer in layers}, steps)
    inverse = _inverse(spec, weights)
    given = "evaluation" in data
    total = data["calibration"].samples
    held = 0 if given else held_out_count(total)
    size = Size(
        weights=weights,
        parameters=model.parameters,
        samples=total - held,
        outputs=_outputs(model),
        macs=model.macs or model.parameters,
        layers=tuple(
            (fact.groups, fact.shape[0] // fact.groups, math.prod(fact.shape[1:]))
            for fact in layers
        ),
    )
    planned = Plan(
        scope=section(weights, chosen.left, model.others, model.parameters),
        layers=[layer.name for layer in layers],
        weights_in_scope=weights,
        remove=remove,
        zeros=zeros,
        inverse=inverse,
        cost=_cost(spec, size, steps),
        runs=_runs(spec),
        evaluation="given" if given else "held_out",
        calibration_samples=total - held,
        evaluation_samples=data["evaluation"].samples if given else held,
    )
    if spec.target.max_drop is not None:
        check_drop(
            spec.target.max_drop,
            spec.objective.measured,
            planned.evaluation_samples,
            whole=_whole(spec, model),
        )
    planned.warnings += warnings(planned.scope)
    planned.warnings += doubtful
    if all(layer.zeros is not None for layer in model.layers):
        counts = [Zeros(layer.name, layer.zeros or 0, layer.parameters) for layer in layers]
        planned.warnings += of_zeros(spec, counts, asked)
    _annotate(planned, spec)
    _annotate_drop(planned, spec, model)
    _annotate_batch(planned, model)
    return planned


def _check_data(spec: Spec, model: ModelFacts, data: dict[str, DatasetFacts]) -> None:
    for role in data:
        if role not in ROLES:
            raise SecateurError(
                "invalid_request",
                f"{role!r} is no role of data; the roles are {', '.join(ROLES)}.",
                where=f"data.{role}",
            )
    if "calibration" not in data:
        raise SecateurError(
            "invalid_request", "A job needs calibration data.", where="data.calibration"
        )
    match_classes(data)
    for role, facts in data.items():
        match(facts, model, spec.objective.loss, f"data.{role}")
        least = (
            MIN_SAMPLES_TO_SPLIT
            if role == "calibration" and "evaluation" not in data
            else MIN_SAMPLES
        )
        if facts.samples < least:
            split = least == MIN_SAMPLES_TO_SPLIT
            raise SecateurError(
                "data_empty",
                f"{facts.samples} samples are too few: at least {least} are needed"
                + (" to split off an evaluation share." if split else "."),
                where=f"data.{role}",
                hint="Give more samples" + (", or evaluation data of their own." if split else "."),
            )
    unmeasured = [name for name in spec.gates.max_drop if name not in spec.objective.measured]
    if unmeasured:
        accuracy = unmeasured[0] == "accuracy"
        raise SecateurError(
            "spec_conflict",
            f"A gate on {unmeasured[0]} needs "
            f"{'class labels' if accuracy else 'an objective without labels'}; the objective is "
            f"{spec.objective.loss}.",
            where="spec.gates.max_drop",
            hint="Leave the gate out, or set objective.loss to "
            f"{'cross_entropy' if accuracy else 'match_dense'}.",
        )


def _zeros(spec: Spec, layers: list[LayerFact]) -> int | None:
    """Weights in scope that are zero and stay so."""
    if spec.scope.existing_zeros == "free":
        return 0
    counts = [layer.zeros for layer in layers]
    return None if None in counts else sum(n or 0 for n in counts)


def _inverse(spec: Spec, weights: int) -> Inverse | None:
    criterion: Any = spec.criterion
    if not isinstance(criterion, OBS):
        return None
    inverse = criterion.resolve(weights)
    entries = weights * min(criterion.block, weights)
    if inverse == "block_fisher" and entries > BLOCK_LIMIT:
        raise SecateurError(
            "curvature_too_large",
            f"Blocks of {criterion.block} over {weights} weights hold {entries} entries "
            f"({8 * entries / 2**30:.1f} GiB); the limit is {BLOCK_LIMIT}.",
            where="spec.criterion.block",
            hint="Use smaller blocks, or exclude layers with scope.exclude.",
        )
    return inverse


def _outputs(model: ModelFacts) -> int:
    sizes = [d for d in model.output.one if isinstance(d, int)] if model.output else []
    return max(1, math.prod(sizes))


def _cost(spec: Spec, size: Size, steps: int) -> PlanCost:
    methods: list[Any] = [spec.criterion, spec.compensation]
    parts = [method.price(size) for method in methods]
    runs = _runs(spec)
    # What the runs share from their first step is held while another step makes its own.
    held = 2 if runs > 1 and steps > 1 else 1
    return PlanCost(
        bytes=held * max(part.bytes for part in parts),
        flops=runs * steps * sum(part.flops for part in parts),
    )


def _runs(spec: Spec) -> int:
    asked = spec.target.max_drop
    return (1 if asked is None else asked.probes) + len(spec.curve.points)


def _whole(spec: Spec, model: ModelFacts) -> bool:
    """Whether a sample is one answer, right or wrong, by what the metric makes of it."""
    asked = spec.target.max_drop
    if asked is None or asked.metric == "cosine":
        return False
    if asked.metric == "accuracy":
        return spec.objective.loss == "cross_entropy"
    return model.output is not None and len(model.output.shape) == 2


def _annotate_batch(planned: Plan, model: ModelFacts) -> None:
    """Says what a fixed, small number of samples a pass costs."""
    size, samples = model.batch, planned.calibration_samples
    if size is None or size >= SMALL_BATCH:
        return
    passes, free = math.ceil(samples / size), math.ceil(samples / FREE_BATCH)
    planned.warnings.append(
        ReportWarning(
            code="fixed_batch",
            message=f"The model runs on {size} sample{'' if size == 1 else 's'} at a time and its "
            f"graph allows no other number: the {samples:,} calibration samples are {passes:,} "
            f"passes, where a free batch size takes {free:,}. Small networks take about ten times "
            "as long that way. Export the model with a free batch size to avoid it.",
            where="model",
        )
    )


def _annotate_drop(planned: Plan, spec: Spec, model: ModelFacts) -> None:
    """Warns where the evaluation data are too few to tell the allowed drop from chance."""
    asked, samples = spec.target.max_drop, planned.evaluation_samples
    if asked is None or not _whole(spec, model) or not asked.drop:
        return
    changed = max(CHANGED * asked.drop, LEAST_CHANGED)
    half = chance.half_width(samples, changed, asked.probes)
    if half <= asked.drop:
        return
    enough = chance.samples_for(asked.drop, changed, asked.probes)
    planned.warnings.append(
        ReportWarning(
            code="few_samples_for_drop",
            message=f"A drop of {asked.metric} measured on {samples:,} evaluation samples is "
            f"uncertain by about {points(asked.metric, half)} to either side, if "
            f"{asked_share(round(changed, 3))} of the answers change, and a drop of "
            f"{limit(asked.metric, asked.drop)} is allowed: about {enough:,} samples would tell "
            "whether it is kept.",
            where="data.evaluation",
        )
    )


def _annotate(planned: Plan, spec: Spec) -> None:
    def warn(code: str, message: str, where: str) -> None:
        planned.warnings.append(ReportWarning(code=code, message=message, where=where))

    if planned.remove == 0:
        warn(
            "nothing_removed",
            f"The target rounds to none of the {planned.weights_in_scope:,} weights in scope.",
            f"spec.target.{spec.target.kind}",
        )
    measured = spec.objective.measured
    if measured and planned.evaluation == "held_out" and planned.evaluation_samples < 100:
        warn(
            "few_evaluation_samples",
            f"{' and '.join(measured).capitalize()} will be measured on "
            f"{planned.evaluation_samples} samples split off the calibration data: one of them is "
            f"{share(1 / planned.evaluation_samples)} of all.",
            "data.evaluation",
        )
    criterion: Any = spec.criterion
    if isinstance(criterion, OBS) and criterion.inverse == "auto" and planned.inverse:
        planned.substitutions.append(
            Substitution(
                where="spec.criterion.inverse",
                asked="auto",
                used=planned.inverse,
                reason=f"{planned.weights_in_scope:,} weights in scope",
            )
        )
    if spec.objective.metrics and not measured:
        planned.substitutions.append(
            Substitution(
                where="spec.objective.metrics",
                asked=", ".join(spec.objective.metrics),
                used="none",
                reason=f"accuracy needs class labels; the objective is {spec.objective.loss}",
            )
        )
    planned.substitutions += one_shot.substitution(spec)
    if isinstance(spec.recovery, FineTune) and planned.remove == 0:
        warn("recovery_only", "Nothing is removed, so recovery only trains on.", "spec.recovery")

"""One pruning job: what stays the same throughout (`Job`), and what its steps change (`State`)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pruning.budget import Budget
from pruning.budget.of_job import budget_of, measure
from pruning.calling import Calling, axes_of
from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.combinations import check_combination, check_pattern, check_sizes
from pruning.curvature.cut_off import cut_off
from pruning.curvature.losses import Loss, loss_of
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData, Data
from pruning.dense import Dense
from pruning.dense_targets import with_dense_targets
from pruning.errors import SecateurError
from pruning.existing import Existing, existing_zeros
from pruning.facts import LayerFact, ModelFacts, OtherFact
from pruning.layers import FlatWeights, Prunable, layer_facts, other_facts, prunables
from pruning.layerwise.usable import usable
from pruning.layerwise.walk import Options
from pruning.metrics import Evaluation
from pruning.output_checks import check_outputs
from pruning.progress import Narrator
from pruning.recovery.masking import Masking
from pruning.report.schema import DampingTrial, LayerOutput, ReportWarning, Round
from pruning.report.scope import OutOfScope, ScopeSection
from pruning.report.study import Stopped
from pruning.report.trust import Check, Trust
from pruning.rewind import check_tensors
from pruning.samples import Place, adapt, first_samples
from pruning.schedule.earlier import check_use
from pruning.schedule.step import Step, planned_steps, removal_target, scorings
from pruning.scope import check_patterns, choose, lack_of, section, warnings
from pruning.solvers.damping import HELD_OUT
from pruning.spec import Spec
from pruning.study.known import digest, known
from pruning.uses import observed
from pruning.zero_words import Zeros, of_zeros

T = TypeVar("T")


@dataclass
class Job:
    """What is pruned, how, on which data. `module` is changed in place by the steps.

    `layers` are all weights that products multiply by, `layer_facts` what is known of them and
    `left` those of them that are not in scope, with the reason; `others` are what is left of the
    parameters.

    `general`: weights whose curvature had to take the general path; see `Network`. `cut_off`: those
    that no gradient reaches though the outputs depend on them. `digest`: of the
    dense network and the data, empty where no checkpoints are kept. `predicts`: whether the cost of
    each step is predicted, as a report shows it; a run that is only measured goes without.
    `existing`: the zeros that the weights came with. `own_types`: of tensors of a module in memory
    that are computed in another, by path.
    """

    module: nn.Module
    data: Data
    spec: Spec
    facts: ModelFacts | None
    narrator: Narrator
    layers: list[Prunable]
    weights: FlatWeights
    existing: Existing
    layer_facts: list[LayerFact] = field(default_factory=list)
    left: list[OutOfScope] = field(default_factory=list)
    others: list[OtherFact] = field(default_factory=list)
    dense: Dense = field(default_factory=Dense)
    warnings: list[ReportWarning] = field(default_factory=list)
    general: set[str] = field(default_factory=set)
    cut_off: list[str] = field(default_factory=list)
    digest: str = ""
    predicts: bool = True
    own_types: dict[str, torch.dtype] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the module lies."""
        return self.weights.device

    @property
    def scope(self) -> ScopeSection:
        """What is in scope, and what is not."""
        if self.facts is not None:
            parameters = self.facts.parameters
        else:
            parameters = sum(p.numel() for p in self.module.parameters())
        return section(len(self.weights), self.left, self.others, parameters)

    @property
    def loss(self) -> Loss:
        """The loss of the objective."""
        return loss_of(self.spec.objective)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that have a meaning for this objective."""
        return self.spec.objective.measured

    @cached_property
    def budget(self) -> Budget | None:
        """What may remain where the target is bytes or flops."""
        return budget_of(self)

    @cached_property
    def target(self) -> int:
        """Weights to be removed in all; for bytes and flops as if layers were pruned alike."""
        if self.budget is not None:
            return self.budget.uniform(self.spec.pattern.unit)
        return max(self.existing.removed, removal_target(self.spec, len(self.weights)))

    def way(self, gone: int) -> float:
        """The share of the way from the weights there are to the target, with so many gone."""
        start = self.existing.removed
        return (gone - start) / (self.target - start) if self.target > start else 1.0

    @cached_property
    def steps(self) -> list[Step]:
        """The schedule's steps."""
        spec = self.spec
        return planned_steps(
            spec.schedule_in_full,
            len(self.weights),
            self.target,
            spec.pattern.unit,
            self.existing.removed,
        )

    @cached_property
    def held_out(self) -> tuple[ArrayData, ArrayData]:
        """The calibration data as (the rest, the share on which dampings are compared)."""
        calibration, seed = self.data.calibration, self.spec.seed
        return known(
            self.dense.known, "held_out", calibration, seed,
            lambda: calibration.split(HELD_OUT, seed),
        )  # fmt: skip

    def network(self) -> Network:
        """The module as a function of its weights in scope."""
        narrator = self.narrator
        return Network(
            self.module,
            self.weights,
            lambda done, total: narrator.progress(done, total, "samples"),
            self.general,
            self.cut_off,
        )

    def shared(self, what: str, key: Hashable, make: Callable[[], T]) -> T:
        """What is made from the module's present weights and the calibration data.

        Where the job has several runs, the first makes it and the others, which begin at the same
        weights, take it over.

        Args:
            what: Its kind; one of each is kept.
            key: What else it depends on.
            make: Makes it.
        """
        if not self.dense.shares:
            return make()
        key = (digest(self.module), key)
        return known(self.dense.known, what, self.data.calibration, key, make)

    def warn(self, code: str, message: str, where: str | None = None) -> None:
        """Tell the report and whoever listens."""
        self.warnings.append(ReportWarning(code=code, message=message, where=where))
        self.narrator.warning(code, message, where)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """A flat keep mask as one mask a weight, by parameter name, on the CPU."""
        return {p.name: part.cpu().clone() for p, part in self.weights.by_layer(kept)}

    def masking(self, kept: Tensor) -> Masking:
        """The removed weights, and those that were zero before, to be kept at zero."""
        kept = kept & ~self.existing.held.to(kept.device)
        inside = ((p.weight, part) for p, part in self.weights.by_layer(kept))
        return Masking([*inside, *self.existing.beside])


@dataclass
class State:
    """How far a run is. Everything here goes into a checkpoint.

    `each` holds the metrics of every evaluation sample [N] as `<stage>.<metric>`, for the stages
    dense, pruned and recovered. `begun` is the calibration loss at the weights from which the first
    step starts, where these are not the dense ones.
    """

    dense: Evaluation
    dense_metrics: dict[str, float]
    kept: Tensor
    saliency: Tensor
    predicted_by_layer: list[float]
    rounds: list[Round] = field(default_factory=list)
    sweep: list[DampingTrial] = field(default_factory=list)
    pruned_metrics: dict[str, float] = field(default_factory=dict)
    recovered_metrics: dict[str, float] | None = None
    each: dict[str, Tensor] = field(default_factory=dict)
    stopped: Stopped | None = None
    begun: float | None = None
    trust: Trust | None = None
    trust_checks: list[Check] = field(default_factory=list)
    layer_outputs: list[LayerOutput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    general: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Calibration loss of the network as it is."""
        if not self.rounds:
            return self.dense.loss if self.begun is None else self.begun
        last = self.rounds[-1]
        value = last.loss_pruned if last.loss_recovered is None else last.loss_recovered
        assert value is not None
        return value


def prepare(
    module: nn.Module,
    data: Data | ArrayData,
    spec: Spec,
    *,
    facts: ModelFacts | None,
    narrator: Narrator,
    rewind_to: dict[str, Tensor] | None = None,
    calling: Calling = Calling(),
    own_types: dict[str, torch.dtype] | None = None,
) -> Job:
    """Check what was given and find the weights in scope.

    The module is given in the form of `samples.adapt`, which whoever calls this takes back.

    Raises:
        SecateurError: What `choose` and `Data` raise, or `weights_non_finite`,
            `labels_missing`, `target_invalid`.
    """
    check_use(spec, rewind_to is not None)
    if not isinstance(data, Data):
        data = Data.from_calibration(data, spec.seed)
    module.eval()
    batch = None if facts is None else facts.batch
    if facts is not None:
        calling = replace(calling, axes=axes_of(facts))
    seen = None if facts else observed(module, data.calibration, None, calling)
    found = facts.layers if facts else layer_facts(module, seen)
    mixing: list[str] = []
    place = adapt(
        module,
        data.calibration,
        batch,
        calling,
        mixed=mixing.append if spec.inputs else None,
    )
    if not spec.objective.needs_labels:
        data = with_dense_targets(module, data)
    chosen = choose(found, spec.scope, lack_of(spec))
    check_patterns(tuple(spec.gates.layer_sparsity), chosen.kept, "spec.gates.layer_sparsity")
    layers = prunables(module, found)
    names = {fact.name for fact in chosen.kept}
    scope, left = [p for p in layers if p.label in names], list(chosen.left)
    criterion: Any = spec.criterion
    if isinstance(spec.compensation, Layerwise) or criterion.kind == "layer_obs":
        scope, refused = usable(module, scope, data.calibration, batch or Options.batch)
        left += refused
    others = facts.others if facts else other_facts(module, found, seen)
    weights = FlatWeights(scope)
    check_pattern(spec, [(p.layer, tuple(p.weight.shape), p.groups) for p in weights.layers])
    existing = existing_zeros(weights, spec, module.parameters())
    job = Job(module, data, spec, facts, narrator, layers, weights, existing)
    job.layer_facts, job.left, job.others = found, left, others
    job.dense.rewind_to = rewind_to
    job.own_types = own_types or {}
    if facts is None:
        _tell_output(job, place)
    inputs = first_samples(module, data.calibration, min(2, data.calibration.samples))
    job.cut_off = cut_off(job.network(), inputs)
    for message in mixing:
        job.warn("samples_mixed", message, "spec.inputs")
    for warning in warnings(job.scope):
        job.warn(warning.code, warning.message, warning.where)
    measure(job)
    if rewind_to is not None:
        check_tensors(module, rewind_to)
    check_combination(spec, len(weights), elsewhere=rewind_to is not None)
    check_sizes(spec, {p.layer: p.weight.numel() for p in weights.layers}, scorings(job.steps))
    for layer in weights.layers:
        if not bool(torch.isfinite(layer.weight).all()):
            raise SecateurError(
                "weights_non_finite",
                f"The weight of {layer.layer} holds NaN or infinity.",
                where=layer.layer,
                hint="Train the model again, or exclude the layer from the scope.",
            )
    check_outputs(job)
    _tell_zeros(job)
    return job


def _tell_output(job: Job, place: Place) -> None:
    """Says which output was taken where there was a choice, or where it has a name."""
    if not place.others and place.name in ("", "0"):
        return
    others = f" The others are not looked at: {', '.join(place.others)}." if place.others else ""
    job.warn(
        "output_chosen",
        f"Of what the module returns, loss and metrics refer to {place.name}, its first "
        f"real-valued output with one result a sample.{others}",
        "outputs",
    )


def _tell_zeros(job: Job) -> None:
    """Warns of zeros in the upload, unless the plan has."""
    if job.facts is not None and all(f.zeros is not None for f in job.facts.layers):
        return
    names = [p.label for p in job.weights.layers]
    layers = list(map(Zeros, names, job.existing.found, job.weights.sizes))
    if job.budget is not None:
        asked = job.budget.uniform(job.spec.pattern.unit)
    else:
        asked = removal_target(job.spec, len(job.weights))
    for warning in of_zeros(job.spec, layers, asked):
        job.warn(warning.code, warning.message, warning.where)

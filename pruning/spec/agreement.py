"""Which parts of a spec exclude each other; each refusal says what to change."""

from typing import TYPE_CHECKING, NamedTuple

from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.compensation.obs import OBSUpdate
from pruning.catalogue.criteria.layer_obs import LayerOBS
from pruning.catalogue.criteria.obs import OBS
from pruning.spec.allocation import GlobalAllocation, SearchAllocation, UniformAllocation
from pruning.spec.pattern import NM, Unstructured
from pruning.spec.recovery import FineTune
from pruning.spec.schedule import AtInitialisation, OneByOne, OneShot, Proximal, Rounds

if TYPE_CHECKING:
    from pruning.spec.spec import Spec


def check_agreement(spec: "Spec") -> None:
    """Refuses parts that contradict each other.

    Raises:
        ValueError: Which parts, and what to change.
    """
    if isinstance(spec.compensation, OBSUpdate) and not isinstance(spec.criterion, OBS):
        raise ValueError(
            "compensation obs needs criterion obs, whose curvature it uses; "
            "set compensation to {kind: none} or criterion to {kind: obs}"
        )
    if isinstance(spec.schedule, OneByOne) and isinstance(spec.criterion, OBS):
        _check_one_by_one(spec)
    _check_layerwise(spec)
    _check_pattern(spec)
    _check_schedule(spec)
    _check_metrics(spec)
    if spec.target.bytes is not None and "sparse" not in spec.outputs:
        raise ValueError("target bytes is of the sparse file, which outputs does not list")
    if "sparse" in spec.gates.max_bytes and "sparse" not in spec.outputs:
        raise ValueError("gates.max_bytes names sparse, which outputs does not list")
    if "native" not in spec.outputs:
        raise ValueError("outputs must hold native, the pruned model itself")


class Held(NamedTuple):
    """A metric that decides something: the field that holds the result to it, and the drop."""

    place: str
    drop: float


def held_metrics(spec: "Spec") -> dict[str, Held]:
    """The metrics that decide something, each with the first field that holds the result to it."""
    held: list[tuple[str, Held]] = []
    if spec.target.max_drop is not None:
        asked = spec.target.max_drop
        held.append((asked.metric, Held("target.max_drop", asked.drop)))
    held += [(name, Held("gates.max_drop", drop)) for name, drop in spec.gates.max_drop.items()]
    if isinstance(spec.schedule, Rounds) and spec.schedule.stop is not None:
        stop = spec.schedule.stop
        held.append((stop.metric, Held("schedule.stop", stop.drop)))
    return dict(reversed(held))


def _check_metrics(spec: "Spec") -> None:
    """Whatever is held to a metric needs the metric to be measured."""
    for metric, (place, _) in held_metrics(spec).items():
        if metric not in spec.objective.metrics:
            raise ValueError(f"{place} names a metric that objective.metrics does not list")


def _check_schedule(spec: "Spec") -> None:
    schedule, recovery = spec.schedule, spec.recovery
    trained = isinstance(recovery, FineTune)
    if isinstance(schedule, AtInitialisation | Proximal) and not trained:
        raise ValueError(f"schedule {schedule.kind} trains the network: set recovery to "
                         "{kind: fine_tune}")  # fmt: skip
    if isinstance(schedule, AtInitialisation) and not isinstance(spec.compensation, NoCompensation):
        raise ValueError("schedule at_initialisation has no trained weights to make up for: set "
                         "compensation to {kind: none}")  # fmt: skip
    if isinstance(schedule, Rounds) and schedule.rewind is not None:
        if not isinstance(recovery, FineTune):
            raise ValueError("schedule.rewind needs recovery {kind: fine_tune}")
        if schedule.rewind.epoch >= recovery.epochs:
            raise ValueError("schedule.rewind.epoch must lie before the last of recovery.epochs")
    stops = isinstance(schedule, Rounds) and schedule.stop is not None
    if stops and spec.target.max_drop is not None:
        raise ValueError("schedule.stop and target.max_drop both hold a metric; keep one of them")
    if isinstance(schedule, OneByOne) and spec.target.kind in ("bytes", "flops"):
        raise ValueError("schedule one_by_one counts weights: set target to sparsity or weights")
    if isinstance(recovery, FineTune) and recovery.accumulate > recovery.batch_size:
        raise ValueError("recovery.accumulate cuts a batch into more parts than it has samples")


def _check_one_by_one(spec: "Spec") -> None:
    """The greedy path of OBS is over one full inverse, and moves the survivors as it goes."""
    if isinstance(spec.compensation, NoCompensation):
        raise ValueError("schedule one_by_one with criterion obs needs compensation obs")
    if not isinstance(spec.allocation, GlobalAllocation):
        raise ValueError("schedule one_by_one with criterion obs needs allocation global")
    if not isinstance(spec.pattern, Unstructured):
        raise ValueError("schedule one_by_one with criterion obs needs pattern unstructured")
    if getattr(spec.criterion, "inverse", None) not in ("auto", "full"):
        raise ValueError("schedule one_by_one with criterion obs needs inverse full")


def _check_layerwise(spec: "Spec") -> None:
    compensation, criterion = spec.compensation, spec.criterion
    if not isinstance(compensation, Layerwise):
        if isinstance(spec.allocation, SearchAllocation):
            raise ValueError("allocation search needs compensation layerwise, whose ladders it is "
                             "made over")  # fmt: skip
        return
    if isinstance(spec.allocation, SearchAllocation) and not compensation.chooses:
        raise ValueError("allocation search is made over the ladders of solvers that choose the "
                         "mask, and least_squares takes it from the criterion; set "
                         "solver to auto, or allocation to {kind: uniform}")  # fmt: skip
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
    if compensation.damping not in ("auto", criterion.damping):
        raise ValueError("criterion.damping and compensation.damping must be the same; give the "
                         "compensation's alone")  # fmt: skip


def _check_pattern(spec: "Spec") -> None:
    pattern = spec.pattern
    if not isinstance(pattern, NM):
        return
    if not isinstance(spec.allocation, UniformAllocation):
        raise ValueError("pattern nm takes the same share of every layer: allocation uniform")
    asked = spec.target.sparsity
    if asked is None or abs(asked - pattern.sparsity) > 1e-9 or spec.curve.points:
        raise ValueError(
            f"pattern nm with n {pattern.n} and m {pattern.m} removes {pattern.sparsity:g} of the "
            "weights, whatever else is asked for; leave target and curve out"
        )
    if spec.schedule_in_full != OneShot(recomputations=1):
        raise ValueError("pattern nm needs schedule {kind: one_shot, recomputations: 1}")

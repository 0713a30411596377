"""The dense network of a job beside the one that is pruned."""

from copy import deepcopy
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pruning.errors import SecateurError
from pruning.facts import LayerFact
from pruning.name_patterns import NamePatterns
from pruning.recovery.batch_norm import normalised
from pruning.recovery.distillation import needs_teacher
from pruning.recovery.precision import resolve
from pruning.recovery.trainer import least_part
from pruning.scope import DESCRIBED, check_patterns
from pruning.spec import BatchNorm, FineTune
from pruning.state import load_state

if TYPE_CHECKING:
    from pruning.job import Job


def taught(job: "Job") -> bool:
    """Whether recovery has to call the dense network, whose weights must then be kept."""
    options = job.spec.recovery
    return (
        isinstance(options, FineTune)
        and options.distill is not None
        and needs_teacher(options.distill, job.loss)
    )


def teacher_of(job: "Job") -> nn.Module | None:
    """The network with the dense weights, frozen and in evaluation mode; None where not taught.

    It costs the memory of the weights once more.
    """
    if not taught(job):
        return None
    # What calls left in attributes is of their graphs, and such tensors can't be copied.
    leaves = [x for part in job.module.modules() for x in tree_leaves(vars(part))]
    kept = {id(x): x.detach() for x in leaves if isinstance(x, Tensor) and not x.is_leaf}
    teacher = deepcopy(job.module, kept)
    load_state(teacher, job.dense.load())
    return teacher.requires_grad_(False).eval()


def features_of(job: "Job") -> tuple[str, ...]:
    """Layers that match the patterns of `distill.features`, each once."""
    options = job.spec.recovery
    if not isinstance(options, FineTune) or options.distill is None:
        return ()
    patterns = NamePatterns(options.distill.features)
    chosen = {f.tied_to or f.name for f in _called(job) if patterns.match([f.name])}
    return tuple(f.name for f in _called(job) if f.name in chosen)


def _called(job: "Job") -> list[LayerFact]:
    """The layers that give one tensor when they are called."""
    return [f for f in job.layer_facts if f.kind in DESCRIBED]


def check(job: "Job") -> None:
    """Refuses before anything is pruned what recovery could not do.

    Raises:
        SecateurError: `spec_invalid` for a pattern of `features` that matches no layer,
            `spec_conflict` for a precision that the device lacks, a model without BatchNorm, or one
            that takes samples one by one where BatchNorm has to see several.
    """
    options = job.spec.recovery
    if isinstance(options, BatchNorm):
        normalised(job.module)
        _check_batch(job)
    if not isinstance(options, FineTune):
        return
    if least_part(job.module, options) > 1:
        _check_batch(job)
    resolve(options.precision, job.device)
    if options.distill is not None:
        where = "spec.recovery.distill.features"
        check_patterns(options.distill.features, _called(job), where)


def _check_batch(job: "Job") -> None:
    """Refuses statistics of batches where the model was exported for one sample at a time."""
    if job.facts is None or job.facts.batch != 1:
        return
    raise SecateurError(
        "spec_conflict",
        "The model takes one sample at a time, and BatchNorm normalises by what the samples of a "
        "batch have in common.",
        where="spec.recovery",
        hint="Export the model with a free batch size, or use recovery {kind: fine_tune, "
        "batch_norm: freeze}.",
    )

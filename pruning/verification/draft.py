"""The draft, read as what it is: a claim by a process that has read a stranger's files.

What this process knows by itself (the spec, the names and digests of the inputs, the upload) is
taken from there; the rest must at least fit it, so that no check can be left out by a draft that
does not mention what would be checked.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from pruning.errors import SecateurError
from pruning.formats.contract import Imported
from pruning.formats.magic import MODELS
from pruning.report.schema import Report
from pruning.request import (
    BESIDE,
    DRAFT,
    DRAFT_REPORT,
    REFERENCE,
    REPORT_BYTES,
    RunRequest,
    output_path,
)
from pruning.spec import parse_spec
from pruning.verification import reference
from pruning.verification.outcome import failed
from pruning.verification.reference import Reference

_ONE_AT_MOST = ("masks", "sparse")


def read_report(request: RunRequest, folder: Path) -> Report:
    """The report so far, with the spec and the inputs that the request names.

    Raises:
        SecateurError: `verification_failed` with `draft` as `where`.
    """
    assert request.model is not None
    path = folder / DRAFT / DRAFT_REPORT
    if path.stat().st_size > REPORT_BYTES:
        raise _refuse(f"it is larger than {REPORT_BYTES:,} bytes")
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, what["loc"]))
        raise _refuse(f"it is no report ({at}: {what['msg']})") from None
    spec = parse_spec(request.spec)
    if report.spec.model_dump(mode="json") != spec.model_dump(mode="json"):
        raise _refuse("it has another spec than the job")
    if report.seed != spec.seed:
        raise _refuse("it has another seed than the job")
    report.model.name, report.model.sha256 = request.model.name, request.model.sha256
    for role, ref in request.data.items():
        part = getattr(report.data, role)
        part.name, part.sha256 = ref.name, ref.sha256
    return report


def check_files(report: Report, request: RunRequest) -> None:
    """Each file is of a kind that a pruning writes, lies where its kind lies, and none is missing.

    Raises:
        SecateurError: As `read_report`.
    """
    forms = [entry.format for entry in report.artifacts]
    for entry in report.artifacts:
        if entry.format not in BESIDE and entry.format not in MODELS:
            raise _refuse(f"{entry.name!r} is of the unknown kind {entry.format[:40]!r}")
        if request.outputs[entry.name].path != output_path(entry.name, entry.format):
            raise _refuse(f"{entry.name!r} is not of the kind {entry.format} that it names")
    if not any(form in MODELS for form in forms):
        raise _refuse("it lists no file of the model")
    for form in _ONE_AT_MOST:
        if forms.count(form) != (form in report.spec.outputs):
            raise _refuse(f"it lists {forms.count(form)} files of the kind {form}")


def read_reference(report: Report, uploaded: Imported, folder: Path) -> Reference:
    """What the network in memory was, where it fits the report and the upload.

    Args:
        report: The draft.
        uploaded: The model as uploaded.
        folder: Of the job.

    Raises:
        SecateurError: As `read_report`.
    """
    try:
        found = reference.read(folder / DRAFT / REFERENCE)
    except (SecateurError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refuse(f"its reference can't be read ({error})") from None
    weights = dict(uploaded.module.named_parameters(remove_duplicate=False))
    for name, mask in found.masks.items():
        if name not in weights or mask.shape != tuple(weights[name].shape):
            raise _refuse(f"it has a mask {name[:100]!r} that fits no weight of the upload")
    _check_counts(report, found, weights)
    stages = (report.metrics.dense, report.metrics.pruned, report.metrics.final)
    if any(stage.keys() != set(report.spec.objective.measured) for stage in stages):
        raise _refuse("its metrics are not those that the spec asks for")
    points = {entry.name for entry in report.artifacts if entry.format == "point"}
    if found.points.keys() != points or {type(n) for n in found.points.values()} - {int}:
        raise _refuse("its curve is of other files than those that were written")
    if not found.outputs.ndim:
        raise _refuse("it holds no outputs")
    return found


def _check_counts(report: Report, found: Reference, weights: Mapping[str, Tensor]) -> None:
    """The masks are those of the layers in scope, with as many positions as the report says."""
    gone = {name: int((~mask).sum()) for name, mask in found.masks.items()}
    said = {}
    for layer in report.layers:
        name = f"{layer.name}.weight"
        name = name if name in weights else layer.name
        if name not in weights or layer.shape != list(weights[name].shape):
            raise _refuse(f"it lists a layer {layer.name[:100]!r} that the upload has not")
        if layer.parameters != weights[name].numel():
            raise _refuse(f"it gives {layer.name} another size")
        if layer.in_scope:
            said[name] = layer.removed
            if layer.found != int((weights[name] == 0).sum()):
                raise _refuse(f"it counts other zeros in {layer.name} than the upload has")
    if said != gone:
        raise _refuse("its masks are not those of the layers that it lists")
    if len({layer.name for layer in report.layers}) != len(report.layers):
        raise _refuse("it lists a layer twice")
    if report.sparsity.found != sum(x.found for x in report.layers if x.in_scope):
        raise _refuse("its zeros of the upload are not those of its layers")
    sparsity, total = report.sparsity, sum(mask.size for mask in found.masks.values())
    if (sparsity.total, sparsity.removed) != (total, sum(gone.values())):
        raise _refuse("its numbers of weights are not those of its masks")
    if not total or sparsity.achieved != sparsity.removed / total:
        raise _refuse("its sparsity is not that of its masks")


def _refuse(reason: str) -> SecateurError:
    return failed("draft", f"What the pruning process left can't be used: {reason}.")

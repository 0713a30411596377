"""A pruning, files in and artifacts out: load, check, prune, write, verify, report."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from pruning import artifacts
from pruning.artifacts import describe, gzip_size
from pruning.data.batches import ArrayData, Data
from pruning.data.kinds import check_dataset, load_dataset
from pruning.errors import SecateurError
from pruning.events import Event
from pruning.formats import bitmask
from pruning.formats.containers import can_hold
from pruning.formats.contract import Imported
from pruning.formats.masks import write_masks
from pruning.formats.registry import read_model
from pruning.loop import Outcome, prune
from pruning.plan import HELD_OUT_SHARE, Plan, plan
from pruning.progress import Narrator
from pruning.report.html import report_html
from pruning.report.schema import ArtifactEntry, Report, ReportWarning, Sizes, report_json
from pruning.report.words import is_gate
from pruning.request import CHECKPOINTS, OUT, FileRef, Rejection, RunRequest, RunResult
from pruning.spec import Spec, parse_spec
from pruning.verify import Expected, Written, verify

Emit = Callable[[Event], None]


def prune_files(
    request: RunRequest, folder: Path, emit: Emit | None, narrator: Narrator
) -> RunResult:
    """Does what a request of the kind `prune` asks for; see `pruning.run.run`."""
    assert request.model is not None
    torch.set_num_threads(request.threads)
    spec = parse_spec(request.spec)
    device = _device(request.device)
    narrator.phase("loading")
    uploaded = folder / request.model.path
    imported = read_model(uploaded, request.limits)
    # The plan comes before the arrays, so that what can't run is refused early.
    planned = _plan(spec, imported, request, folder)
    for warning in planned.warnings:
        narrator.warning(warning.code, warning.message, warning.where)
    data = _data(spec, imported, request, folder)
    imported.module.to(device)
    for warning in _seen(data):
        planned.warnings.append(warning)
        narrator.warning(warning.code, warning.message, warning.where)
    narrator.phase(None)

    outcome = prune(
        imported.module,
        data,
        spec,
        facts=imported.facts,
        emit=emit,
        checkpoints=folder / CHECKPOINTS,
        copy=False,
    )
    outcome.module.to("cpu")
    report = outcome.report
    _complete(report, request, planned)

    with _appears_whole(folder / OUT) as out:
        narrator.phase("exporting")
        with _staged(folder) as stage:
            written = _write(imported, outcome, stage, request)
            _describe(report, written, imported)
            narrator.phase("verifying")
            expected = Expected(imported, outcome.module, outcome.masks, report)
            report.checks += verify(written, expected, data.evaluation, threads=request.threads)
            for path in written.all:
                path.rename(out / path.name)
        narrator.phase("exporting")
        reports = _write_reports(report, narrator, out)
    narrator.phase(None)
    return RunResult(
        artifacts=[*report.artifacts, *reports],
        summary=_summary(report),
        rejected=_rejection(report),
    )


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise SecateurError(
            "unavailable", "The job asks for a GPU, and torch sees none here.", where="device"
        )
    return torch.device(asked)


def _plan(spec: Spec, imported: Imported, request: RunRequest, folder: Path) -> Plan:
    facts = {}
    for role, ref in request.data.items():
        with _placed(f"data.{role}"):
            facts[role] = check_dataset(folder / ref.path, request.limits)
    return plan(spec, imported.facts, {str(role): fact for role, fact in facts.items()})


def _data(spec: Spec, imported: Imported, request: RunRequest, folder: Path) -> Data:
    def read(role: str, ref: FileRef) -> ArrayData:
        with _placed(f"data.{role}"):
            return load_dataset(folder / ref.path, imported, request.limits)

    given = {str(role): read(role, ref) for role, ref in request.data.items()}
    calibration, training = given["calibration"], given.get("training")
    if "evaluation" in given:
        return Data(calibration, training or calibration, given["evaluation"])
    if training is not None and training.same_as(calibration):
        # The held-out share must stay unseen, also where the same file is given for both.
        training = None
    data = Data.from_calibration(calibration, spec.seed, HELD_OUT_SHARE)
    return Data(data.calibration, training or data.training, data.evaluation, held_out=True)


def _seen(data: Data) -> list[ReportWarning]:
    """Says so where the metrics are measured on the very samples that the job works with."""
    roles = {"calibration": data.calibration, "training": data.training}
    same = [role for role, part in roles.items() if part.same_as(data.evaluation)]
    if not same:
        return []
    return [
        ReportWarning(
            code="evaluation_seen",
            message=f"The evaluation data are the {' and the '.join(same)} data too: the metrics "
            "say how well these samples are fitted, not how the model does on new ones.",
            where="data.evaluation",
        )
    ]


@contextmanager
def _placed(where: str):  # type: ignore[no-untyped-def]
    """Puts the role in front of the place of an error, as the plan's errors have it."""
    try:
        yield
    except SecateurError as error:
        error.where = f"{where}.{error.where}" if error.where else where
        raise


def _complete(report: Report, request: RunRequest, planned: Plan) -> None:
    """What the loop can't know: names and digests of files, and the plan's remarks."""
    assert request.model is not None
    report.model.name, report.model.sha256 = request.model.name, request.model.sha256
    for role, ref in request.data.items():
        part = getattr(report.data, role)
        part.name, part.sha256 = ref.name, ref.sha256
    report.environment.onnxruntime = onnxruntime.__version__
    report.warnings = [*planned.warnings, *report.warnings]
    known = {s.where for s in report.substitutions}
    report.substitutions += [s for s in planned.substitutions if s.where not in known]


@contextmanager
def _appears_whole(out: Path):  # type: ignore[no-untyped-def]
    """A folder to write into that takes its name at the end, or is gone after a failure."""
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(out, ignore_errors=True)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside `out` for files that are not verified yet."""
    stage = folder / ".written"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write(imported: Imported, outcome: Outcome, stage: Path, request: RunRequest) -> Written:
    assert request.model is not None
    stem = artifacts.stem(request.model.name)
    # The model's files by themselves, so that they can be read again as an upload would be.
    alone = stage / "model"
    alone.mkdir()
    files = imported.write(alone, stem)
    again = read_model(alone if imported.source.is_dir() else files[0], request.limits)
    masks = packed = None
    outputs = outcome.report.spec.outputs
    if "masks" in outputs:
        masks = stage / f"{stem}.masks.safetensors"
        write_masks(outcome.masks, masks)
    if "sparse" in outputs:
        packed = stage / f"{stem}.sparse.safetensors"
        held = again.tensors()
        bitmask.encode({name: held[name] for name in held if can_hold(held[name].dtype)}, packed)
    return Written(again, files, masks, packed)


def _describe(report: Report, written: Written, imported: Imported) -> None:
    report.artifacts = [describe(path, imported.facts.format) for path in written.model]
    for path, form in ((written.masks, "masks"), (written.bitmask, "sparse")):
        if path is not None:
            report.artifacts.append(describe(path, form))
    sizes = {entry.format: entry.bytes for entry in report.artifacts}
    uploaded = [path for path in _files(imported.source) if path.is_file()]
    report.sizes = Sizes(
        uploaded_bytes=sum(path.stat().st_size for path in uploaded),
        pruned_bytes=sum(path.stat().st_size for path in written.model),
        uploaded_gzip_bytes=sum(map(gzip_size, uploaded)),
        pruned_gzip_bytes=sum(map(gzip_size, written.model)),
        masks_bytes=sizes.get("masks"),
        sparse_bytes=sizes.get("sparse"),
    )


def _files(source: Path) -> list[Path]:
    return sorted(source.rglob("*")) if source.is_dir() else [source]


def _write_reports(report: Report, narrator: Narrator, out: Path) -> list[ArtifactEntry]:
    narrator.phase("exporting")
    for phase, seconds in narrator.timings.items():
        report.timings[phase] = round(report.timings.get(phase, 0.0) + seconds, 6)
    page, values = out / "report.html", out / "report.json"
    values.write_bytes(report_json(report))
    page.write_text(report_html(report), encoding="utf-8")
    return [describe(values, "report.json"), describe(page, "report.html")]


def _summary(report: Report) -> dict[str, Any]:
    """A few numbers for lists of jobs."""
    stages = report.metrics.model_dump(mode="json", include={"dense", "pruned", "recovered"})
    metrics = {
        name: {stage: (found or {}).get(name, {}).get("value") for stage, found in stages.items()}
        for name in report.metrics.dense
    }
    return {
        "sparsity": report.sparsity.model_dump(mode="json"),
        "metrics": metrics,
        "loss": report.loss.model_dump(mode="json"),
        "sizes": report.sizes.model_dump(mode="json") if report.sizes else None,
        "warnings": len(report.warnings),
    }


def _rejection(report: Report) -> Rejection | None:
    for check in report.checks:
        if is_gate(check.name) and check.status == "fail":
            return Rejection(
                message=check.message,
                where=f"spec.gates.{check.name}",
                hint="Ask for a lower sparsity, add recovery, or allow a larger drop. "
                "The artifacts are kept.",
            )
    return None

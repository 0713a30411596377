"""The first half of a pruning, files in and files out: load, check, prune, write.

Nothing written here is believed: `pruning.verification` reads it again in a process of its own.
"""

from pathlib import Path

import torch
from torch import Tensor

from pruning.artifacts import appears_whole, describe, stem
from pruning.data.batches import Data
from pruning.data.kinds import check_dataset
from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.formats import sparse
from pruning.formats.contract import Imported
from pruning.formats.intake import measure
from pruning.formats.masks import write_masks
from pruning.formats.registry import read_model
from pruning.loop import Outcome, prune_admitted
from pruning.plan import Plan, plan
from pruning.progress import Narrator
from pruning.report.schema import ArtifactEntry, Report, ReportWarning, report_json
from pruning.request import (
    BESIDE,
    CHECKPOINTS,
    DRAFT,
    DRAFT_REPORT,
    OUT,
    REFERENCE,
    RunRequest,
    RunResult,
)
from pruning.roles import placed, roles
from pruning.spec import Spec, parse_spec
from pruning.study.curve_files import write_points
from pruning.verification import reference
from pruning.verification.expected_work import WRITING, verified, written


def prune_files(request: RunRequest, folder: Path, narrator: Narrator) -> RunResult:
    """Does what a request of the kind `prune` asks for; see `pruning.run.run_kind`."""
    assert request.model is not None
    torch.set_num_threads(request.threads)
    spec = parse_spec(request.spec)
    device = _device(request.device)
    narrator.phase("loading")
    imported = read_model(folder / request.model.path, request.limits, spec.declared)
    if spec.target.bytes is not None:
        measure(imported)
    _check_names(imported, spec, stem(request.model.name))
    earlier = _earlier(request, folder, spec)
    # The plan comes before the arrays, so that what can't run is refused early.
    planned = _plan(spec, imported, earlier, request, folder)
    for warning in planned.warnings:
        narrator.warning(warning.code, warning.message, warning.where)
    data = roles(imported, request, folder, spec.seed)
    imported.module.to(device)
    for warning in _seen(data):
        planned.warnings.append(warning)
        narrator.warning(warning.code, warning.message, warning.where)
    after = verified(spec, imported, data.evaluation.samples)
    narrator.plan([written(spec, imported), after])
    narrator.phase("checking")
    outcome = prune_admitted(
        imported.module,
        data,
        spec,
        facts=imported.facts,
        narrator=narrator,
        checkpoints=folder / CHECKPOINTS,
        rewind_to=None if earlier is None else earlier[1],
    )
    outcome.module.to("cpu")
    report = outcome.report
    _complete(report, planned)

    narrator.reach(WRITING)
    narrator.phase("exporting")
    with appears_whole(folder / OUT) as out, appears_whole(folder / DRAFT) as draft:
        report.artifacts = _write(imported, outcome, out, request)
        memory = reference.outputs_of(outcome.module, data.evaluation, imported.facts)
        points, zeros = write_points(
            imported, outcome, out, stem(request.model.name), narrator, request.limits
        )
        report.artifacts += points
        masks = {name: mask.numpy() for name, mask in outcome.masks.items()}
        reference.write(reference.Reference(masks, memory, zeros), draft / REFERENCE)
        narrator.phase(None)
        report.timings = dict(narrator.timings)
        (draft / DRAFT_REPORT).write_bytes(report_json(report))
    return RunResult(artifacts=report.artifacts)


def _check_names(imported: Imported, spec: Spec, name: str) -> None:
    """Refuses a model of several files, which keep their names, where the job needs one of these.

    Raises:
        SecateurError: `unsupported_format`.
    """
    if not imported.source.is_dir():
        return
    own = {"report.json", "report.html", "manifest.json"}
    own |= {f"{name}.{kind}.safetensors" for kind in BESIDE if kind in spec.outputs}
    for path in sorted(imported.source.iterdir()):
        if path.name in own or path.name.startswith(f"{name}.at-"):
            raise SecateurError(
                "unsupported_format",
                f"The model has a file called {path.name}, and the job delivers one of that name.",
                where="model",
                hint="Rename or leave out that file, or pack the folder as a .tar or .zip.",
            )


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise SecateurError(
            "unavailable", "The job asks for a GPU, and torch sees none here.", where="device"
        )
    return torch.device(asked)


def _earlier(
    request: RunRequest, folder: Path, spec: Spec
) -> tuple[ModelFacts, dict[str, Tensor]] | None:
    """Facts and weights of the earlier checkpoint that the job names."""
    if request.rewind_to is None:
        return None
    with placed("rewind_to"):
        found = read_model(folder / request.rewind_to.path, request.limits, spec.declared)
    return found.facts, found.module.state_dict()


def _plan(
    spec: Spec,
    imported: Imported,
    earlier: tuple[ModelFacts, dict[str, Tensor]] | None,
    request: RunRequest,
    folder: Path,
) -> Plan:
    facts = {}
    for role, ref in request.data.items():
        with placed(f"data.{role}"):
            facts[str(role)] = check_dataset(folder / ref.path, request.limits)
    return plan(spec, imported.facts, facts, None if earlier is None else earlier[0])


def _seen(data: Data) -> list[ReportWarning]:
    """Says so where the metrics are measured on the very samples that the job works with."""
    working = {"calibration": data.calibration, "training": data.training}
    same = [role for role, part in working.items() if part.same_as(data.evaluation)]
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


def _complete(report: Report, planned: Plan) -> None:
    """The plan's remarks, which the loop can't know; names and digests the verifier adds."""
    report.warnings = [*planned.warnings, *report.warnings]
    known = {s.where for s in report.substitutions}
    report.substitutions += [s for s in planned.substitutions if s.where not in known]


def _write(
    imported: Imported, outcome: Outcome, out: Path, request: RunRequest
) -> list[ArtifactEntry]:
    """The model's own files, and what the spec asks for beside them."""
    assert request.model is not None
    name, outputs = stem(request.model.name), outcome.report.spec.outputs
    masks, packed = out / f"{name}.masks.safetensors", out / f"{name}.sparse.safetensors"
    # By themselves until they were read again, as an upload is.
    alone = out / ".model"
    alone.mkdir()
    files = imported.write(alone, name)
    if "sparse" in outputs:
        # The numbers as they stand in the files, in their own types.
        again = read_model(alone if imported.source.is_dir() else files[0], request.limits)
        sparse.pack(files, again.tensors(), packed)
    files = [path.rename(out / path.name) for path in files]
    alone.rmdir()
    entries = [describe(path, imported.facts.format) for path in files]
    if "masks" in outputs:
        write_masks(outcome.masks, masks)
        entries.append(describe(masks, "masks"))
    if "sparse" in outputs:
        entries.append(describe(packed, "sparse"))
    return entries

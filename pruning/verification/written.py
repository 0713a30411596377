"""The files of a job as the verifying process finds them, opened by itself."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pruning.errors import SecateurError
from pruning.formats.contract import Imported
from pruning.formats.registry import read_model
from pruning.report.schema import ArtifactEntry, Check, Report
from pruning.request import BESIDE, RunRequest
from pruning.spec import parse_spec
from pruning.verification.draft import check_files, read_reference, read_report
from pruning.verification.outcome import failed
from pruning.verification.reference import Reference

_CHUNK = 1 << 20


@dataclass
class Written:
    """All that verification looks at.

    Args:
        request: Of the kind `verify`.
        folder: Of the job.
        report: The draft: what the pruning process says.
        reference: Masks and outputs that it had in memory.
        uploaded: The model as uploaded.
        again: The pruned model, read from its files.
    """

    request: RunRequest
    folder: Path
    report: Report
    reference: Reference
    uploaded: Imported
    again: Imported

    def path(self, entry: ArtifactEntry) -> Path:
        """Where an artifact lies."""
        return self.folder / self.request.outputs[entry.name].path

    def of(self, form: str) -> Path | None:
        """The artifact of a format of which there is one at most."""
        return next((self.path(e) for e in self.report.artifacts if e.format == form), None)

    @property
    def native(self) -> list[Path]:
        """The model's own files."""
        return [self.path(e) for e in self.report.artifacts if e.format not in BESIDE]

    @property
    def half(self) -> bool:
        """Whether the upload holds prunable weights of a half type, to which results are cut."""
        types = {layer.dtype for layer in self.uploaded.facts.layers}
        return bool(types & {"float16", "bfloat16"})


def open_written(request: RunRequest, folder: Path) -> tuple[Written, Check]:
    """Reads the draft, the upload and the files, and checks the digests before anything is parsed.

    Raises:
        SecateurError: `verification_failed` where the files are not those of the draft or can't be
            read.
    """
    assert request.model is not None
    report = read_report(request, folder)
    digests = _digests(report, request, folder)
    check_files(report, request)
    declared = parse_spec(request.spec).declared
    uploaded = read_model(folder / request.model.path, request.limits, declared)
    native = [
        folder / request.outputs[e.name].path for e in report.artifacts if e.format not in BESIDE
    ]
    try:
        source = native[0].parent if uploaded.source.is_dir() else native[0]
        again = read_model(source, request.limits, declared)
    except SecateurError as error:
        raise failed("model_file", f"The pruned model can't be read again: {error}") from error
    reference = read_reference(report, uploaded, folder)
    return Written(request, folder, report, reference, uploaded, again), digests


def _digests(report: Report, request: RunRequest, folder: Path) -> Check:
    """Every file has the digest and the size that the pruning process took when it wrote it."""
    said = {entry.name: entry for entry in report.artifacts}
    wrong = sorted(said.keys() ^ request.outputs.keys())
    if len(said) != len(report.artifacts):
        wrong.append("a name that two files have")
    for name in said.keys() & request.outputs.keys():
        ref, path = request.outputs[name], folder / request.outputs[name].path
        found = _sha256(path) if path.is_file() else ""
        stored = ref.sha256 or found
        if not found == stored == said[name].sha256 or path.stat().st_size != said[name].bytes:
            wrong.append(name)
    if wrong:
        raise failed(
            "digests",
            f"{', '.join(wrong)}: not the bytes that were written, by their digest or size.",
        )
    return Check(
        name="digests",
        status="pass",
        value=0,
        threshold=0,
        message=f"All {len(said)} files, fetched again, have the digests that were taken as they "
        "were written.",
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

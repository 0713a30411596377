"""The models of a trade-off curve as files, one a point."""

import tempfile
from itertools import chain, count
from pathlib import Path

from pruning.artifacts import describe
from pruning.formats import sparse
from pruning.formats.bundle import pack
from pruning.formats.contract import Imported
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.loop import Outcome
from pruning.progress import Narrator
from pruning.report.schema import ArtifactEntry
from pruning.report.study import Point
from pruning.request import BESIDE
from pruning.study.points import in_order
from pruning.verification.contents import zeros_in

DIGITS = 4
"""Decimals of the sparsity in a file's name; more where two points would have the same."""

MOST_DIGITS = 12
"""Runs that end at one sparsity, as rounds do that stopped there, are numbered beyond these."""


def write_points(
    imported: Imported, outcome: Outcome, out: Path, stem: str, narrator: Narrator, limits: Limits
) -> tuple[list[ArtifactEntry], dict[str, int]]:
    """Writes every point's model but the delivered one, and names all in the report's curve.

    The module ends at the delivered weights.

    Args:
        imported: The upload; its module is the outcome's, on the CPU.
        outcome: What was run; its report lists the files that were written before.
        out: The folder of the artifacts.
        stem: What the files are named after.
        narrator: Told of progress.
        limits: Under which the files are read again, to know what their sparse files would take.

    Returns:
        The files, and the zeros in the layers in scope of each in memory, by name.
    """
    study, report = outcome.study, outcome.report
    entries: list[ArtifactEntry] = []
    zeros: dict[str, int] = {}
    models = [entry.name for entry in report.artifacts if entry.format not in BESIDE]
    sparse_bytes = {e.format: e.bytes for e in report.artifacts}.get("sparse")
    for point in report.curve:
        if point.delivered:
            point.bytes = sparse_bytes or point.bytes
            point.artifact = models[0] if len(models) == 1 else None
    if not report.spec.curve.keep or len(report.curve) < 2:
        return entries, zeros
    for done, (point, (_, run)) in enumerate(zip(report.curve, in_order(study), strict=True)):
        narrator.progress(done, len(report.curve), "files of the curve")
        if point.delivered:
            continue
        study.runs.show(run)
        name = _unique(stem, point, {entry.name for entry in entries})
        path, size = _write(imported, out, name, None if sparse_bytes is None else limits)
        point.bytes = point.bytes if size is None else size
        entries.append(describe(path, "point"))
        zeros[path.name] = zeros_in(outcome.module, list(outcome.masks))
        point.artifact = path.name
    study.runs.show(study.answer)
    return entries, zeros


def _unique(stem: str, point: Point, taken: set[str]) -> str:
    digits = (f"{point.sparsity:.{places}f}" for places in range(DIGITS, MOST_DIGITS + 1))
    numbered = (f"{point.sparsity:.{DIGITS}f}-{number}" for number in count(2))
    for name in (f"{stem}.at-{text}" for text in chain(digits, numbered)):
        if not any(other.startswith(f"{name}.") for other in taken):
            return name
    raise AssertionError("numbers do not end")


def _write(
    imported: Imported, out: Path, name: str, limits: Limits | None
) -> tuple[Path, int | None]:
    """One file: the format's own, or a canonical tar of the several that it has.

    With limits, also the bytes that a sparse file of it takes.
    """
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        files = imported.write(folder, name)
        several, size = imported.source.is_dir(), None
        if limits is not None:
            packed = Path(scratch) / "sparse"
            again = read_model(folder if several else files[0], limits)
            sparse.pack(files, again.tensors(), packed)
            size = packed.stat().st_size
        if several:
            path = out / f"{name}.tar"
            pack("tar", path, {file.name: file for file in files})
        else:
            path = files[0].rename(out / files[0].name)
    return path, size

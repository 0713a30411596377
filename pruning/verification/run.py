"""A request of the kind `verify`: everything read again, measured, held to the gates, reported."""

import math
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from pruning import manifest
from pruning.artifacts import appears_whole, describe, gzip_size
from pruning.data.batches import ArrayData
from pruning.progress import Narrator
from pruning.report.html import report_html
from pruning.report.schema import ArtifactEntry, Check, Report, Sizes, report_json
from pruning.report.study import Latency
from pruning.report.summary import summary
from pruning.request import OUT, RunRequest, RunResult
from pruning.roles import evaluation
from pruning.verification import gates, latency
from pruning.verification.contents import contents
from pruning.verification.expected_work import VERIFYING, verified
from pruning.verification.inference import Engine
from pruning.verification.outcome import failed
from pruning.verification.running import running
from pruning.verification.written import Written, open_written
from pruning.verification.zeros import zeros


def verify_files(request: RunRequest, folder: Path, narrator: Narrator) -> RunResult:
    """Verifies what a `prune` wrote, and writes the reports; see `pruning.run.run_kind`.

    Raises:
        SecateurError: `verification_failed` with the first check that failed as `where`.
    """
    torch.set_num_threads(request.threads)
    narrator.phase("verifying")
    written, digests = open_written(request, folder)
    report = written.report
    report.environment.onnxruntime = onnxruntime.__version__
    data = evaluation(written.uploaded, request, folder, report.seed)
    dense = Engine(written.uploaded, request.threads)
    pruned = Engine(written.again, request.threads)
    if pruned.name == "onnxruntime":
        report.environment.onnxruntime_threads = pruned.threads
    checks = [digests, *zeros(written)]
    rest = verified(report.spec, written.uploaded, data.samples, begun=True)
    narrator.plan([rest], before=_spent(report))
    narrator.reach(VERIFYING)
    # Each may take minutes with a large model; who listens shall hear that it goes on.
    narrator.progress(1, 4, "steps")
    checks += contents(written, narrator)
    narrator.progress(2, 4, "steps")
    with narrator.part("outputs"):
        checks += running(written, pruned, dense, data, narrator)
    narrator.progress(3, 4, "steps")
    for check in checks:
        if check.status == "fail":
            raise failed(check.name, check.message)
    report.sizes = _sizes(written)
    narrator.progress(4, 4, "steps")
    held = _gates(report, report.sizes)
    with narrator.part("latency"):
        report.latency, unmeasured = _latency(written, dense, pruned, data, narrator)
    timed = gates.latency(report.spec, report.latency, unmeasured)
    if timed is not None and timed.status == "warn":
        # Told as an event alone: the report's own warnings are the same in every run of a job.
        narrator.warning(gates.UNDECIDED, timed.message, f"spec.gates.{timed.name}")
    if report.latency is not None:
        report.latency.gate = timed
    elif timed is not None:
        held.append(timed)
    trust = [check for check in report.checks if check.group == "trust"]
    report.checks = [*held, *trust, *checks]
    with appears_whole(folder / OUT) as out:
        reports = _write_reports(written, narrator, out)
    narrator.finish()
    shown = summary(report).model_dump(mode="json")
    return RunResult(artifacts=reports, summary=shown, rejected=gates.rejection(report))


def _spent(report: Report) -> float:
    """Seconds of the process that pruned."""
    phases = (seconds for name, seconds in report.timings.items() if "." not in name)
    return sum(s for s in phases if math.isfinite(s) and s > 0)


def _timing(narrator: Narrator) -> Callable[[float, float], None]:
    """Tells how far the time for the latency is spent."""
    return lambda done, total: narrator.progress(done, total, "seconds of timing")


def _gates(report: Report, sizes: Sizes) -> list[Check]:
    """All but the latency, judged here by numbers that were just verified."""
    dense, final = (
        {name: math.nan if m.value is None else m.value for name, m in stage.items()}
        for stage in (report.metrics.dense, report.metrics.final)
    )
    for layer in report.layers:
        layer.sparsity = layer.zeros / layer.parameters
    return [
        *gates.drops(report.spec, dense, final),
        *gates.layer_sparsity(report.spec, report.layers),
        *gates.max_bytes(report.spec, sizes),
        *gates.target_bytes(report, sizes),
    ]


def _sizes(written: Written) -> Sizes:
    source = written.uploaded.source
    uploaded = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    sizes = {entry.format: entry.bytes for entry in written.report.artifacts}
    return Sizes(
        uploaded_bytes=sum(path.stat().st_size for path in uploaded),
        pruned_bytes=sum(path.stat().st_size for path in written.native),
        uploaded_gzip_bytes=sum(map(gzip_size, uploaded)),
        pruned_gzip_bytes=sum(map(gzip_size, written.native)),
        masks_bytes=sizes.get("masks"),
        sparse_bytes=sizes.get("sparse"),
    )


def _latency(
    written: Written, dense: Engine, pruned: Engine, data: ArrayData, narrator: Narrator
) -> tuple[Latency | None, str]:
    """The measurement, or why there is none."""
    try:
        spec = written.report.spec
        return latency.measure(dense, pruned, data, spec, _timing(narrator)), ""
    except Exception as error:  # onnxruntime has a dozen exception types without a common base
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return None, f"{pruned.name} does not run the files ({reason})"


def _write_reports(written: Written, narrator: Narrator, out: Path) -> list[ArtifactEntry]:
    """The reports, and last the manifest, which has the digests of all others."""
    report = written.report
    narrator.phase("exporting")
    for phase, seconds in narrator.timings.items():
        report.timings[phase] = round(report.timings.get(phase, 0.0) + seconds, 6)
    page, values, listed = out / "report.html", out / "report.json", out / manifest.NAME
    values.write_bytes(report_json(report))
    page.write_text(report_html(report), encoding="utf-8")
    reports = [describe(values, "report.json"), describe(page, "report.html")]
    made = manifest.make_manifest(
        report, written.request, [*report.artifacts, *reports], written.folder
    )
    listed.write_bytes(manifest.manifest_json(made))
    return [*reports, describe(listed, manifest.FORMAT)]

"""`secateur prune` and `secateur plan`."""

import json as json_
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pruning.axes import parse_declared
from pruning.report.scope import ScopeSection
from pruning.report.scope_words import in_scope, left_out
from secateur.cli import inputs as inputs_
from secateur.cli.interrupt import leave_at_the_next
from secateur.cli.local import run_local
from secateur.cli.options import CANCELLED, REJECTED
from secateur.cli.output import (
    EXIT_OF_STATE,
    client,
    operations,
    print_error,
    print_fields,
    print_json,
    size,
    stderr,
)
from secateur.cli.remote import download, follow_or_cancel, under_name, unfolded, upload
from secateur.cli.result import print_result
from secateur.cli.samples import SAMPLES
from secateur.errors import SecateurError


def _file(help: str, *names: str) -> Any:
    return typer.Option(*names, exists=True, dir_okay=False, readable=True, help=help)


ModelFile = Annotated[
    Path,
    typer.Argument(
        exists=True,
        metavar="MODEL",
        help="ONNX file, .pt2, or a folder: Hugging Face, or architecture.json and its weights.",
    ),
]
Data = Annotated[
    Path,
    _file(
        "Calibration data: .npz, .safetensors or .parquet of the model's inputs, .jsonl of texts, "
        "or a .zip of images.",
        "--data",
    ),
]
Training = Annotated[Path | None, _file("Data to recover on; else the calibration data.")]
Evaluation = Annotated[Path | None, _file("Data to measure on; else a held-out share.")]
RewindTo = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        metavar="MODEL",
        help="Earlier checkpoint of MODEL, for schedules that rewind to one or start from it.",
    ),
]
SpecFile = Annotated[Path | None, _file("Spec in YAML or JSON; options override it.", "--spec")]
Sparsity = Annotated[float | None, typer.Option(help="Share to remove (default 0.5).")]
MaxDrop = Annotated[
    float | None,
    typer.Option("--max-drop", help="In place of a sparsity: the most there is within this drop."),
]
Metric = Annotated[
    str | None,
    typer.Option(help="Of --max-drop: accuracy (default), agreement or cosine without labels."),
]
Points = Annotated[
    str | None,
    typer.Option(help="Further sparsities of the trade-off curve, 0.5,0.7,0.9 say."),
]
Criterion = Annotated[str | None, typer.Option(help="See `secateur criteria` (default obs).")]

Samples = Annotated[list[str] | None, SAMPLES]


def prune(
    model: ModelFile,
    data: Data,
    training: Training = None,
    evaluation: Evaluation = None,
    spec: SpecFile = None,
    sparsity: Sparsity = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    points: Points = None,
    criterion: Criterion = None,
    rewind_to: RewindTo = None,
    samples: Samples = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result (default MODEL-pruned).")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="In this process, without a service.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The job's name in lists.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier result.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the report in a browser.")] = False,
) -> None:
    """Prune MODEL and put the result, with its report, into a folder.

    Exit code: 0 done, 1 failed, 2 usage, 3 done but a gate of the spec was missed, 130 cancelled.
    """
    wanted = inputs_.Wanted(max_drop, metric, points, parse_declared(samples or [], "--samples"))
    given = inputs_.inputs(
        model, data, training, evaluation, spec, sparsity, criterion, rewind_to, wanted
    )
    target = out or Path(f"{model.resolve().name if model.is_dir() else model.stem}-pruned")
    inputs_.check_target(given, target, force)
    console = stderr()
    missed: SecateurError | None
    if local:
        try:
            written, missed = run_local(given, target, force, console)
        except KeyboardInterrupt:
            leave_at_the_next()
            console.print("Interrupted.")
            raise typer.Exit(CANCELLED) from None
    else:
        written, missed = _on_service(given, target, force, name)
    report = json_.loads((target / "report.json").read_text("utf-8"))
    print_result(report, written, gates=missed is None)
    if open_:
        webbrowser.open((target / "report.html").resolve().as_uri())
    if missed is not None:
        print_error(missed)
        raise typer.Exit(REJECTED)


def _on_service(
    given: inputs_.Inputs, target: Path, force: bool, name: str | None
) -> tuple[list[Path], SecateurError | None]:
    console = stderr()
    try:
        with client() as service:
            model, data, earlier = upload(service, given, console)
            job = service.submit(model, data, given.spec, name=name, rewind_to=earlier)
            console.print(Text.assemble("Job ", (job.id, "cyan")), soft_wrap=True)
            job = follow_or_cancel(service, job, console)
            if job.state in ("failed", "cancelled"):
                print_error(
                    job.failure or SecateurError(job.state, f"The job {job.id} {job.state}.")
                )
                raise typer.Exit(EXIT_OF_STATE[job.state])
            missed = None
            if job.state == "rejected":
                missed = job.failure or SecateurError("gate_missed", "The result misses a gate.")
            names = under_name(job.artifacts, given.model)
            try:
                inputs_.check_names(given, target, [name for _, name in names], force)
            except typer.BadParameter as error:
                error.message += f" (`secateur jobs download {job.id}` has the result)"
                raise
            return unfolded(download(service, job, names, target, console), given.model), missed
    except KeyboardInterrupt:
        leave_at_the_next()
        raise typer.Exit(CANCELLED) from None


def plan(
    model: ModelFile,
    data: Data,
    training: Training = None,
    evaluation: Evaluation = None,
    spec: SpecFile = None,
    sparsity: Sparsity = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    points: Points = None,
    criterion: Criterion = None,
    rewind_to: RewindTo = None,
    samples: Samples = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what `prune` would do and cost, or why it can't, without running it."""
    wanted = inputs_.Wanted(max_drop, metric, points, parse_declared(samples or [], "--samples"))
    given = inputs_.inputs(
        model, data, training, evaluation, spec, sparsity, criterion, rewind_to, wanted
    )
    with client() as service:
        uploaded, datasets, earlier = upload(service, given, stderr())
        found = service.plan(uploaded, datasets, given.spec, rewind_to=earlier)
    if json:
        print_json(found)
        return
    cost = found.get("cost") or {}
    scope = ScopeSection.model_validate(found["scope"]) if found.get("scope") else None
    print_fields(
        {
            "in scope": in_scope(scope) if scope else f"{found['weights_in_scope']:,} weights",
            "removed": _removed(found, given.spec),
            "left out": "\n".join(left_out(scope)) or None,
            "runs": found["runs"] if found.get("runs", 1) > 1 else None,
            "inverse": found.get("inverse"),
            "scoring memory": size(cost.get("bytes")),
            "scoring work": operations(cost.get("flops")),
            "evaluation": (found.get("evaluation") or "").replace("_", " "),
        }
    )
    for warning in found.get("warnings", []):
        console = stderr()
        message = str(warning.get("message", warning))
        if warning.get("code") == "nothing_removed":
            asked = (given.spec.get("target") or {}).get("sparsity", 0)
            message = (
                f"Nothing would be removed: a sparsity of {asked:g} is less than one of the "
                f"{found['weights_in_scope']:,} weights."
            )
        text = Text.assemble(("warning ", "yellow"), message)
        console.print(text, soft_wrap=not console.is_terminal)


def _removed(found: dict[str, Any], spec: dict[str, Any]) -> str:
    about = {"max_drop": "at most ", "bytes": "about ", "flops": "about "}
    words = next((about[kind] for kind in spec.get("target") or {} if kind in about), "")
    return f"{words}{found['remove']:,} weights"

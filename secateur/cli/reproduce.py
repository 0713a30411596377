"""`secateur reproduce`: a job run again from its manifest, its digests compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from secateur.cli.interrupt import leave_at_the_next
from secateur.cli.options import CANCELLED, FAILED
from secateur.cli.output import (
    EXIT_OF_STATE,
    client,
    print_error,
    print_json,
    print_table,
    stderr,
    stdout,
)
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from pruning.manifest import Comparison, Input, Manifest
    from secateur.client import Client
    from secateur.resources import Dataset, Job, Model

_SHOWN = 12
"""Characters of a digest in the table."""


def _file(help: str, *names: str) -> Any:
    return typer.Option(*names, exists=True, readable=True, help=f"With --local: {help}")


def reproduce(
    target: Annotated[
        str, typer.Argument(metavar="ID", help="A finished job; with --local its manifest.json.")
    ],
    local: Annotated[
        bool, typer.Option("--local", help="In this process, without a service.")
    ] = False,
    model: Annotated[Path | None, _file("the model.")] = None,
    data: Annotated[Path | None, _file("the calibration data.", "--data")] = None,
    training: Annotated[Path | None, _file("the training data.")] = None,
    evaluation: Annotated[Path | None, _file("the evaluation data.")] = None,
    rewind_to: Annotated[Path | None, _file("the earlier checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the new files; else none.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Run a finished job again and compare what comes out, digest by digest.

    Exit code: 0 everything is the same, 1 something differs or the job failed, 2 usage.
    """
    # The help does without these.
    from pruning.manifest import compare
    from secateur.cli.remote import download
    from secateur.cli.reproduce_local import again, check_given, read_manifest

    given = {
        "model": model,
        "rewind_to": rewind_to,
        "calibration": data,
        "training": training,
        "evaluation": evaluation,
    }
    files = {role: path for role, path in given.items() if path is not None}
    said: dict[str, Any] = {}
    try:
        if local:
            before = read_manifest(Path(target))
            check_given(before, files)
            _check_free(before, out)
            after = again(before, files, out, stderr())
        else:
            if files:
                raise typer.BadParameter("files are for --local", param_hint=next(iter(files)))
            with client() as service:
                job = service.job(target)
                before = service.manifest(job)
                _check_inputs(service, job, before)
                _check_free(before, out)
                new = _follow(service, service.retry(job))
                after = service.manifest(new)
                said = {"job": job.id, "again": new.id}
                if out is not None:
                    names = [(artifact, artifact.name) for artifact in new.artifacts]
                    download(service, new, names, out, stderr())
    except KeyboardInterrupt:
        leave_at_the_next()
        stderr().print("Interrupted.")
        raise typer.Exit(CANCELLED) from None
    found = compare(before, after)
    if json:
        print_json(said | {"same": found.same} | found.model_dump(mode="json"))
    else:
        _print(found)
    if not found.same:
        raise typer.Exit(FAILED)


def _check_inputs(service: "Client", job: "Job", manifest: "Manifest") -> None:
    """Refuses where what the job was made of is gone or is something else.

    Raises:
        SecateurError: `not_found` or `digest_mismatch`, with the role.
    """
    ids = {"model": job.model, "rewind_to": job.rewind_to, **job.data}
    for part in manifest.inputs:
        found = _input(service, part, ids.get(part.role))
        if part.sha256 is not None and found.sha256 != part.sha256:
            raise SecateurError(
                "digest_mismatch",
                f"{part.name} ({part.role}) is not what the job was run with: its digest is "
                f"{found.sha256}, the manifest says {part.sha256}.",
                where=part.role,
                hint=f"Upload the file with that digest, and run `secateur prune` with the spec "
                f"of job {job.id}.",
            )


def _input(service: "Client", part: "Input", id: str | None) -> "Model | Dataset":
    try:
        if id is None:
            raise SecateurError("not_found", "The job does not name it any more.")
        uploaded = part.role in ("model", "rewind_to")
        return service.model(id) if uploaded else service.dataset(id)
    except SecateurError as error:
        if error.code != "not_found":
            raise
        raise SecateurError(
            "not_found",
            f"{part.name} ({part.role}) is not on the service any more.",
            where=part.role,
            hint="With the files at hand: `secateur jobs download ID`, then `secateur reproduce "
            "--local manifest.json --model ... --data ...`.",
        ) from None


def _check_free(manifest: "Manifest", out: Path | None) -> None:
    """Refuses to overwrite anything.

    Raises:
        typer.BadParameter: Exit code 2.
    """
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is a file", param_hint="--out")
    for name in [*(output.name for output in manifest.outputs), "manifest.json"]:
        if (out / Path(name).name).exists():
            raise typer.BadParameter(
                f"{out / name} exists; choose another folder", param_hint="--out"
            )


def _follow(service: "Client", job: "Job") -> "Job":
    from secateur.cli.remote import follow_or_cancel

    console = stderr()
    console.print(Text.assemble("Job ", (job.id, "cyan")), soft_wrap=True)
    job = follow_or_cancel(service, job, console)
    if job.state in ("failed", "cancelled"):
        print_error(job.failure or SecateurError(job.state, f"The job {job.id} {job.state}."))
        raise typer.Exit(EXIT_OF_STATE[job.state])
    return job


def _print(found: "Comparison") -> None:
    rows = [
        [o.name, o.result, (o.before or "")[:_SHOWN], (o.after or "")[:_SHOWN]]
        for o in found.outputs
    ]
    print_table(["output", "result", "before", "after"], rows, "Nothing was delivered.")
    console = stdout()
    if found.same:
        count = sum(o.result == "same" for o in found.outputs)
        console.print(f"Reproduced: {count} of {count} digests are the same.", soft_wrap=True)
        return
    console.print("Not reproduced.", soft_wrap=True)
    for name, (before, after) in found.changed.items():
        if name == "spec":
            before = after = None
        text = f"{name}: {before or 'none'} before, {after or 'none'} now"
        if before is after is None:
            text = f"{name} is not the same"
        console.print(text, soft_wrap=True, markup=False)
    if not found.changed:
        console.print(
            "Versions, threads, device and inputs are recorded as the same.", soft_wrap=True
        )

"""`secateur jobs`: list, show, follow, cancel, retry, report, download, delete.

What only some of them need is imported by those, since a list shall be there at once.
"""

import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.lazy import Group
from secateur.cli.output import (
    EXIT_OF_STATE,
    client,
    print_error,
    print_fields,
    print_json,
    print_table,
    size,
    stderr,
    stdout,
)
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from secateur.resources import Job, Progress

app = typer.Typer(cls=Group, help="Jobs.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def _details(job: "Job") -> dict[str, Any]:
    progress = job.progress
    spec = job.spec
    fields: dict[str, Any] = {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "phase": None if job.finished else job.phase,
        "progress": None if job.finished or progress is None else _progress(progress),
        "attempt": job.attempt,
        "model": job.model,
        "rewind to": job.rewind_to,
    }
    fields |= job.data
    sparsity, other = _target(spec)
    fields |= {
        "criterion": (spec.get("criterion") or {}).get("kind"),
        "sparsity": sparsity,
        "target": other,
        "recovery": (spec.get("recovery") or {}).get("kind"),
        "retry of": job.retry_of,
        "created": job.created_at,
        "finished": job.finished_at,
        "artifacts": ", ".join(f"{a.name} ({size(a.bytes)})" for a in job.artifacts),
    }
    return fields


def _progress(progress: "Progress") -> str | None:
    """How far the job is, or its phase where that is all that is known."""
    if progress.fraction is not None:
        from secateur.cli.bar import told

        return told(progress.fraction, progress.elapsed_seconds, progress.eta_seconds)
    if progress.total and progress.done is not None:
        return f"{progress.done:g} of {progress.total:g}"
    return None


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    json: Json = False,
) -> None:
    """List the jobs, newest first."""
    with client() as service:
        jobs = list(service.jobs(state))
    if json:
        print_json(jobs)
        return
    columns = ["id", "state", "criterion", "sparsity", "created", "name"]
    rows = [
        [job.id, job.state, *_method(job), job.created_at, "" if job.name is None else job.name]
        for job in jobs
    ]
    if stdout().is_terminal:
        # One column for both, so that a line of 80 has room for a name.
        columns[2:4] = ["criterion"]
        for row in rows:
            kind, sparsity = row[2:4]
            # Of another target, what it is counted in: `jobs show` has the number.
            words = str(sparsity).partition(" ")
            share = f"{sparsity:.4g}" if isinstance(sparsity, float | int) else words[0]
            row[2:4] = [f"{kind or ''} {share}".strip()]
    print_table(columns, rows, "No jobs yet.")


def _method(job: "Job") -> tuple[Any, Any]:
    """Criterion, and the sparsity or what else is the target."""
    sparsity, other = _target(job.spec)
    kind = (job.spec.get("criterion") or {}).get("kind")
    return kind, other or "" if sparsity is None else sparsity


def _target(spec: dict[str, Any]) -> tuple[float | None, str | None]:
    """The sparsity asked for; where the target is something else, that in a few words."""
    target = {k: v for k, v in (spec.get("target") or {}).items() if v is not None}
    for kind, value in target.items():
        if kind == "sparsity":
            return value, None
        if isinstance(value, dict):
            return None, f"drop {value.get('drop', 0):g} of {value.get('metric', 'accuracy')}"
        return None, f"{kind} {value:,}"
    return None, None


@app.command()
def show(id: str, json: Json = False) -> None:
    """Show one job."""
    with client() as service:
        job = service.job(id)
    if json:
        print_json(job)
        return
    print_fields(_details(job))
    if job.failure is not None:
        print_error(job.failure)


@app.command()
def wait(id: str, json: Json = False) -> None:
    """Follow a job to its end; the exit code is that of `prune`. Ctrl-C leaves the job running."""
    with client() as service:
        job = service.job(id)
        from secateur.cli.remote import follow
        from secateur.cli.result import print_result

        if not job.finished:
            job = follow(service, job, stderr())
        if json:
            print_json(job)
        elif job.state in ("succeeded", "rejected"):
            print_result(service.report(job), gates=job.failure is None)
    if job.failure is not None:
        print_error(job.failure)
    raise typer.Exit(EXIT_OF_STATE[job.state])


@app.command()
def cancel(id: str, json: Json = False) -> None:
    """Cancel a job and wait until its process is gone."""
    with client() as service:
        service.cancel(id)
        job = service.wait(id, timeout=60)
    if json:
        print_json(job)
    else:
        stdout().print(f"{job.id} {job.state}", soft_wrap=True)


@app.command()
def retry(id: str, json: Json = False) -> None:
    """Submit a job again, as a new one."""
    with client() as service:
        job = service.retry(id)
    if json:
        print_json(job)
    else:
        stdout().print(job.id, soft_wrap=True)


@app.command()
def events(
    id: str,
    follow: Annotated[bool, typer.Option(help="Wait for what is still to come.")] = True,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the events of a job, and follow them while it runs."""
    from secateur.cli.follow import JobDisplay

    with client() as service:
        stream = service.events(id, follow=follow)
        if json:
            for event in stream:
                line = {"seq": event.seq, "at": event.at} | event.event.model_dump()
                print(_line(line), flush=True)
            return
        with JobDisplay(stderr(), service.job(id).spec) as display:
            for event in stream:
                display.handle(event.event)


def _line(values: dict[str, Any]) -> str:
    import json as json_

    return json_.dumps(values, default=str, ensure_ascii=False)


@app.command()
def report(
    id: str,
    json: Json = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Download report.html and show it in a browser.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html (default with --open: a temporary one)."),
    ] = None,
) -> None:
    """Print a job's result; with --json the whole report."""
    if open_ or out is not None:
        _page(id, out, open_)
        return
    with client() as service:
        found = service.report(id)
    if json:
        print_json(found)
        return
    from secateur.cli.result import print_result

    print_result(found)


def _page(id: str, out: Path | None, show: bool) -> None:
    """Fetches report.html, prints where it lies and opens it where there is a browser."""
    with client() as service:
        job = service.job(id)
        page = next((a for a in job.artifacts if a.name == "report.html"), None)
        if page is None:
            raise SecateurError(
                "not_found",
                f"The job {id} has no report: it is {job.state}.",
                where=id,
                hint="A report is written once a job has succeeded or missed a gate.",
            )
        folder = out or Path(tempfile.mkdtemp(prefix="secateur-report-"))
        path = service.fetch(job, page, folder)
    stdout().print(str(path), soft_wrap=True)
    if show and not webbrowser.open(path.resolve().as_uri()):
        stderr().print("No browser could be started here; open the file yourself.")


@app.command()
def download(
    id: str,
    out: Annotated[Path, typer.Option(help="Folder.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Download a job's files."""
    from secateur.cli.remote import download as fetch_all
    from secateur.cli.remote import under_name

    with client() as service:
        job = service.job(id)
        for artifact in job.artifacts:
            if (out / artifact.name).exists() and not force:
                raise typer.BadParameter(
                    f"{out / artifact.name} exists; --force overwrites it", param_hint="--out"
                )
        for path in fetch_all(service, job, under_name(job.artifacts, None), out, stderr()):
            stdout().print(str(path), soft_wrap=True)


@app.command()
def delete(ids: list[str]) -> None:
    """Delete finished jobs with their files."""
    with client() as service:
        for id in ids:
            service.delete_job(id)
            stdout().print(f"Deleted job {id}.", soft_wrap=True)

"""What `secateur prune` and `secateur plan` do, once their options are known.

What prints a result is imported when there is one: that nobody answers is said before.
"""

import json as json_
import webbrowser
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from secateur.cli.inputs import Inputs, check_names, check_target
from secateur.cli.interrupt import leave_at_the_next
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
from secateur.errors import SecateurError


def run(
    given: Inputs, target: Path, *, local: bool, name: str | None, force: bool, show: bool
) -> None:
    """Prunes, and prints the result.

    Args:
        given: What, with what, how.
        target: Folder of the result.
        local: In this process, without a service.
        name: The job's name on the service.
        force: Whether an earlier result is overwritten.
        show: Whether the page is opened in a browser.

    Raises:
        typer.Exit: With the exit code, unless that is 0.
        SecateurError: Why there is no result.
    """
    check_target(given, target, force)
    console = stderr()
    missed: SecateurError | None
    if local:
        from secateur.cli.local import run_local

        try:
            written, missed = run_local(given, target, force, console)
        except KeyboardInterrupt:
            leave_at_the_next()
            console.print("Interrupted.")
            raise typer.Exit(CANCELLED) from None
    else:
        written, missed = _on_service(given, target, force, name)
    from secateur.cli.result import print_result

    report = json_.loads((target / "report.json").read_text("utf-8"))
    print_result(report, written, gates=missed is None)
    if show:
        webbrowser.open((target / "report.html").resolve().as_uri())
    if missed is not None:
        print_error(missed)
        raise typer.Exit(REJECTED)


def _on_service(
    given: Inputs, target: Path, force: bool, name: str | None
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
                check_names(given, target, [name for _, name in names], force)
            except typer.BadParameter as error:
                error.message += f" (`secateur jobs download {job.id}` has the result)"
                raise
            return unfolded(download(service, job, names, target, console), given.model), missed
    except KeyboardInterrupt:
        leave_at_the_next()
        raise typer.Exit(CANCELLED) from None


def print_plan(given: Inputs, *, json: bool) -> None:
    """Prints what `run` would do and cost.

    Args:
        given: What, with what, how.
        json: As JSON.

    Raises:
        SecateurError: Why it can't be done.
    """
    with client() as service:
        uploaded, datasets, earlier = upload(service, given, stderr())
        found = service.plan(uploaded, datasets, given.spec, rewind_to=earlier)
    if json:
        print_json(found)
        return
    from pruning.report.scope import ScopeSection
    from pruning.report.scope_words import in_scope, left_out

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

"""The commands and their common options."""

from typing import Annotated

import typer

from secateur.cli.lazy import Place, lazy_group
from secateur.cli.options import state

COMMANDS = {
    "up": Place("up", "up", "Run the whole service on this machine until Ctrl-C."),
    "prune": Place(
        "prune",
        "prune",
        "Prune MODEL and put the result, with its report, into a folder.",
    ),
    "plan": Place(
        "prune",
        "plan",
        "Say what `prune` would do and cost, or why it can't, without running it.",
    ),
    "models": Place("uploads", "models", "Uploaded models."),
    "datasets": Place("uploads", "datasets", "Uploaded datasets."),
    "jobs": Place("jobs", "app", "Jobs."),
    "report": Place("report", "app", "Reports of jobs."),
    "export": Place(
        "export",
        "export",
        "Write a network of your own code as architecture.json and model.safetensors.",
    ),
    "criteria": Place(
        "criteria",
        "criteria",
        "List the criteria and compensations of this version, with formulas and papers.",
    ),
    "unpack": Place(
        "unpack",
        "unpack",
        "Restore the model from FILE.sparse.safetensors, bit for bit.",
    ),
    "reproduce": Place(
        "reproduce",
        "reproduce",
        "Run a finished job again and compare what comes out, digest by digest.",
    ),
}
"""Their help is the first line of what the module says; a test holds the two together."""

app = typer.Typer(
    name="secateur",
    cls=lazy_group(COMMANDS),
    help="Prune trained networks, with the truth about what it cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _answer(wanted: bool) -> None:
    if wanted:
        from secateur import __version__

        print(f"secateur {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    url: Annotated[
        str | None,
        typer.Option(help="The service; defaults to the one that `secateur up` started last."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_answer),
    ] = False,
) -> None:
    state.url, state.debug = url, debug


@app.command()
def version() -> None:
    """Print the version."""
    _answer(True)

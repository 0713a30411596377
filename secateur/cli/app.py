"""The commands and their common options."""

from typing import Annotated

import typer

from secateur import __version__
from secateur.cli import jobs, report, uploads
from secateur.cli.criteria import criteria
from secateur.cli.export import export
from secateur.cli.output import state
from secateur.cli.prune import plan, prune
from secateur.cli.reproduce import reproduce
from secateur.cli.unpack import unpack
from secateur.cli.up import up

app = typer.Typer(
    name="secateur",
    help="Prune trained networks, with the truth about what it cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _answer(wanted: bool) -> None:
    if wanted:
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


app.command()(up)
app.command()(prune)
app.command()(plan)
app.add_typer(uploads.models, name="models")
app.add_typer(uploads.datasets, name="datasets")
app.add_typer(jobs.app, name="jobs")
app.add_typer(report.app, name="report")
app.command()(export)
app.command()(criteria)
app.command()(unpack)
app.command()(reproduce)

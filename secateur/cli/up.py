"""`secateur up`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from secateur.cli.output import stdout


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Database, blobs, logs; defaults to SECATEUR_DATA_DIR or ~/.secateur.",
            file_okay=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address (default 127.0.0.1).")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port (default 8080); 0 takes a free one.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that run side by side.")] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", help="Logs to the terminal.")] = False,
) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    from secateur import __version__
    from secateur.up import Options, Ready
    from secateur.up import up as run

    def announce(ready: Ready) -> None:
        console = stdout()
        console.print(
            Text.assemble(
                (f"Secateur {__version__} is ready", "bold green"), f" ({ready.seconds:.1f} s)"
            )
        )
        lines = {
            "URL": f"{ready.url}  (API: {ready.url}/docs)",
            "Data": str(ready.data_dir),
            "Logs": str(ready.logs) if ready.logs else "this terminal",
            "API key": f"in {ready.credentials}, where `secateur` finds it",
            "Try": "secateur prune MODEL.onnx --data DATA.npz --sparsity 0.8",
        }
        for name, value in lines.items():
            console.print(Text.assemble((f"  {name:<8}", "dim"), value), soft_wrap=True)
        console.print("Ctrl-C stops it.", style="dim")

    run(Options(data_dir, host, port, workers, verbose), announce)
    stdout().print("Stopped.", style="dim")

"""`secateur criteria`: what a spec can name."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from secateur.cli.output import print_json, stdout


def criteria(
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """List the criteria and compensations of this version, with formulas and papers."""
    from pruning import catalogue

    kinds = {
        "criteria": [catalogue.describe(k, d) for k, d in catalogue.criteria().items()],
        "compensations": [catalogue.describe(k, d) for k, d in catalogue.compensations().items()],
    }
    if json:
        print_json(kinds)
        return
    console = stdout()
    for title, entries in kinds.items():
        console.print(title.capitalize(), style="bold")
        for entry in entries:
            _print_entry(console, entry)


def _print_entry(console: Console, entry: dict[str, object]) -> None:
    console.print(Text.assemble("  ", (str(entry["kind"]), "cyan"), f"  {entry['title']}"))
    parameters = entry["parameters"]
    names = parameters.get("properties", {}) if isinstance(parameters, dict) else {}
    lines = {
        "": entry["summary"],
        "formula": entry["formula"],
        "paper": entry["paper"],
        "parameters": ", ".join(n for n in names if n != "kind"),
    }
    for name, value in lines.items():
        if value:
            label = f"{name}: " if name else ""
            for line in Text(f"{label}{value}", style="dim" if name else "").wrap(
                console, max(20, console.width - 6)
            ):
                console.print(Text("      ").append_text(line), soft_wrap=True)

"""What the command line prints: results on stdout, progress and errors on stderr."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from secateur.cli.options import CANCELLED, FAILED, REJECTED, SUCCEEDED, state
from secateur.config import credentials_path
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from secateur.client import Client

EXIT_OF_STATE = {
    "succeeded": SUCCEEDED,
    "rejected": REJECTED,
    "failed": FAILED,
    "cancelled": CANCELLED,
}

_STATE_STYLE = {
    "succeeded": "green",
    "ready": "green",
    "rejected": "yellow",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "checking": "cyan",
}


def stdout() -> Console:
    """Results."""
    return Console(highlight=False, soft_wrap=False)


def stderr() -> Console:
    """Progress and errors."""
    return Console(stderr=True, highlight=False)


def client() -> "Client":
    """A client of the service that the options and the environment name."""
    from secateur.client import Client

    return Client(state.url)


def print_error(error: SecateurError) -> None:
    """One block: code, message, place, advice."""
    console = stderr()
    console.print(Text.assemble(("error", "bold red"), " ", (error.code, "bold")))
    _indented(console, error.message)
    errors = error.details.get("errors")
    if isinstance(errors, list) and len(errors) > 1:
        for item in errors[:10]:
            _indented(console, f"- {item.get('where')}: {item.get('message')}")
    elif error.where and error.where not in error.message:
        _indented(console, f"where: {error.where}")
    hint = error.hint if error.code != "unauthenticated" else _key_hint()
    if hint:
        _indented(console, f"hint:  {hint}", "cyan")
    if error.details.get("log"):
        _indented(console, error.details["log"], "dim")


def _key_hint() -> str:
    """The service speaks of headers; who types commands has a file and a variable."""
    return (
        f"`secateur up` writes a key for its own service to {credentials_path()}, where "
        "`secateur` finds it; for another service set SECATEUR_URL and SECATEUR_API_KEY."
    )


def _indented(console: Console, text: str, style: str = "") -> None:
    # Not wrapped by us where nobody looks: a log wants whole lines.
    width = console.width - 2 if console.is_terminal else 10_000
    for line in text.splitlines():
        for part in Text(line, style=style).wrap(console, max(width, 20)):
            console.print(Text("  ").append_text(part), soft_wrap=True)


def print_json(value: Any) -> None:
    """JSON and nothing else on stdout."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif isinstance(value, list):
        value = [v.model_dump(mode="json") if isinstance(v, BaseModel) else v for v in value]
    print(json.dumps(value, indent=2, ensure_ascii=False))


_LEAST_NAME = 7
"""Columns that a name keeps where the terminal is narrow."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """A list of resources, in which nothing is cut.

    Outside a terminal tabs separate the columns; one that is too narrow for them gets two lines for
    each resource.
    """
    console = stdout()
    cells = [[_cell(value) for value in row] for row in rows]
    if not console.is_terminal:
        print("\t".join(columns))
        for row in cells:
            print("\t".join(cell.plain for cell in row))
        return
    if not cells:
        console.print(empty, style="dim")
        return
    widest = [
        max(len(name), *(row[index].cell_len for row in cells))
        for index, name in enumerate(columns)
    ]
    if "created" in columns and sum(widest) + 2 * len(widest) > console.width:
        # The year goes first.
        index = columns.index("created")
        for row in cells:
            row[index] = row[index][5:]
        widest[index] = max(len("created"), *(row[index].cell_len for row in cells))
    least = [
        min(w, _LEAST_NAME) if name == "name" else w
        for name, w in zip(columns, widest, strict=True)
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(
            name,
            justify="right" if name == "size" else "left",
            # Only names give way where the terminal is narrow, and none is cut.
            no_wrap=name != "name",
            overflow="fold",
            min_width=least[index],
        )
    for row in cells:
        table.add_row(*row)
    # Between two columns lie two spaces, and one at the left.
    if sum(least) + 2 * (len(least) - 1) + 1 <= console.width:
        console.print(table)
        return
    for row in cells:
        console.print(Text("  ").join(row[:2]))
        more = Text("  ").join(cell for cell in row[2:] if cell.plain)
        console.print(Padding(more, (0, 0, 0, 2)))


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        return Text(value.astimezone().strftime("%Y-%m-%d %H:%M"))
    return state_text(value) if value in _STATE_STYLE else Text(str(value))


def state_text(value: str) -> Text:
    """A state in its colour."""
    return Text(value, style=_STATE_STYLE.get(value, ""))


def print_fields(fields: dict[str, Any]) -> None:
    """One resource, field by field; what has no value is left out."""
    print_pairs(stdout(), {k: v for k, v in fields.items() if v not in (None, "", [], {})})


def print_pairs(console: Console, pairs: dict[str, Any]) -> None:
    """Names and values; a terminal wraps a value below itself, elsewhere no line is broken."""
    if console.is_terminal:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs.items():
            grid.add_row(name, _cell(value))
        console.print(grid)
        return
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        lines = _cell(value).plain.splitlines()
        for index, line in enumerate(lines):
            label = name if index == 0 else ""
            console.print(Text(f"{label:<{width}}  {line}"), soft_wrap=True)


def operations(count: float | None) -> str:
    """Floating-point operations for people."""
    if not count:
        return ""
    value, units = float(count), ["", "k", "M", "G", "T", "P"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}FLOP"


def size(count: int | None) -> str:
    """Bytes for people: binary units."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"

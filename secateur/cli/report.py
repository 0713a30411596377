"""`secateur report`: what two jobs' reports say of each other."""

import json as json_
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pruning.report.diff import LARGEST, diff
from pruning.report.numbers import SHARES, asked, number, points, ratio, share
from secateur.cli.lazy import Group
from secateur.cli.output import client, print_json, size, stdout

_LOSSES = {
    "dense": "loss, dense",
    "pruned": "loss, pruned",
    "recovered": "loss, recovered",
    "predicted_increase": "predicted increase",
    "measured_increase": "measured increase",
}
_SIZES = {
    "uploaded_bytes": "uploaded file",
    "pruned_bytes": "pruned file",
    "uploaded_gzip_bytes": "uploaded, gzipped",
    "pruned_gzip_bytes": "pruned, gzipped",
    "masks_bytes": "masks",
    "sparse_bytes": "sparse file",
}

app = typer.Typer(cls=Group, help="Reports of jobs.", no_args_is_help=True)


@app.callback()
def _reports() -> None:
    """Keeps `diff` a sub-command."""


@app.command("diff")
def diff_(
    a: Annotated[str, typer.Argument(metavar="A", help="Job id, report.json, or its folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, of the other job.")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say in what two jobs differ: spec, sparsity, metrics, sizes, time, layers, checks.

    Differences are those of B minus those of A. Exit code: 0, whether or not they differ.
    """
    first, second = _read(a), _read(b)
    found = diff(first, second)
    if json:
        print_json(found)
    else:
        print_diff((a, first), (b, second), found)


def _read(source: str) -> dict[str, Any]:
    """A report from a file, a folder or the service.

    Raises:
        typer.BadParameter: For a file that is not there or no report.
        SecateurError: What the service answers.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "report.json"
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise typer.BadParameter(f"{path} does not exist")
        with client() as service:
            return service.report(source)
    try:
        found = json_.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(found, dict) or not {"sparsity", "loss", "metrics"} <= found.keys():
        raise typer.BadParameter(f"{path} is no report of a pruning job")
    return found


def print_diff(
    a: tuple[str, dict[str, Any]], b: tuple[str, dict[str, Any]], found: dict[str, Any]
) -> None:
    """The differences as tables that fit 80 columns.

    Args:
        a: What the user called the first report, and the report.
        b: The same of the second.
        found: What `diff` found.
    """
    console = stdout()
    for letter, (name, report) in (("A", a), ("B", b)):
        line = Text.assemble((letter, "bold"), f"  {name}: {_described(report)}")
        console.print(line, soft_wrap=True)
    if not found["same_model"]:
        console.print("The models are not known to be the same file.", style="yellow")
    sections: list[tuple[str, list[str], list[list[str]]]] = [
        ("Spec", ["field", "A", "B"], _values(found["spec"])),
        ("Inputs", ["field", "A", "B"], _values(found["inputs"])),
        ("Result", ["", "A", "B", "B - A", ""], _results(found)),
        ("Sparsity by layer", ["layer", "A", "B", "B - A"], _layers(found["layers"])),
        ("Checks", ["check", "A", "B"], _values(found["checks"])),
        ("Environment", ["", "A", "B"], _values(found["environment"])),
    ]
    for title, columns, rows in sections:
        if rows:
            console.print()
            console.print(title, style="bold")
            _table(console, columns, rows)
    notes = _notes(found)
    if notes:
        console.print()
    for note in notes:
        console.print(note, soft_wrap=not console.is_terminal)


def _described(report: dict[str, Any]) -> str:
    model = (report.get("model") or {}).get("name") or "a module"
    kind = ((report.get("spec") or {}).get("criterion") or {}).get("kind", "?")
    return f"{model}, {kind}, {share(report['sparsity'].get('achieved', 0))} removed"


def _values(differences: list[dict[str, Any]]) -> list[list[str]]:
    return [[x["name"], _value(x["a"]), _value(x["b"])] for x in differences]


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return asked(value)
    if isinstance(value, str):
        # Of a digest the beginning tells it from others.
        return f"{value[:12]}…" if len(value) == 64 else value
    return json_.dumps(value, ensure_ascii=False)


def _results(found: dict[str, Any]) -> list[list[str]]:
    """What was measured; of losses, sizes and times only what differs."""
    rows = [
        ["sparsity", *_three(item, "share"), ""]
        for item in found["sparsity"]
        if item["name"] == "achieved"
    ]
    for item in found["metrics"]:
        unit = "share" if item["name"] in SHARES else "number"
        rows.append([item["name"], *_three(item, unit), _noise(item["exceeds_noise"])])
        drops = {"a": item["drop_a"], "b": item["drop_b"]}
        if None not in drops.values():
            gap = drops["b"] - drops["a"]
            unit = "points" if unit == "share" else unit
            rows.append(["  drop from dense", *_three(drops | {"difference": gap}, unit), ""])
    rows += [
        [_LOSSES[item["name"]], *_three(item, "number"), ""]
        for item in found["loss"]
        if item["a"] != item["b"]
    ]
    rows += [
        [_SIZES.get(item["name"], item["name"]), *_three(item, "bytes"), ""]
        for item in found["sizes"]
        if item["a"] != item["b"]
    ]
    latency = found["latency"]
    if latency:
        noise = _noise(latency["exceeds_noise"])
        rows.append(["time, ratio to dense", *_three(latency, "ratio"), noise])
    return rows


def _noise(exceeds: bool | None) -> str:
    return "" if exceeds is None else "beyond noise" if exceeds else "within noise"


def _three(item: dict[str, Any], unit: str) -> list[str]:
    shown = [_in_unit(item[key], unit) for key in ("a", "b")]
    gap = item["difference"]
    if gap is None:
        return [*shown, ""]
    if gap == 0:
        return [*shown, "="]
    sign = "+" if gap > 0 else "-"
    return [*shown, f"{sign}{_in_unit(abs(gap), 'points' if unit == 'share' else unit)}"]


def _in_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return _WRITTEN[unit](value)


_WRITTEN: dict[str, Callable[[float], str]] = {
    "share": share,
    "points": lambda value: points(SHARES[0], value),
    "ratio": ratio,
    "bytes": lambda value: size(int(value)),
    "number": number,
}
"""How a value is written, by its unit."""


def _layers(found: dict[str, Any]) -> list[list[str]]:
    return [[item["name"], *_three(item, "share")] for item in found["largest"]]


def _notes(found: dict[str, Any]) -> list[str]:
    notes = []
    compared = ("spec", "inputs", "loss", "sizes", "metrics", "sparsity", "checks")
    layers = found["layers"]
    if all(x.get("a") == x.get("b") for key in compared for x in found[key]):
        notes.append("Spec, inputs and results are the same.")
    if layers["changed"] > LARGEST:
        notes.append(
            f"{layers['changed']} of {layers['compared']} layers differ in sparsity; the "
            f"{LARGEST} that differ most are shown."
        )
    for key, which in (("only_a", "A"), ("only_b", "B")):
        if layers[key]:
            notes.append(f"Only {which} has {len(layers[key])} of its layers.")
    if any(m["exceeds_noise"] is not None for m in found["metrics"]):
        how = (
            "the intervals of the drops, both from the same model on the same samples"
            if found["same_model"] and found["same_evaluation_data"]
            else "the intervals of the metrics"
        )
        notes.append(f"Noise: by {how}.")
    return notes


def _table(console: Console, columns: Sequence[str], rows: list[list[str]]) -> None:
    """Aligned columns; in a terminal long values wrap, elsewhere no line is broken."""
    values = len(columns) == 3
    if not console.is_terminal:
        shown = [list(columns), *rows]
        widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
        for row in shown:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            console.print(Text(line.rstrip()), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for index, name in enumerate(columns):
        numeric = not values and 0 < index < 4
        table.add_column(name, justify="right" if numeric else "left", overflow="fold",
                         no_wrap=numeric)  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)

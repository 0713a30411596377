"""What a finished job came to, as a short table made from report.json."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from pruning.report.words import is_gate
from secateur.cli.output import print_pairs, size, stdout

TRUST_WIDTH = 64
"""Of 80 columns, what labels leave."""


def print_result(report: dict[str, Any], files: Iterable[Path] = (), *, gates: bool = True) -> None:
    """Sparsity, metrics and losses at each stage, sizes, and the files written.

    Args:
        report: report.json.
        files: What was written.
        gates: Whether to say why a gate was missed; not where an error says so already.
    """
    console = stdout()
    sparsity = report["sparsity"]
    console.print(
        Text.assemble(
            (f"{sparsity['achieved']:.2%}", "bold"),
            f" of the weights in scope removed ({sparsity['removed']:,} of {sparsity['total']:,})",
        ),
        soft_wrap=True,
    )
    if console.is_terminal:
        console.print(_stages(report))
    pairs = {} if console.is_terminal else _plain_stages(report)
    checks = report.get("checks") or []
    pairs |= {
        "loss increase": _increase(report),
        "sizes": _sizes(report.get("sizes") or {}),
        "checks": _checks([c for c in checks if c.get("group") != "trust"], gates),
        "trust": _trust(report, [c for c in checks if c.get("group") == "trust"]),
        "written": "\n".join(str(path) for path in files),
    }
    print_pairs(console, {name: value for name, value in pairs.items() if value})


def stages(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of (what, its value at dense, pruned, recovered); a stage that was not is empty."""
    names = ("dense", "pruned", "recovered")
    metrics, loss = report["metrics"], report["loss"]
    rows = []
    for metric in metrics["dense"]:
        values = [((metrics.get(n) or {}).get(metric) or {}).get("value") for n in names]
        rows.append((metric, ["" if v is None else f"{v:.2%}" for v in values]))
    rows.append(("loss", ["" if loss.get(n) is None else _number(loss[n]) for n in names]))
    return rows


def _stages(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("")
    recovered = report["loss"].get("recovered") is not None
    for name in ("dense", "pruned", "recovered")[: 3 if recovered else 2]:
        table.add_column(name, justify="right")
    for what, values in stages(report):
        table.add_row(what, *values[: 3 if recovered else 2])
    return table


def _plain_stages(report: dict[str, Any]) -> dict[str, str]:
    lines = {}
    for what, values in stages(report):
        named = zip(("dense", "pruned", "recovered"), values, strict=True)
        lines[what] = ", ".join(f"{name} {value}" for name, value in named if value)
    return lines


def _sizes(sizes: dict[str, Any]) -> str:
    lines = (
        {"uploaded_bytes": "uploaded", "pruned_bytes": "pruned", "pruned_gzip_bytes": "gzipped"},
        {"sparse_bytes": "sparse", "masks_bytes": "masks"},
    )
    shown = (
        ", ".join(f"{label} {size(sizes[k])}" for k, label in line.items() if sizes.get(k))
        for line in lines
    )
    return "\n".join(filter(None, shown))


def _checks(checks: list[dict[str, Any]], gates: bool) -> str:
    if not checks:
        return ""
    bad = [c for c in checks if c["status"] != "pass"]
    passed = len(checks) - len(bad)
    said = [c for c in bad if gates or not is_gate(c["name"])]
    lines = [f"{c['name']} {c['status']}: {c['message']}" for c in said]
    return "\n".join([f"{passed} of {len(checks)} passed", *lines])


def _trust(report: dict[str, Any], checks: list[dict[str, Any]]) -> str:
    """A few lines: the assumptions that do not hold, by name, and how far the quadratic model does.

    What they mean takes a paragraph each, which the report has.
    """
    lines = []
    if checks:
        names = [c["name"].removeprefix("trust.") for c in checks if c["status"] != "pass"]
        held = len(checks) - len(names)
        lines.append(f"{held} of {len(checks)} assumptions of the theory hold")
        lines += wrap(f"not: {', '.join(names)}", TRUST_WIDTH) if names else []
    ladder = (report.get("trust") or {}).get("ladder")
    if ladder:
        lines.append(
            f"one quadratic model holds up to {ladder['holds_up_to'] or 0.0:.1%} removed "
            "(see report.html)"
        )
    return "\n".join(lines)


def _increase(report: dict[str, Any]) -> str:
    loss, unknown = report["loss"], any(r.get("not_predicted") for r in report.get("rounds") or [])
    predicted = "not predicted" if unknown else f"predicted {_number(loss['predicted_increase'])}"
    return f"{predicted}, measured {_number(loss['measured_increase'])}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"

"""What a finished job came to, as a short table made from report.json."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur.cli.output import print_pairs, size, stdout


def print_result(report: dict[str, Any], files: Iterable[Path] = ()) -> None:
    """Sparsity, metrics and losses at each stage, sizes, and the files written."""
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
    else:
        _plain_stages(console, report)
    loss = report["loss"]
    pairs: dict[str, str] = {
        "loss increase": f"predicted {_number(loss['predicted_increase'])}, "
        f"measured {_number(loss['measured_increase'])}",
        "sizes": _sizes(report.get("sizes") or {}),
        "checks": _checks(report.get("checks") or []),
    }
    pairs["written"] = "\n".join(str(path) for path in files)
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


def _plain_stages(console: Console, report: dict[str, Any]) -> None:
    for what, values in stages(report):
        named = zip(("dense", "pruned", "recovered"), values, strict=True)
        text = ", ".join(f"{name} {value}" for name, value in named if value)
        console.print(Text(f"{what:<14}{text}"), soft_wrap=True)


def _sizes(sizes: dict[str, Any]) -> str:
    labels = {
        "uploaded_bytes": "uploaded",
        "pruned_bytes": "pruned",
        "pruned_gzip_bytes": "pruned, gzip",
        "bitmask_bytes": "bitmask",
        "masks_bytes": "masks",
    }
    return " · ".join(f"{label} {size(sizes[k])}" for k, label in labels.items() if sizes.get(k))


def _checks(checks: list[dict[str, Any]]) -> str:
    if not checks:
        return ""
    bad = [f"{c['name']} {c['status']}: {c['message']}" for c in checks if c["status"] != "pass"]
    passed = len(checks) - len(bad)
    return "; ".join([f"{passed} of {len(checks)} passed", *bad])


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"

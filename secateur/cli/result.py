"""What a finished job came to, as a short table made from report.json."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pruning.report import scope_words, verdict
from pruning.report.numbers import limit, metric, number, points, several, share
from pruning.report.schema import Report
from pruning.report.scope import ScopeSection
from pruning.report.speed import clause
from pruning.report.study import Latency
from pruning.report.words import is_gate
from secateur.cli.output import print_pairs, size, stdout

_ENDED = {
    "resolution": "the bracket is as narrow as asked for",
    "probes": "all are used up",
    "all_allowed": "all were allowed",
    "none_allowed": "none was allowed",
}

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
    _headline(console, report)
    sparsity, scope = report["sparsity"], _scope(report)
    of_all = scope_words.of_all(scope)
    console.print(
        Text.assemble(
            (share(sparsity["achieved"]), "bold"),
            f" of the weights in scope removed ({sparsity['removed']:,} of {sparsity['total']:,})",
            f", {of_all}" if of_all else "",
        ),
        soft_wrap=not console.is_terminal,
    )
    if console.is_terminal:
        console.print(_stages(report))
    pairs = {} if console.is_terminal else _plain_stages(report)
    timed = (report.get("latency") or {}).get("gate")
    checks = [*(report.get("checks") or []), *([timed] if timed else [])]
    pairs |= {
        "loss increase": _increase(report),
        "search": _search(report.get("search")),
        "curve": _curve(report.get("curve") or []),
        "sizes": _sizes(report.get("sizes") or {}),
        "latency": _latency(report.get("latency")),
        "checks": _checks([c for c in checks if c.get("group") != "trust"], gates),
        "compared": _compared(report.get("comparison")),
        "trust": _trust(report, [c for c in checks if c.get("group") == "trust"]),
        "left out": "\n".join(scope_words.left_out(scope)),
        "written": "\n".join(str(path) for path in files),
    }
    print_pairs(console, {name: value for name, value in pairs.items() if value})


def _scope(report: dict[str, Any]) -> ScopeSection | None:
    try:
        return ScopeSection.model_validate(report["scope"]) if report.get("scope") else None
    except ValidationError:
        return None  # of another version


_TONES = {"good": "green", "warn": "yellow", "bad": "red"}


def _headline(console: Console, report: dict[str, Any]) -> None:
    """The verdict of the page, in the same words and colour, and what stands beside it there."""
    try:
        whole = Report.model_validate(report)
    except ValidationError:
        return  # of another version, whose numbers follow all the same
    ended = verdict.outcome(whole)
    soft = not console.is_terminal
    told = Text(verdict.verdict(whole), style=_TONES[ended.tone])
    console.print(told, soft_wrap=soft)
    for text in (*verdict.beside(whole), *ended.notes):
        console.print(Text.assemble(("note ", "yellow"), text), soft_wrap=soft)


def stages(report: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of (what, its value at dense, pruned, recovered); a stage that was not is empty."""
    names = ("dense", "pruned", "recovered")
    metrics, loss = report["metrics"], report["loss"]
    rows = []
    for name in metrics["dense"]:
        values = [((metrics.get(n) or {}).get(name) or {}).get("value") for n in names]
        rows.append((name, ["" if v is None else metric(name, v) for v in values]))
    rows.append(("loss", ["" if loss.get(n) is None else number(loss[n]) for n in names]))
    return rows


def _stages(report: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("")
    recovered = report["loss"].get("recovered") is not None
    for name in ("dense", "pruned", "recovered")[: 3 if recovered else 2]:
        table.add_column(name, justify="right")
    drops = report["metrics"].get("drops") or {}
    if drops:
        table.add_column("drop", justify="right")
    for what, values in stages(report):
        drop = [_drop(what, drops[what])] if what in drops else [""] if drops else []
        table.add_row(what, *values[: 3 if recovered else 2], *drop)
    return table


def _plain_stages(report: dict[str, Any]) -> dict[str, str]:
    lines = {}
    drops = report["metrics"].get("drops") or {}
    for what, values in stages(report):
        named = zip(("dense", "pruned", "recovered"), values, strict=True)
        lines[what] = ", ".join(f"{name} {value}" for name, value in named if value)
        if what in drops:
            lines[what] += f"; drop {_drop(what, drops[what])}"
    return lines


def _drop(name: str, drop: dict[str, Any]) -> str:
    """How far a metric fell, with its interval; in points where it is a share."""
    if drop.get("value") is None:
        return "unknown"
    known = drop.get("low") is not None and drop.get("high") is not None
    text = points(name, drop["value"])
    if not known:
        return text
    low, high = (points(name, drop[key], unit=False) for key in ("low", "high"))
    return f"{text} ({low} to {high})"


def _search(search: dict[str, Any] | None) -> str:
    if not search:
        return ""
    name = search["metric"]
    refused = f", {share(search['high'])} refused" if search.get("high") is not None else ""
    ended = _ENDED.get(search["ended"], search["ended"])
    return (
        f"{share(search['low'])} accepted{refused}, for at most "
        f"{limit(name, search['allowed'])} of {name}\n{several(search['probes'], 'probe')}; {ended}"
    )


def _curve(curve: list[dict[str, Any]]) -> str:
    if len(curve) < 2:
        return ""
    ends = f"{share(curve[0]['sparsity'])} to {share(curve[-1]['sparsity'])}"
    kept = sum(1 for point in curve if point.get("artifact"))
    return (
        f"{len(curve)} points, {ends}; {kept} with their model"
        if kept
        else (f"{len(curve)} points, {ends}")
    )


def _latency(latency: dict[str, Any] | None) -> str:
    if not latency or latency.get("ratio") is None:
        return ""
    try:
        found = Latency.model_validate(latency)
    except ValidationError:
        return ""
    return f"{clause(found)}; {found.engine}, {several(found.threads, 'thread')}"


def _compared(comparison: dict[str, Any] | None) -> str:
    """One line for each criterion that was as good or better; one where none was."""
    if not comparison or not comparison.get("differences"):
        return ""
    lines = []
    for found in comparison["differences"]:
        if found["verdict"] in ("as_good", "worse"):
            how = "with" if found["recovered"] else "without"
            said = "was as good" if found["verdict"] == "as_good" else "was better"
            lines.append(f"{found['against']} {said} {how} recovery ({found['quantity']})")
    if lines:
        return "\n".join(lines)
    if all(found["verdict"] == "better" for found in comparison["differences"]):
        others = {found["against"]: None for found in comparison["differences"]}
        return f"better than {', '.join(others)}"
    return "not told apart: too few runs (see report.html)"


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
    said = [c for c in bad if gates or not (c.get("group") == "gate" or is_gate(c["name"]))]
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
        lines.append(f"{_reach(ladder['holds_up_to'])} (see report.html)")
    return "\n".join(lines)


def _reach(up_to: float | None) -> str:
    if not up_to:
        return "no quadratic model holds, however little is removed"
    return f"one quadratic model holds up to {share(up_to)} removed"


def _increase(report: dict[str, Any]) -> str:
    loss, unknown = report["loss"], any(r.get("not_predicted") for r in report.get("rounds") or [])
    predicted = "not predicted" if unknown else f"predicted {_finite(loss['predicted_increase'])}"
    return f"{predicted}, measured {_finite(loss['measured_increase'])}"


def _finite(value: float | None) -> str:
    return "not finite" if value is None else number(value)

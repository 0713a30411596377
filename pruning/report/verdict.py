"""The report in one sentence, and in a few figures."""

from dataclasses import dataclass

from pruning.report import words
from pruning.report.schema import Report

FASTER = 0.9
"""The ratio of latencies up to which the result is called faster, and its inverse slower."""


@dataclass(frozen=True)
class Fact:
    """A figure at the head of the page."""

    name: str
    value: str
    note: str = ""
    state: str = ""


def verdict(report: Report) -> str:
    """What was removed, what it cost, what was gained, and whether the gates hold."""
    sparsity = report.sparsity
    removed = (
        f"{words.title(report.spec.criterion.kind)} removed {words.share(sparsity.achieved)} of "
        "the weights"
    )
    parts = [removed, cost(report), gain(report)]
    return "; ".join(p for p in parts if p) + f", and {_gates(report)}."


def cost(report: Report) -> str:
    """What became of the metrics, or of the loss where there are none."""
    told = []
    final = report.metrics.final
    for name, drop in report.metrics.drops.items():
        reached = final[name].value if name in final else None
        text = f"{name} {words.change(name, drop)}"
        if reached is not None:
            text += f"{' at' if drop.value == 0 else ' to'} {words.metric(name, reached)}"
        if drop.low is not None and drop.high is not None:
            of = " of the drop" if drop.value == 0 else ""
            text += f" ({words.asked_share(drop.level)} interval{of} {words.span(name, drop)})"
        told.append(text)
    if told:
        return " and ".join(told)
    for name, dense in report.metrics.dense.items():
        if dense.value is not None and name in final:
            return (
                f"{name} went from {words.metric(name, dense.value)} to "
                f"{words.metric(name, final[name].value)}"
            )
    loss = report.loss
    last = loss.pruned if loss.recovered is None else loss.recovered
    return f"the calibration loss went from {words.number(loss.dense)} to {words.number(last)}"


def gain(report: Report) -> str:
    """Bytes and time won, in measured numbers; empty where nothing was measured."""
    told = []
    smaller = _smaller(report)
    if smaller is not None:
        told.append(f"the {smaller[0]} is {words.ratio(smaller[1])} times smaller than the upload")
    ratio = report.latency.ratio if report.latency else None
    if ratio:
        told.append(
            f"a run takes {ratio:.2f} times as long"
            if ratio <= FASTER or ratio >= 1 / FASTER
            else "a run is no faster"
        )
    return " and ".join(told)


def _smaller(report: Report) -> tuple[str, float] | None:
    """The file that saves most, and how many times it is smaller; None where none is."""
    sizes = report.sizes
    if sizes is None:
        return None
    known = {"sparse file": sizes.sparse_bytes, "pruned file": sizes.pruned_bytes}
    found = {name: value for name, value in known.items() if value}
    name = min(found, key=lambda n: found[n], default=None)
    if name is None or sizes.uploaded_bytes < 1.05 * found[name]:
        return None
    return name, sizes.uploaded_bytes / found[name]


def _gates(report: Report) -> str:
    gates = words.gates(report)
    missed = [c for c in gates if c.status == "fail"]
    if not gates:
        return "no gate was set"
    if not missed:
        return {1: "its gate holds", 2: "both gates hold"}.get(
            len(gates), f"all {len(gates)} gates hold"
        )
    if len(gates) == 1:
        return "its gate is missed"
    return f"{len(missed)} of {len(gates)} gates {'is' if len(missed) == 1 else 'are'} missed"


def rejected(report: Report) -> list[str]:
    """The messages of the gates that were missed."""
    return [c.message for c in words.gates(report) if c.status == "fail"]


def facts(report: Report) -> list[Fact]:
    """The figures at the head of the page, each only where it was measured."""
    sparsity = report.sparsity
    found = [
        Fact(
            "removed",
            words.share(sparsity.achieved),
            f"{words.count(sparsity.removed)} of {words.count(sparsity.total)} weights",
        )
    ]
    for name, drop in report.metrics.drops.items():
        reached = report.metrics.final.get(name)
        value, note = words.metric(name, reached.value if reached else None), ""
        if drop.value is not None and drop.low is not None and drop.high is not None:
            note = f"{words.change(name, drop)} ({words.span(name, drop)})"
        found.append(Fact(name, value, note))
    if not report.metrics.drops:
        loss = report.loss
        last = loss.pruned if loss.recovered is None else loss.recovered
        found.append(
            Fact("calibration loss", words.number(last), f"was {words.number(loss.dense)}")
        )
    smaller = _smaller(report)
    if smaller is not None and report.sizes:
        taken = int(report.sizes.uploaded_bytes / smaller[1])
        note = f"{words.size(taken)}, was {words.size(report.sizes.uploaded_bytes)}"
        found.append(Fact(smaller[0], f"{words.ratio(smaller[1])}× smaller", note))
    if report.latency and report.latency.ratio:
        latency = report.latency
        note = f"{words.seconds(latency.pruned.median)}, was {words.seconds(latency.dense.median)}"
        found.append(Fact("time of a run", f"{latency.ratio:.2f}×", note))
    gates = words.gates(report)
    if gates:
        missed = sum(c.status == "fail" for c in gates)
        held = f"{len(gates) - missed} of {len(gates)} hold"
        found.append(
            Fact("gates", "missed" if missed else "kept", held, "fail" if missed else "pass")
        )
    return found

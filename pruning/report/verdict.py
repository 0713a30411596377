"""The report in one sentence, whether that is good news, and in a few figures.

Page and command line both say what stands here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pruning.allowed import allows
from pruning.report import scope_words, study_words, words
from pruning.report.schema import Report
from pruning.report.speed import clause, interval, speed
from pruning.report.study import Drop, Latency

LARGE = 0.02
"""A drop of a metric from which on it is called large, where its interval excludes zero: 2 points
of accuracy or agreement, .02 of a cosine."""

LARGE_ANYWAY = 0.1
"""A drop that is called large whatever its interval is."""

LARGE_LOSS = 0.1
"""The rise of the loss, as a share of the dense one, called large where no metric was measured."""


@dataclass(frozen=True)
class Fact:
    """A figure at the head of the page."""

    name: str
    value: str
    note: str = ""
    state: str = ""


@dataclass(frozen=True)
class Outcome:
    """How the job ended.

    Args:
        state: The job's state.
        tone: Whether to show it as good news: `warn` is a success that needs a look.
        notes: What to look at.
    """

    state: Literal["succeeded", "rejected"]
    tone: Literal["good", "warn", "bad"]
    notes: tuple[str, ...] = ()


def verdict(report: Report) -> str:
    """What was removed, what it cost, what was gained, and whether limits hold.

    A job that was to keep a drop says first whether it does.
    """
    sparsity = report.sparsity
    removed = (
        f"{words.title(report.spec.criterion.kind)} removed {words.share(sparsity.achieved)} of "
        + ("the weights in scope" if scope_words.of_all(report.scope) else "the weights")
    )
    if report.search is not None:
        gates = [_gates(report)] if words.gates(report) else []
        others = _costs(report, but=report.search.metric)
        parts = [limit_held(report), removed, others, gain(report), *gates]
        return f"{'; '.join(p for p in parts if p)}."
    parts = [removed, cost(report), gain(report)]
    return "; ".join(p for p in parts if p) + f", and {_gates(report)}."


def limit_held(report: Report) -> str:
    """Whether the drop that a search was to keep is kept, and by which interval."""
    found = report.search
    assert found is not None
    drop, name = report.metrics.drops.get(found.metric), found.metric
    allowed = f"at most {words.limit(name, found.allowed)} allowed"
    if drop is None or drop.value is None:
        return f"Whether the limit was met is not known ({allowed}): {name} was not measured"
    beyond = drop.high is not None and not allows(found.allowed, drop.high)
    told = f"{_dropped(report, name, drop)}, with {allowed}"
    if not allows(found.allowed, drop.value):
        return f"The limit was missed: {told}"
    if not beyond:
        return f"The limit was met: {told}"
    return f"The limit was met as measured: {told}, and the interval reaches beyond it"


def outcome(report: Report) -> Outcome:
    """Whether the result can be taken as it is."""
    if rejected(report):
        return Outcome("rejected", "bad")
    notes = [*_large(report), *(c.message for c in words.gates(report) if c.status == "warn")]
    found = report.search
    drop = report.metrics.drops.get(found.metric) if found else None
    if found and not (drop and drop.value is not None and allows(found.allowed, drop.value)):
        notes.append(f"The limit on {found.metric} is not known to be kept.")
    return Outcome("succeeded", "warn" if notes else "good", tuple(notes))


def _large(report: Report) -> Iterator[str]:
    """Large drops that nothing in the spec put a limit to."""
    for name, drop in report.metrics.drops.items():
        if study_words.allowed_drop(report, name) is not None:
            continue
        if drop.value is None:
            yield f"The drop of {name} could not be measured."
        elif large(drop):
            yield (
                f"A large drop: {_dropped(report, name, drop)}, and the spec set no limit to "
                "it (gates.max_drop, or target.max_drop)."
            )
    loss = report.loss
    last = loss.pruned if loss.recovered is None else loss.recovered
    if report.metrics.drops or not loss.dense or loss.dense < 0 or last is None:
        return
    rise = last / loss.dense - 1.0
    if rise >= LARGE_LOSS:
        yield (
            f"The calibration loss rose by {words.share(rise)}, and no metric was measured "
            "that would say what it means."
        )


def large(drop: Drop) -> bool:
    """Whether a drop is large, and more than chance."""
    if drop.value is None or drop.value < LARGE:
        return False
    return drop.value >= LARGE_ANYWAY or (drop.low is not None and drop.low > 0.0)


def beside(report: Report) -> list[str]:
    """What belongs to the verdict and is no part of its sentence.

    That is what magnitude would have done, where it was as good or better.
    """
    found = report.comparison
    differences = found.differences if found else []
    equal = any(d.against == "magnitude" and d.verdict in ("as_good", "worse") for d in differences)
    return [study_words.magnitude(report)] if equal else []


def cost(report: Report) -> str:
    """What became of the metrics, or of the loss where there are none."""
    told = _costs(report)
    if told:
        return told
    final = report.metrics.final
    for name, dense in report.metrics.dense.items():
        if dense.value is not None and name in final:
            return (
                f"{name} went from {words.metric(name, dense.value)} to "
                f"{words.metric(name, final[name].value)}"
            )
    loss = report.loss
    last = loss.pruned if loss.recovered is None else loss.recovered
    return f"the calibration loss went from {words.number(loss.dense)} to {words.number(last)}"


def _costs(report: Report, but: str = "") -> str:
    """What became of each metric, those of `but` left out."""
    drops = report.metrics.drops.items()
    return " and ".join(_dropped(report, name, drop) for name, drop in drops if name != but)


def _dropped(report: Report, name: str, drop: Drop) -> str:
    """What became of a metric: by how much, to what, with the interval of the change."""
    final = report.metrics.final
    reached = final[name].value if name in final else None
    text = f"{name} {words.change(name, drop)}"
    if reached is not None:
        text += f"{' at' if drop.value == 0 else ' to'} {words.metric(name, reached)}"
    if drop.low is not None and drop.high is not None:
        of = " of the drop" if drop.value == 0 else ""
        text += f" ({words.asked_share(drop.level)} interval{of} {words.span(name, drop)})"
    return text


def gain(report: Report) -> str:
    """Bytes and time won, in measured numbers; empty where nothing was measured."""
    told = []
    smaller = _smaller(report)
    if smaller is not None:
        told.append(f"the {smaller[0]} is {words.ratio(smaller[1])} times smaller than the upload")
    if report.latency is not None and report.latency.ratio is not None:
        told.append(clause(report.latency))
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
    undecided = [c for c in gates if c.status == "warn"]
    if not gates:
        return "no gate was set"
    if undecided and not missed:
        if len(gates) == 1:
            return "its gate is not decided"
        are = "is" if len(undecided) == 1 else "are"
        return f"{len(undecided)} of {len(gates)} gates {are} not decided"
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
    sparsity, of_all = report.sparsity, scope_words.of_all(report.scope)
    found = [
        Fact(
            "removed",
            words.share(sparsity.achieved),
            f"{words.count(sparsity.removed)} of {words.count(sparsity.total)} weights"
            + (f" in scope, {of_all}" if of_all else "")
            + (f", {words.count(sparsity.found)} zero in the upload" if sparsity.found else ""),
        )
    ]
    for name, drop in report.metrics.drops.items():
        reached = report.metrics.final.get(name)
        value, note = words.metric(name, reached.value if reached else None), ""
        if drop.value is not None and drop.low is not None and drop.high is not None:
            note = f"{words.change(name, drop)} ({words.span(name, drop)})"
        unlimited = study_words.allowed_drop(report, name) is None
        found.append(Fact(name, value, note, "warn" if unlimited and large(drop) else ""))
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
        found.append(_time(report.latency))
    gates = words.gates(report)
    if gates:
        missed = sum(c.status == "fail" for c in gates)
        undecided = sum(c.status == "warn" for c in gates)
        held = f"{len(gates) - missed - undecided} of {len(gates)} hold"
        value, state = (
            ("missed", "fail") if missed else ("not decided", "warn") if undecided else
            ("kept", "pass")
        )  # fmt: skip
        found.append(Fact("gates", value, held, state))
    return found


def _time(found: Latency) -> Fact:
    """The time of a run: a factor only where the measurement shows one."""
    shown = speed(found)
    times = f"{words.seconds(found.pruned.median)}, was {words.seconds(found.dense.median)}"
    if shown in ("faster", "slower"):
        return Fact("time of a run", f"{words.ratio(found.ratio)}×", f"{times}; {interval(found)}")
    value = "no difference" if shown == "same" else "not known"
    return Fact("time of a run", value, f"ratio {words.ratio(found.ratio)}; {interval(found)}")

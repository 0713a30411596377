"""What the report says of several runs of the schedule: the search, the curve, the comparison."""

from statistics import median

from pruning.report.schema import Report
from pruning.report.study import Compared, Difference, Point
from pruning.report.words import count, limit, metric, number, points, several, share, title

_ENDED = {
    "resolution": "It ended because the two are as close as asked for.",
    "probes": "It ended because all probes were used: more sparsity may be possible.",
    "all_allowed": "Every sparsity tried was accepted: the answer is the largest it may try.",
    "none_allowed": "No sparsity tried was accepted.",
}


def search(report: Report) -> str:
    """How `target: max_drop` came to its answer."""
    found = report.search
    if found is None:
        return ""
    allowed = limit(found.metric, found.allowed)
    judged = (
        "at the upper end of its interval" if found.judged_by == "upper_bound" else "as measured"
    )
    bracket = (
        f"{share(found.low)} was the largest sparsity accepted"
        if found.low > 0
        else "none was accepted"
    )
    refused = "" if found.high is None else f" and {share(found.high)} the smallest refused"
    return (
        f"The search looked for the largest sparsity at which {found.metric} falls by at most "
        f"{allowed}, {judged}. In {several(found.probes, 'probe')}, {bracket}{refused}. "
        f"{_ENDED[found.ended]}"
    )


def stopped(report: Report) -> str:
    """Why rounds ended early."""
    found = report.stopped
    if found is None:
        return ""
    return (
        f"The rounds ended early: {found.round} of {found.rounds} were kept. In the round after, "
        f"{found.metric} had fallen by {points(found.metric, found.drop)}, more than the "
        f"{limit(found.metric, found.allowed)} allowed, and that round was undone."
    )


def curve_metric(report: Report) -> str | None:
    """The metric that the curve shows: the one searched for, else the first; None for the loss."""
    if report.search is not None:
        return report.search.metric
    return next((name for p in report.curve for name in p.metrics), None)


def allowed_drop(report: Report, name: str | None) -> tuple[float, str] | None:
    """The drop of a metric that the spec allows, and which of its parts says so."""
    if name is None:
        return None
    if report.search is not None and report.search.metric == name:
        return report.search.allowed, "the target"
    gate = next((v for n, v in report.spec.gates.max_drop.items() if n == name), None)
    if gate is not None:
        return gate, "the gate"
    if report.stopped is not None and report.stopped.metric == name:
        return report.stopped.allowed, "the rounds' stop"
    return None


def source(point: Point) -> str:
    """Why the job went to a point."""
    said = {"target": "result", "probe": "probe", "curve": "asked for"}[point.source]
    if point.allowed is not None:
        said += ", accepted" if point.allowed else ", refused"
    return said


def shown_value(found: Compared, recovered: bool, name: str | None) -> float | None:
    """The median of a criterion's runs, of the metric or of the loss."""
    values = [
        v
        for run in found.runs
        if run.recovered == recovered
        and (v := run.loss if name is None else run.metrics.get(name)) is not None
    ]
    return median(values) if values else None


def comparison_metric(report: Report) -> str | None:
    """What the comparison shows: the first metric that runs have, None for the loss."""
    found = report.comparison
    runs = [run for c in found.criteria for run in c.runs] if found else []
    return next((name for run in runs for name in run.metrics), None)


def magnitude(report: Report) -> str:
    """Whether magnitude pruning would have done as well; empty where it was not compared."""
    found = report.comparison
    against = [d for d in found.differences if d.against == "magnitude"] if found else []
    if found is None or not against:
        return ""
    own = title(found.criteria[0].criterion)
    told: dict[str, list[str]] = {}
    for recovered in (False, True):
        here = [d for d in against if d.recovered == recovered]
        if here:
            how = "with recovery" if recovered else "without recovery"
            told.setdefault(_against(here, own), []).append(how)
    text = "; ".join(f"{' and '.join(how)} {said}" for said, how in told.items())
    cheap = (
        " Magnitude needs no data and no curvature: where it is as good, it is the cheaper choice."
        if any(d.verdict in ("as_good", "worse") for d in against)
        else ""
    )
    return f"{text[0].upper()}{text[1:]}.{cheap}" if text else ""


def _against(differences: list[Difference], own: str) -> str:
    first = next((d for d in differences if d.quantity != "loss"), differences[0])
    by = "" if first.value is None else f" by {points(first.quantity, abs(first.value))}"
    said = {
        "better": f"{own} was better than magnitude{by} of {first.quantity}",
        "worse": f"magnitude was better than {own}{by} of {first.quantity}",
        "as_good": f"magnitude was as good: the difference of {first.quantity} is within the noise",
        "unknown": "too few runs were made to say which is better",
    }
    return said[first.verdict]


def advantage(found: Difference) -> str:
    """The job's own criterion against another, with its interval."""
    text = points(found.quantity, found.value)
    if found.low is None or found.high is None:
        return text
    low, high = (points(found.quantity, v, False) for v in (found.low, found.high))
    return f"{text} ({low} to {high})"


def compared_runs(report: Report) -> str:
    """How many runs the comparison rests on."""
    found = report.comparison
    if found is None:
        return ""
    seeds = sorted({run.seed for c in found.criteria for run in c.runs})
    failed = sum(run.error is not None for c in found.criteria for run in c.runs)
    both = any(run.recovered for c in found.criteria for run in c.runs)
    text = (
        f"All at {share(found.sparsity)}, on the same data, {several(len(seeds), 'seed')} each"
        f"{', without recovery and with it' if both else ', in one shot without recovery'}."
    )
    return text + (f" {several(failed, 'run')} failed." if failed else "")


def latency(report: Report) -> str:
    """How the times were taken."""
    found = report.latency
    if found is None:
        return ""
    return (
        f"{found.engine}, {several(found.threads, 'thread')}, batches of "
        f"{several(found.batch, 'sample')}: {count(found.runs)} runs of each file, in turns of "
        "four (one file, the other twice, the first again), so that both meet the same machine. "
        "The table has the median and the middle half of each file's times. The ratio is taken "
        "within each turn: its median, with a 95 % interval."
    )


def value(name: str | None, found: float | None) -> str:
    """A metric, or a loss where there is no metric."""
    return number(found) if name is None else metric(name, found)

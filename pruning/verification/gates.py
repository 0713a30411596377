"""Limits of the spec held against what was measured.

Each gives checks of group `gate`. Metrics and layers are known without any file; sizes and latency
are of files.
"""

from collections.abc import Mapping
from typing import Literal

from pruning.allowed import ROUNDING, allows
from pruning.name_patterns import NamePatterns
from pruning.report.numbers import (
    asked,
    asked_share,
    count,
    limit,
    metric,
    number,
    points,
    ratio,
    several,
    share,
)
from pruning.report.schema import Check, LayerReport, Report, Sizes
from pruning.report.study import Latency
from pruning.request import Rejection
from pruning.scope import names_of
from pruning.spec import Spec
from pruning.spec.gates import Between

_NAMED = 5
_FILES = {
    "native": "The model's files",
    "native_gzip": "The model's files after gzip",
    "sparse": "The sparse file",
}


def drops(spec: Spec, dense: Mapping[str, float], final: Mapping[str, float]) -> list[Check]:
    """`max_drop`: how far a metric fell on the evaluation data."""
    checks = []
    for name, allowed in spec.gates.max_drop.items():
        if name not in final or name not in dense:
            checks.append(
                _check(
                    f"max_drop.{name}",
                    False,
                    None,
                    allowed,
                    f"{name} has no meaning for loss {spec.objective.loss}.",
                )
            )
            continue
        drop = dense[name] - final[name]
        checks.append(
            _check(
                f"max_drop.{name}",
                allows(allowed, drop),
                drop,
                allowed,
                f"{_moved(name, dense[name], final[name])}; a drop of at most "
                f"{limit(name, allowed)} was allowed.",
            )
        )
    return checks


def _moved(name: str, before: float, after: float) -> str:
    if before == after:
        return f"{name} stayed at {metric(name, after)}"
    verb = "fell" if after < before else "rose"
    difference = points(name, abs(before - after))
    return f"{name} {verb} by {difference}, from {metric(name, before)} to {metric(name, after)}"


def layer_sparsity(spec: Spec, layers: list[LayerReport]) -> list[Check]:
    """`layer_sparsity`: one check a pattern, over the layers in scope that it matches.

    The value is that of the layer which is furthest outside the bounds, or closest to one.
    """
    checks = []
    for pattern, between in spec.gates.layer_sparsity.items():
        patterns = NamePatterns([pattern])
        matched = [x for x in layers if x.in_scope and patterns.match(names_of(x.name, x.layer))]
        name = f"layer_sparsity.{pattern}"
        if not matched:
            message = f"The pattern {pattern!r} matches no layer in scope."
            checks.append(_check(name, False, None, None, message))
            continue
        worst = max(matched, key=lambda layer: _outside(layer.sparsity, between)[0])
        bound = _outside(worst.sparsity, between)[1]
        missed = [x.name for x in matched if _outside(x.sparsity, between)[0] > ROUNDING]
        told = f"{asked_share(between.min)} to {asked_share(between.max)} was allowed"
        if missed:
            more = f" and {len(missed) - _NAMED} more" if len(missed) > _NAMED else ""
            message = (
                f"{len(missed)} of {len(matched)} layers that {pattern!r} matches lie outside "
                f"({', '.join(missed[:_NAMED])}{more}): {worst.name} has a sparsity of "
                f"{share(worst.sparsity)}; {told}."
            )
        else:
            message = (
                f"All {len(matched)} layers that {pattern!r} matches keep the bounds; "
                f"{worst.name}, the closest to one, has a sparsity of {share(worst.sparsity)}; "
                f"{told}."
            )
        checks.append(_check(name, not missed, worst.sparsity, bound, message))
    return checks


def _outside(sparsity: float, between: Between) -> tuple[float, float]:
    """How far a sparsity lies outside the nearer bound, negative within; and that bound."""
    return max((between.min - sparsity, between.min), (sparsity - between.max, between.max))


def max_bytes(spec: Spec, sizes: Sizes) -> list[Check]:
    """`max_bytes`: sizes of the delivered files."""
    found = {
        "native": sizes.pruned_bytes,
        "native_gzip": sizes.pruned_gzip_bytes,
        "sparse": sizes.sparse_bytes,
    }
    checks = []
    for name, allowed in spec.gates.max_bytes.items():
        size = found[name]
        told = "no size" if size is None else f"{size:,} bytes"
        message = f"{_FILES[name]}: {told}; {allowed:,} were allowed."
        passed = size is not None and size <= allowed
        checks.append(_check(f"max_bytes.{name}", passed, size, allowed, message))
    return checks


def target_bytes(report: Report, sizes: Sizes) -> list[Check]:
    """`target.bytes`: the sparse file as delivered, held to what it was planned to."""
    asked, budget = report.spec.target.bytes, report.budget
    if asked is None:
        return []
    counted = isinstance(asked, int)
    most = int(asked) if counted else None if budget is None else budget.limit
    size = sizes.sparse_bytes
    if size is None or most is None:
        message = "There is no sparse file to hold to the target, or no limit is known."
        return [_check("target.bytes", False, size, most, message)]
    part = "" if counted else f", {asked_share(asked)} of the bytes of all weights"
    message = f"The sparse file has {size:,} bytes; {most:,} were asked for at most{part}."
    return [_check("target.bytes", size <= most, size, most, message)]


UNDECIDED = "gate_undecided"
"""The code of a gate on the latency whose limit lies inside the measured interval."""


def latency(spec: Spec, measured: Latency | None, why_not: str = "") -> Check | None:
    """The gate `latency`; None where the spec has none.

    It fails where the whole interval lies above the limit and passes where all of it lies at or
    below; in between, and without an interval, it is not decided, which is a warning: noise neither
    rejects a result nor lets one pass unseen.

    Args:
        spec: The job's.
        measured: The measurement; None where there is none, which misses the gate.
        why_not: The reason for that.
    """
    gate = spec.gates.latency
    if gate is None:
        return None
    limits = {"ratio": gate.ratio, "milliseconds": gate.milliseconds}
    asked = {name: limit for name, limit in limits.items() if limit is not None}
    if measured is None or measured.ratio is None or measured.pruned.median is None:
        name = next(iter(asked))
        message = f"The latency could not be measured: {why_not or 'nothing was timed'}."
        return _check(f"latency.{name}", False, None, asked[name], message)
    pruned = measured.pruned
    assert pruned.median is not None
    spans = {
        "ratio": (measured.ratio, measured.ratio_low, measured.ratio_high),
        "milliseconds": (1e3 * pruned.median, _milli(pruned.low), _milli(pruned.high)),
    }
    found = {name: _held(limit, *spans[name][1:]) for name, limit in asked.items()}
    status = next((s for s in ("fail", "warn") if s in found.values()), "pass")
    shown = next(name for name in asked if found[name] == status)
    told = " and ".join(_timed(name, limit, *spans[name]) for name, limit in asked.items())
    message = (
        f"The delivered file takes {told}, the median of {count(measured.runs)} runs in "
        f"{measured.engine} with {several(measured.threads, 'thread')} and a batch of "
        f"{several(measured.batch, 'sample')}."
    )
    if status == "warn":
        message = (
            f"Not decided ({UNDECIDED}): the limit lies inside what the measurement leaves open. "
            f"{message} Measure again on a quieter machine, or leave the limit more room."
        )
    return Check(
        name=f"latency.{shown}",
        group="gate",
        status=status,
        value=spans[shown][0],
        threshold=asked[shown],
        message=message,
    )


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _held(limit: float, low: float | None, high: float | None) -> Literal["pass", "warn", "fail"]:
    if low is None or high is None:
        return "warn"
    return "fail" if low > limit else "pass" if high <= limit else "warn"


def _timed(name: str, limit: float, value: float, low: float | None, high: float | None) -> str:
    text = f"{ratio(value)} times the upload's time" if name == "ratio" else f"{number(value)} ms"
    write = ratio if name == "ratio" else number
    open_ = "no interval" if low is None else f"95 % interval {write(low)} to {write(high)}"
    return f"{text} ({open_}; at most {asked(limit)} allowed)"


def rejection(report: Report) -> Rejection | None:
    """What the job is told of the gates that were missed; all of them are named."""
    missed = [c for c in report.checks if c.group == "gate" and c.status == "fail"]
    timed = report.latency.gate if report.latency is not None else None
    if timed is not None and timed.status == "fail":
        missed.append(timed)
    if not missed:
        return None
    text = " ".join(check.message for check in missed)
    first = missed[0].name
    return Rejection(
        message=text if len(missed) == 1 else f"{len(missed)} gates were missed. {text}",
        where=f"spec.{first}" if first.startswith("target.") else f"spec.gates.{first}",
        hint=f"{' '.join(dict.fromkeys(map(_advice, missed)))} The artifacts are kept.",
    )


def _advice(missed: Check) -> str:
    kind = missed.name.partition(".")[0]
    return {
        "max_drop": "Ask for a lower sparsity, add recovery, or allow a larger drop.",
        "max_bytes": "Ask for a higher sparsity or for target bytes; zeros make the sparse file "
        "and the gzipped one smaller, the native one never.",
        "latency": "Unstructured zeros bring no speed in most runtimes; see the report's latency.",
        "layer_sparsity": "Change allocation or scope, or widen the bounds.",
        "target": "The sparse file came out larger than was planned: ask for fewer bytes by what "
        "it has too many.",
    }[kind]


def _check(
    name: str, passed: bool, value: float | None, threshold: float | None, message: str
) -> Check:
    status: Literal["pass", "fail"] = "pass" if passed else "fail"
    return Check(
        name=name, group="gate", status=status, value=value, threshold=threshold, message=message
    )

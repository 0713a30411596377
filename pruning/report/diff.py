"""What differs between the reports of two jobs, as plain values. Torch-free.

Works on the JSON of reports rather than on their models, so that reports of an older schema can be
compared too; what one of them does not have is null.
"""

from math import hypot
from typing import Any

LARGEST = 10
"""Layers named; the rest are counted."""

VERSIONS = ("secateur", "python", "torch", "numpy", "onnx", "onnxruntime", "platform", "device")

Json = dict[str, Any]


def diff(a: Json, b: Json) -> Json:
    """Everything that differs; a difference is always that of `b` minus that of `a`.

    Args:
        a: report.json of one job.
        b: report.json of the other.
    """
    return {
        "same_model": _same(a, b, "model", "sha256"),
        "same_evaluation_data": _same(a, b, "data", "evaluation", "sha256"),
        "spec": fields(a.get("spec") or {}, b.get("spec") or {}),
        "inputs": fields(_inputs(a), _inputs(b)),
        "sparsity": [
            _pair(name, a["sparsity"].get(name), b["sparsity"].get(name))
            for name in ("achieved", "removed", "total")
        ],
        "metrics": [_metric(name, a, b) for name in _either(_final(a), _final(b))],
        "loss": [
            _pair(name, a["loss"].get(name), b["loss"].get(name))
            for name in ("dense", "pruned", "recovered", "predicted_increase", "measured_increase")
        ],
        "sizes": [
            _pair(name, (a.get("sizes") or {}).get(name), (b.get("sizes") or {}).get(name))
            for name in _either(a.get("sizes") or {}, b.get("sizes") or {})
        ],
        "latency": _latency(a.get("latency"), b.get("latency")),
        "layers": _layers(a, b),
        "checks": _checks(a, b),
        "environment": [
            x
            for x in fields(a.get("environment") or {}, b.get("environment") or {})
            if x["name"] in (*VERSIONS, "threads")
        ],
    }


def fields(a: Any, b: Any, name: str = "") -> list[Json]:
    """The leaves at which two mappings differ, by their dotted names."""
    if a is None and isinstance(b, dict) and b:
        a = {}
    elif b is None and isinstance(a, dict) and a:
        b = {}
    if isinstance(a, dict) and isinstance(b, dict):
        parts = (
            fields(a.get(key), b.get(key), f"{name}.{key}" if name else key)
            for key in _either(a, b)
        )
        return [found for part in parts for found in part]
    return [] if a == b else [{"name": name, "a": a, "b": b}]


def _either(a: Json, b: Json) -> list[str]:
    """Keys of the one, then those of the other alone."""
    return [*a, *(key for key in b if key not in a)]


def _same(a: Json, b: Json, *path: str) -> bool:
    """Whether both have this value, and the same."""
    found: list[Any] = [a, b]
    for key in path:
        found = [(value or {}).get(key) for value in found]
    return found[0] is not None and found[0] == found[1]


def _inputs(report: Json) -> Json:
    data = report.get("data") or {}
    roles = {role: {k: part.get(k) for k in ("samples", "sha256")} for role, part in data.items()}
    return {"model": {"sha256": (report.get("model") or {}).get("sha256")}, **roles}


def _pair(name: str, a: float | None, b: float | None) -> Json:
    gap = None if a is None or b is None else b - a
    return {"name": name, "a": a, "b": b, "difference": gap}


def _final(report: Json) -> Json:
    """The metrics of the network that was delivered."""
    metrics = report.get("metrics") or {}
    return dict(metrics.get("recovered") or metrics.get("pruned") or {})


def _metric(name: str, a: Json, b: Json) -> Json:
    """One metric of both, and whether the difference is more than the noise of the samples.

    Where both started from the same model and were measured on the same data, the intervals of the
    drops are used, which are the narrower ones; else those of the metrics themselves.
    """
    ends = [_final(report).get(name) or {} for report in (a, b)]
    found = _pair(name, ends[0].get("value"), ends[1].get("value"))
    drops = [((r.get("metrics") or {}).get("drops") or {}).get(name) for r in (a, b)]
    paired = (
        all(drops)
        and _same(a, b, "model", "sha256")
        and _same(a, b, "data", "evaluation", "sha256")
    )
    widths = [_half(part or {}) for part in (drops if paired else ends)]
    noise = None if None in widths else hypot(*(w or 0.0 for w in widths))
    gap = found["difference"]
    exceeds = None if noise is None or gap is None else abs(gap) > noise
    intervals = [[end.get("low"), end.get("high")] for end in ends]
    return {
        **found,
        "interval_a": intervals[0],
        "interval_b": intervals[1],
        "drop_a": (drops[0] or {}).get("value"),
        "drop_b": (drops[1] or {}).get("value"),
        "noise": noise,
        "exceeds_noise": exceeds,
    }


def _half(found: Json) -> float | None:
    low, high = found.get("low"), found.get("high")
    return None if low is None or high is None else (high - low) / 2


def _latency(a: Json | None, b: Json | None) -> Json | None:
    """Pruned by dense of both: the absolute times may come from different machines."""
    if not a and not b:
        return None
    ends: list[Json] = [a or {}, b or {}]
    found = _pair("ratio", ends[0].get("ratio"), ends[1].get("ratio"))
    spreads = [_spread(end) for end in ends]
    exceeds = None
    if spreads[0] and spreads[1]:
        (low_a, high_a), (low_b, high_b) = spreads[0], spreads[1]
        exceeds = high_a < low_b or high_b < low_a
    medians = [((e.get("pruned") or {}).get("median")) for e in ends]
    return {**found, "seconds_a": medians[0], "seconds_b": medians[1], "exceeds_noise": exceeds}


def _spread(found: Json) -> tuple[float, float] | None:
    low, high = found.get("ratio_low"), found.get("ratio_high")
    return None if low is None or high is None else (low, high)


def _layers(a: Json, b: Json) -> Json:
    ours, theirs = ({x["name"]: x for x in r.get("layers") or []} for r in (a, b))
    both = [name for name in ours if name in theirs]
    pairs = [_pair(n, ours[n].get("sparsity"), theirs[n].get("sparsity")) for n in both]
    changed = [p for p in pairs if p["difference"]]
    changed.sort(key=lambda p: -abs(p["difference"]))
    return {
        "compared": len(both),
        "changed": len(changed),
        "largest": changed[:LARGEST],
        "only_a": [n for n in ours if n not in theirs],
        "only_b": [n for n in theirs if n not in ours],
    }


def _checks(a: Json, b: Json) -> list[Json]:
    """Checks whose state is not the same; null where one report has no such check."""
    states = []
    for report in (a, b):
        timed = (report.get("latency") or {}).get("gate")
        checks = [*(report.get("checks") or []), *([timed] if timed else [])]
        states.append({check["name"]: check["status"] for check in checks})
    return [
        {"name": name, "a": states[0].get(name), "b": states[1].get(name)}
        for name in _either(*states)
        if states[0].get(name) != states[1].get(name)
    ]

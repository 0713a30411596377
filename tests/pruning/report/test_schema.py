"""report.json holds what tools outside the project rely on, and never a NaN."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from torch import nn

from pruning import prune
from pruning.report.saliency import summarise
from pruning.report.schema import VOLATILE, Check, Report, report_json, results_json

# DESIGN.md, "Contracts": report.json holds at least these.
PROMISED = {
    "schema_version": None,
    "model": {"format", "parameters", "prunable_parameters"},
    "spec": None,
    "seed": None,
    "environment": None,
    "sparsity": {"target", "achieved", "removed", "total"},
    "layers": {
        "name", "kind", "shape", "parameters", "zeros", "sparsity", "saliency",
        "predicted_loss_increase",
    },
    "loss": {"dense", "pruned", "recovered", "predicted_increase", "measured_increase"},
    "metrics": {"dense", "pruned", "recovered"},
    "checks": {"name", "status", "value", "threshold", "message"},
    "artifacts": {"name", "bytes", "sha256", "format"},
    "timings": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.randn(60, 4)
    spec = {"criterion": {"kind": "magnitude"}, "gates": {"max_drop": {"accuracy": 1.0}}}
    return prune(nn.Sequential(nn.Linear(4, 3)), (x, x[:, :3].argmax(1)), spec).report


def fields(name: str) -> set[str]:
    schema = Report.model_json_schema()
    part = schema["properties"][name]
    reference = part.get("$ref") or part.get("items", {}).get("$ref")
    return set(schema["$defs"][reference.rpartition("/")[2]]["properties"])


@pytest.mark.parametrize("name", PROMISED)
def test_promised_keys_are_there(report, name):
    assert name in json.loads(report_json(report))
    if PROMISED[name] is not None:
        assert PROMISED[name] <= fields(name)


def test_saliency_has_its_five_quantiles(report):
    layer = json.loads(report_json(report))["layers"][0]
    assert layer["saliency"].keys() == {"min", "q25", "median", "q75", "max"}


def test_every_field_is_described():
    schema = Report.model_json_schema()
    ours = [schema, *(schema["$defs"][n] for n in schema["$defs"] if "Report" in n)]
    ours += [schema["$defs"][n] for n in ("Loss", "Metrics", "Round", "Check", "Sizes", "Saliency")]
    for part in ours:
        for name, field in part["properties"].items():
            target = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
            text = field.get("description") or target.get("description")
            assert text or "const" in field, f"{part['title']}.{name}"


def test_unknown_fields_are_refused(report):
    values = json.loads(report_json(report))
    assert Report.model_validate(values) == report
    with pytest.raises(ValidationError):
        Report.model_validate({**values, "extra": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(report, value):
    changed = report.model_copy(deep=True)
    changed.loss.pruned = value
    changed.checks.append(Check(name="x", status="warn", value=value, message=""))
    values = json.loads(report_json(changed), parse_constant=pytest.fail)
    assert values["loss"]["pruned"] is None
    assert values["checks"][-1]["value"] is None


def test_results_leave_out_timings_and_environment_alone(report):
    changed = report.model_copy(deep=True)
    changed.timings["scoring"] = 99.0
    changed.environment.threads = 77
    assert results_json(changed) == results_json(report)
    kept = json.loads(results_json(report)).keys()
    assert json.loads(report_json(report)).keys() - kept == set(VOLATILE)
    changed.seed += 1
    assert results_json(changed) != results_json(report)


@given(
    hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(allow_subnormal=False)),
    st.integers(0, 2**32 - 1),
)
def test_a_histogram_counts_every_weight_once(values, seed):
    removed = np.random.default_rng(seed).random(values.size) < 0.5
    quantiles, histogram = summarise(values, removed)
    shown = np.isfinite(values) & (values > 0)
    assert sum(histogram.counts) == shown.sum()
    assert sum(histogram.removed) == (shown & removed).sum()
    assert histogram.not_positive == values.size - shown.sum()
    assert all(r <= c for r, c in zip(histogram.removed, histogram.counts, strict=True))
    assert histogram.edges == sorted(histogram.edges)
    if np.isfinite(values).any():
        assert quantiles.min <= quantiles.median <= quantiles.max

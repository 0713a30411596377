"""Two reports are told apart by what differs, and noise is told from differences."""

import json
from typing import Any

import pytest

from benchmarks.report_example import example
from pruning.report.diff import LARGEST, diff, fields
from pruning.report.schema import Report, report_json


def values(report: Report) -> dict[str, Any]:
    return json.loads(report_json(report))


@pytest.fixture
def a() -> dict[str, Any]:
    return values(example(4))


@pytest.fixture
def b() -> dict[str, Any]:
    return values(example(4))


def test_a_report_does_not_differ_from_itself(a, b):
    found = diff(a, b)
    assert found["spec"] == found["inputs"] == found["checks"] == found["environment"] == []
    assert found["layers"]["changed"] == 0
    for key in ("sparsity", "metrics", "loss", "sizes"):
        assert all(item["difference"] in (0, None) for item in found[key])
    assert found["metrics"][0]["exceeds_noise"] is False
    assert found["latency"]["exceeds_noise"] is False


def test_leaves_are_named_by_their_path_and_missing_ones_are_null():
    found = fields(
        {"x": {"y": 1, "z": [1]}, "same": 3}, {"x": {"y": 2, "z": [1]}, "same": 3, "n": 0}
    )
    assert found == [{"name": "x.y", "a": 1, "b": 2}, {"name": "n", "a": None, "b": 0}]


def test_a_part_that_one_of_them_lacks_is_told_field_by_field():
    found = fields({"distill": None}, {"distill": {"temperature": 4.0, "weight": 0.5}})
    assert found == [
        {"name": "distill.temperature", "a": None, "b": 4.0},
        {"name": "distill.weight", "a": None, "b": 0.5},
    ]


def test_a_difference_of_metrics_is_held_against_the_intervals_of_the_drops(a, b):
    for report, drop in ((a, 0.0), (b, 0.01)):
        report["metrics"]["drops"]["accuracy"] |= {
            "value": drop, "low": drop - 0.003, "high": drop + 0.003
        }  # fmt: skip
        report["metrics"]["recovered"]["accuracy"] |= {
            "value": 0.94 - drop, "low": 0.9, "high": 0.98
        }  # fmt: skip
    (found,) = diff(a, b)["metrics"]
    assert found["difference"] == pytest.approx(-0.01)
    assert found["noise"] == pytest.approx(0.003 * 2**0.5)
    assert found["exceeds_noise"] is True
    # Measured on other samples the drops share nothing: the metrics' own intervals count.
    b["data"]["evaluation"]["sha256"] = "0" * 64
    (found,) = diff(a, b)["metrics"]
    assert found["noise"] == pytest.approx(0.04 * 2**0.5)
    assert found["exceeds_noise"] is False


def test_layers_that_changed_most_come_first_and_strangers_are_counted(a, b):
    a["layers"] = [{"name": f"l{i}", "sparsity": 0.5} for i in range(30)]
    b["layers"] = [{"name": f"l{i}", "sparsity": 0.5 + 0.01 * i} for i in range(29)] + [
        {"name": "new", "sparsity": 0.1}
    ]
    found = diff(a, b)["layers"]
    assert [x["name"] for x in found["largest"]] == [f"l{i}" for i in range(28, 28 - LARGEST, -1)]
    assert (found["changed"], found["compared"]) == (28, 29)
    assert (found["only_a"], found["only_b"]) == (["l29"], ["new"])


def test_checks_differ_by_state_the_gate_on_the_latency_among_them(a, b):
    b["checks"][0]["status"] = "fail"
    b["latency"]["gate"] = {"name": "latency.ratio", "status": "pass"}
    assert diff(a, b)["checks"] == [
        {"name": "max_drop.accuracy", "a": "pass", "b": "fail"},
        {"name": "latency.ratio", "a": None, "b": "pass"},
    ]


def test_a_report_of_an_older_schema_can_be_compared(a, b):
    for name in ("curve", "latency", "search", "comparison", "trust", "sizes"):
        del a[name]
    del a["metrics"]["drops"]
    for metric in a["metrics"]["recovered"].values():
        del metric["low"], metric["high"]
    found = diff(a, b)
    assert found["metrics"][0]["exceeds_noise"] is None
    assert found["latency"]["difference"] is None
    assert all(item["a"] is None for item in found["sizes"])

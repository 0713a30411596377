"""docs/report.schema.json holds for what jobs write, and refuses what they don't."""

import json
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

from benchmarks.report_example import example
from pruning import prune
from pruning.report.schema import Report, report_json

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "report.schema.json").read_text("utf-8"))


def real() -> Report:
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    spec = {
        "gates": {"max_drop": {"accuracy": 0.0}},
        "recovery": {"kind": "fine_tune", "epochs": 1},
    }
    return prune(nn.Sequential(nn.Linear(4, 3)), (x, x[:, :3].argmax(1)), spec).report


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("make", [real, lambda: example(3)], ids=["of a job", "of every section"])
def test_reports_are_valid(validator, make):
    values = json.loads(report_json(make()))
    assert [error.message for error in validator.iter_errors(values)] == []
    assert values["schema_version"] in SCHEMA["$id"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.update(extra=1),
        lambda v: v.update(schema_version="9.9"),
        lambda v: v.pop("layers"),
        lambda v: v["checks"][0].update(status="maybe"),
        lambda v: v["curve"][0].update(sparsity="half"),
        lambda v: v["latency"]["dense"].update(mean=1.0),
    ],
)
def test_what_is_no_report_is_refused(validator, damage):
    values = json.loads(report_json(example(3)))
    damage(values)
    assert list(validator.iter_errors(values))


def test_every_part_of_the_schema_is_described():
    sections = {n: s for n, s in SCHEMA["$defs"].items() if s.get("type") == "object"}
    ours = {"Report", "Point", "Search", "Drop", "Comparison", "Latency", "Times", "Stopped"}
    for name in ours & sections.keys():
        for field, part in sections[name]["properties"].items():
            target = SCHEMA["$defs"].get(part.get("$ref", "").rpartition("/")[2], {})
            assert part.get("description") or target.get("description"), f"{name}.{field}"

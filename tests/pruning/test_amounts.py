"""Counts and shares are told apart by how they are written, wherever a spec goes."""

import json
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from pruning.errors import SecateurError
from pruning.loop import prune
from pruning.report.schema import Report, report_json
from pruning.schedule.step import removal_target
from pruning.spec import Spec, parse_spec
from pruning.spec.amount import limit_of

FIELDS = ("weights", "bytes", "flops")


def read(field: str, value: Any) -> Any:
    return getattr(parse_spec({"target": {field: value}}).target, field)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (1, 1),
        (1.0, 1.0),
        (5000, 5000),
        (0.1, 0.1),
        ("5000", 5000),
        ("0.1", 0.1),
        ("1.0", 1.0),
        (np.int64(7), 7),
        (np.float64(1.0), 1.0),
    ],
)
def test_a_point_makes_a_share(field, given, meant):
    found = read(field, given)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (2.0, "write 2"),
        (1e6, "write 1000000"),
        ("1e6", "write 1000000"),
        (2.5, "at most 1.0"),
        (float("inf"), "at most 1.0"),
        (float("nan"), "no share"),
        (0, "no count"),
        (-3, "no count"),
        (0.0, "no share"),
        (True, "neither"),
        ("half", "neither"),
    ],
)
def test_what_is_neither_is_refused_with_how_to_write_it(field, given, said):
    with pytest.raises(SecateurError, match=said) as caught:
        read(field, given)
    assert (caught.value.code, caught.value.where) == ("spec_invalid", f"spec.target.{field}")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [1, 1.0, 0.25, 300])
def test_round_trips_keep_what_was_written(field, value):
    spec = parse_spec({"target": {field: value}})
    for again in (
        Spec.model_validate_json(spec.model_dump_json()),
        parse_spec(json.loads(json.dumps(spec.model_dump(mode="json")))),
        parse_spec(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json")))),
    ):
        found = getattr(again.target, field)
        assert (found, type(found)) == (value, type(value))


def test_the_report_says_what_was_asked_and_all_of_the_weights_stay():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    data = (torch.randn(20, 4), torch.arange(20) % 3)
    spec = {"criterion": {"kind": "magnitude"}, "comparison": {"criteria": []}}
    for value, stay in ((1.0, 28), (1, 1)):
        done = prune(net, data, spec | {"target": {"weights": value}})
        assert done.report.sparsity.total - done.report.sparsity.removed == stay
        found = Report.model_validate_json(report_json(done.report)).spec.target.weights
        assert (found, type(found)) == (value, type(value))


def test_amounts_come_to_limits():
    assert limit_of(1, 80) == 1
    assert limit_of(1.0, 80) == 80
    assert limit_of(0.29, 100) == 29
    assert removal_target(parse_spec({"target": {"flops": 1.0}}), 100) == 0


def test_a_gate_on_bytes_is_a_count():
    assert parse_spec({"gates": {"max_bytes": {"native": 10}}}).gates.max_bytes == {"native": 10}
    for value in (1.0, 0.5, 1e6):
        with pytest.raises(SecateurError):
            parse_spec({"gates": {"max_bytes": {"native": value}}})


def test_the_schema_says_how_they_are_told_apart():
    target = Spec.model_json_schema()["$defs"]["Target"]["properties"]
    for field in FIELDS:
        assert "without a point is a count" in json.dumps(target[field])

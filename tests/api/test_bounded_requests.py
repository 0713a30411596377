"""What one request may ask for is bounded before any of it is done."""

import time
from typing import Any

import pytest

from pruning.facts import ModelFacts
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS, Caller, assert_problem, layer

HOSTILE: dict[str, dict[str, Any]] = {
    "unknown fields": {f"sparsity{n}": 0.5 for n in range(50_000)},
    "near names": {f"sparsity{n}": 0.5 for n in range(1_900)},
    "one pattern": {"scope": {"exclude": ["*a" * 50_000]}},
    "patterns": {"scope": {"exclude": [f"*{'a*' * 100}{n}" for n in range(256)]}},
    "bounds": {"gates": {"layer_sparsity": {f"{'*a' * 100}{n}": {} for n in range(256)}}},
    "inputs": {"inputs": {f"input{n}": {"samples": 0} for n in range(600)}},
    "a number": {"target": {"weights": 10**4000}},
    "an index for a field": {"0": 1},
    "brackets": {"layers[0]": 0.5},
}
# Bodies of so much are not read at all; the command line meets the bounds of a spec for them.
BEFORE_PARSING = (HOSTILE["unknown fields"], HOSTILE["a number"])


@pytest.mark.parametrize("door", ["/v1/plans", "/v1/jobs"])
@pytest.mark.parametrize("spec", HOSTILE.values(), ids=HOSTILE)
def test_a_spec_made_to_cost_time_is_refused_at_once(caller: Caller, spec: Any, door: str) -> None:
    facts = ModelFacts.model_validate(
        MODEL_FACTS.model_dump()
        | {"layers": [layer(f"{'a' * 100}.{n}", 10, 64) for n in range(1_000)]}
    )
    request = {
        "model": caller.upload("models", b"wide", facts),
        "data": {"calibration": caller.upload("datasets", b"data", DATASET_FACTS)},
    }
    started = time.perf_counter()
    response = caller.http.post(door, json=request | {"spec": spec})
    assert time.perf_counter() - started < 2  # it took from 3 to 49 s
    assert len(response.content) < 20_000
    if spec in BEFORE_PARSING:
        assert response.json()["code"] in ("too_large", "invalid_json")
        return
    problem = assert_problem(response, 422, "spec_invalid")
    assert problem["where"].startswith("spec")

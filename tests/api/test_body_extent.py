"""Bodies of JSON that would take long to explain are refused before they are parsed."""

import json
from typing import Any

import pytest

from api.bodies import JSON_LIMIT
from api.json_extent import LONGEST_NUMBER, MOST_VALUES, check_extent
from pruning.errors import SecateurError
from tests.api.conftest import Caller, assert_problem

MANY = {
    "keys": {f"k{n}": 1 for n in range(MOST_VALUES + 2)},
    "entries": {"name": [1] * (MOST_VALUES + 2)},
    "lists": {"name": [[]] * (MOST_VALUES // 2 + 2)},
    "objects": {"name": [{}] * (MOST_VALUES // 2 + 2)},
    "texts": {"name": ["a,b"] * (MOST_VALUES + 2)},
    "quotes": {"name": ['"'] * (MOST_VALUES + 2)},
    "backslashes": {"name": ["\\"] * (MOST_VALUES + 2)},
}
FEW: dict[str, Any] = {
    "digits in a text": {"name": "9" * 1_000 + "," * MOST_VALUES},
    "commas in a text": {"name": "," * 100_000},
    "brackets in a text": {"name": '[{"\\' * 50_000},
    "escapes in a text": {"name": '\\",' * 50_000},
    "entries": {"name": [1] * (MOST_VALUES - 10)},
    "texts": {f"a,b{n}": "c,[{" for n in range(MOST_VALUES - 10)},
}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans", "/v1/keys"])
@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
def test_more_values_than_any_request_needs_are_refused(
    caller: Caller, path: str, body: Any
) -> None:
    problem = assert_problem(caller.http.post(path, json=body), 413, "too_large")
    assert problem["details"] == {"limit": MOST_VALUES}


@pytest.mark.parametrize("body", FEW.values(), ids=FEW)
def test_what_stands_in_texts_is_no_value(body: Any) -> None:
    for indent in (None, 1):
        check_extent(json.dumps(body, indent=indent).encode())


def test_nesting_counts(caller: Caller) -> None:
    body = b'{"name":' + b",".join([b"[" * 900 + b"]" * 900] * 500) + b"}"
    headers = {"content-type": "application/json"}
    response = caller.http.post("/v1/keys", content=body, headers=headers)
    assert_problem(response, 413, "too_large")


@pytest.mark.parametrize(
    "body",
    [b'"' * JSON_LIMIT, b'"' + b"\\" * JSON_LIMIT, b'[["' + b'\\"' * (JSON_LIMIT // 2), b"\\" * 9],
)
def test_texts_without_an_end_are_looked_at_once(body: bytes) -> None:
    """Quadratic search would take minutes."""
    check_extent(body)
    with pytest.raises(SecateurError):
        check_extent(b"[" * (MOST_VALUES + 1) + body)


@pytest.mark.parametrize("number", ["1." + "9" * 290 + "e1", "9" * 299, "9" * 4_000])
def test_long_numbers_are_refused(caller: Caller, number: str) -> None:
    """Digits of a real are turned into one in a time that grows with their square."""
    body = f'{{"name": [{",".join([number] * 10)}]}}'.encode()
    headers = {"content-type": "application/json"}
    response = caller.http.post("/v1/keys", content=body, headers=headers)
    assert_problem(response, 400, "invalid_json")
    check_extent(f'{{"name": "{number}"}}'.encode())
    check_extent(f"[{'9' * LONGEST_NUMBER}, 0.{'1' * (LONGEST_NUMBER - 2)}]".encode())

"""A page ends early where its rows are large; the next goes on where it ended."""

from typing import Any

import pytest

from api import listing
from tests.api.conftest import DATASET_FACTS, MODEL_FACTS, Caller


def pages(caller: Caller, kind: str, limit: int) -> list[list[dict[str, Any]]]:
    """All pages of a list."""
    found, cursor = [], None
    while True:
        asked = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = caller.http.get(f"/v1/{kind}", params=asked).json()
        found.append(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.fixture
def filled(caller: Caller) -> Caller:
    """Five of each kind."""
    for n in range(5):
        caller.upload("models", b"m%d" % n, MODEL_FACTS)
        caller.upload("datasets", b"d%d" % n, DATASET_FACTS)
    ready = caller.ready()
    for _ in range(5):
        assert caller.http.post("/v1/jobs", json=ready).status_code == 202
    return caller


@pytest.mark.parametrize("kind", ["models", "datasets", "jobs"])
def test_large_rows_make_short_pages(
    filled: Caller, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = pages(filled, kind, 200)
    count = len(whole)
    assert [len(page) for page in pages(filled, kind, 2)] == [2] * (count // 2) + [1] * (count % 2)
    one = filled.http.get(f"/v1/{kind}/{whole[0]['id']}")
    monkeypatch.setattr(listing, "PAGE_BYTES", int(2.5 * len(one.content)))
    short = pages(filled, kind, 200)
    assert {len(page) for page in short[:-1]} == {2}
    assert [row for page in short for row in page] == whole
    monkeypatch.setattr(listing, "PAGE_BYTES", 1)
    single = pages(filled, kind, 200)
    assert [len(page) for page in single] == [1] * count
    assert [row for page in single for row in page] == whole


@pytest.mark.parametrize("kind", ["models", "datasets", "jobs"])
def test_a_row_of_a_list_is_what_it_is_alone(filled: Caller, kind: str) -> None:
    ((first, *_),) = pages(filled, kind, 200)
    assert first == filled.http.get(f"/v1/{kind}/{first['id']}").json()

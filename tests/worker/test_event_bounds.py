"""What a child says is kept in bounded amounts, whatever it says."""

import json

import pytest
from bench import Bench

from pruning.errors import SecateurError
from store.queries import models
from store.tables import JobEvent, Model
from worker import bounds, process
from worker.answer import answer


def stored(bench: Bench, job: str) -> int:
    return sum(len(json.dumps(row.body)) for row in bench.rows(JobEvent, job_id=job))


def test_every_text_is_cut_and_says_so(bench: Bench):
    _, job = bench.attempt("shout")
    assert (job.state, job.error["code"]) == ("failed", "scope_empty")
    assert len(job.error["message"]) == bounds.MESSAGE
    assert job.error["message"].startswith("\ufffdää")
    assert job.error["message"].endswith("ä…")
    assert len(job.error["hint"]) == bounds.MESSAGE
    said = {event["type"]: event for event in bench.events(job.id)}
    assert len(said["warning"]["message"]) == bounds.MESSAGE
    assert len(said["warning"]["code"]) == len(said["metric"]["name"]) == bounds.NAME
    assert len(said["progress"]["message"]) == bounds.PROGRESS
    assert "\0" not in json.dumps(bench.events(job.id), ensure_ascii=False)
    assert stored(bench, job.id) < 100_000


def test_details_are_cut_in_depth_and_width_and_dropped_where_that_is_not_enough():
    deep: object = "x"
    for _ in range(150):
        deep = [deep]
    details = {"deep": deep, "wide": list(range(5_000)), "long": "\0" + "y" * 5_000, "where": "z"}
    error = {"code": "usage", "message": "m", "details": details}
    kept = bounds.bounded_error(error)["details"]
    assert kept["deep"] == [[["…"]]]
    assert kept["wide"] == list(range(100))
    assert kept["long"] == "\ufffd" + "y" * 998 + "…"
    assert "where" not in kept
    assert SecateurError.from_dict(bounds.bounded_error(error)).details == kept
    details["wide"] = ["y" * 900] * 99
    assert "details" not in bounds.bounded_error(error)


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("many_long", f"events of more than {process.MAX_EVENT_BYTES} bytes"),
        ("strange_type", "a line that is no event"),
        ("strange_file", "not a plain file name"),
        ("not_finite", "an event that can't be kept: metric has a number that is not finite"),
    ],
)
def test_a_child_that_says_too_much_or_nonsense_leaves_little(bench: Bench, do: str, says: str):
    became, job = bench.attempt(do)
    assert became == "queued"
    error = bench.events(job.id)[-1]["error"]
    assert error["code"] == "child_crashed"
    assert says in error["message"]
    assert len(json.dumps(error)) < 1000
    assert stored(bench, job.id) <= process.MAX_EVENT_BYTES * 1.1


def test_a_long_summary_is_refused(bench: Bench):
    became, job = bench.attempt("succeed", then="long_summary")
    assert became == "queued"
    assert "too long a summary" in bench.events(job.id)[-1]["error"]["message"]


def test_a_rejection_is_cut(bench: Bench):
    _, job = bench.attempt("succeed", then="long_rejection")
    assert job.state == "rejected"
    assert len(job.error["message"]) == bounds.MESSAGE
    assert len(job.error["where"]) == bounds.PLACE


def test_facts_hold_nothing_that_a_database_refuses(bench: Bench):
    model = bench.upload(models, "odd.onnx", b'{"do": "odd_facts"}')
    assert answer(bench.place(), "check") == 1
    (row,) = bench.rows(Model, id=model)
    assert row.facts == {"format": "onnx", "na\ufffdme": ["\ufffd", None]}

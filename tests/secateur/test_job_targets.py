"""What `secateur jobs` says a job was asked for, whichever target it has."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from pruning.events import MetricEvent
from pruning.spec import parse_spec
from secateur.cli.follow import JobDisplay
from secateur.cli.jobs import _details, _method
from secateur.resources import Job


def job(**target: Any) -> Job:
    spec = parse_spec(
        {"criterion": {"kind": "magnitude"}, "target": target, "outputs": ["native", "sparse"]}
    )
    return Job(
        id="job_1", state="queued", model="mdl_1", created_at=datetime.now(UTC),
        spec=spec.model_dump(mode="json"), rewind_to="mdl_2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"sparsity": 0.8}, 0.8),
        ({"sparsity": 0.0}, 0.0),
        ({"bytes": 400_000}, "bytes 400,000"),
        ({"flops": 0.25}, "flops 0.25"),
        ({"weights": 30}, "weights 30"),
        ({"max_drop": {"drop": 0.02}}, "drop 0.02 of accuracy"),
    ],
)
def test_every_kind_of_target_is_listed_and_shown(target: dict[str, Any], said: object):
    found = job(**target)
    assert _method(found) == ("magnitude", said)
    shown = _details(found)
    assert (shown["sparsity"] if shown["target"] is None else shown["target"]) == said
    assert shown["rewind to"] == "mdl_2"


def test_a_point_of_the_curve_counts_its_steps_as_the_result_does(
    capsys: pytest.CaptureFixture[str],
):
    spec = {
        "criterion": {"kind": "magnitude"},
        "schedule": {"kind": "one_shot", "recomputations": 3},
    }
    with JobDisplay(Console(force_terminal=False, width=80), spec) as display:
        display.handle(MetricEvent(name="loss", stage="point 1 round 2", value=0.5))
        display.handle(MetricEvent(name="loss", stage="round 2", value=0.5))
    said = capsys.readouterr().out
    assert "point 1 step 2 of 3: loss 0.5" in said
    assert "  step 2 of 3: loss 0.5" in said

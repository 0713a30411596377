import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from benchmarks.report_example import example
from pruning.events import MetricEvent
from pruning.report import verdict
from pruning.report.schema import report_json
from secateur import Client, SecateurError
from secateur._flow import PATIENCE
from secateur.cli import output, result
from secateur.cli.follow import JobDisplay
from secateur.cli.remote import follow, naming, under_name
from secateur.cli.result import print_result
from secateur.resources import Artifact, Job
from tests.secateur.conftest import Script, reply
from tests.secateur.test_client import DONE, SSE, _frames, job, problem

REPORT: dict[str, Any] = {
    "sparsity": {"achieved": 0.5, "removed": 88, "total": 176},
    "metrics": {
        "dense": {"accuracy": {"value": 1.0}},
        "pruned": {"accuracy": {"value": 0.5}},
        "recovered": None,
    },
    "loss": {
        "dense": 0.1,
        "pruned": 0.2,
        "recovered": None,
        "predicted_increase": 0.1,
        "measured_increase": 0.1,
    },
    "sizes": {
        "uploaded_bytes": 10**9,
        "pruned_bytes": 10**9,
        "pruned_gzip_bytes": 10**9,
        "bitmask_bytes": 10**9,
        "masks_bytes": 10**9,
    },
    "checks": [
        {"name": "max_drop.accuracy", "group": "gate", "status": "fail", "message": "went down"},
        {"name": "trust.gradient_term", "group": "trust", "status": "pass", "message": "small"},
        {"name": "trust.curvature_rank", "group": "trust", "status": "warn", "message": "low"},
    ],
    "trust": {"ladder": {"holds_up_to": 0.255}},
}


@pytest.mark.parametrize(
    ("schedule", "line"),
    [
        ({"kind": "one_shot"}, "step 1 of 4"),
        ({"kind": "rounds", "rounds": 3}, "round 1 of 3"),
        ({"kind": "unheard of"}, "round 1"),
    ],
)
def test_steps_are_counted_in_the_words_of_the_schedule(schedule: Any, line: str) -> None:
    text = io.StringIO()
    with JobDisplay(Console(file=text), {"schedule": schedule}) as display:
        display.handle(MetricEvent(name="loss", stage="round 1", value=0.5))
        display.handle(MetricEvent(name="accuracy", stage="round 1", value=0.5))
    assert text.getvalue() == f"  {line}: loss 0.5000 (calibration), accuracy 50.0 % (evaluation)\n"


def test_files_get_the_name_that_was_typed_whatever_the_service_says() -> None:
    theirs = [
        Artifact(name=name, bytes=1, sha256="0", format=form)
        for name, form in (
            ("report.json", "report_json"),
            ("old.masks.safetensors", "masks"),
            ("old.onnx", "onnx"),
        )
    ]
    names = [name for _, name in under_name(theirs, Path("new.onnx"))]
    assert names == ["new.onnx", "new.masks.safetensors", "report.json"]
    assert next(n for _, n in under_name(theirs, None)) == "old.onnx"


def test_a_missed_gate_is_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(REPORT, gates=False)
    assert "went down" not in capsys.readouterr().out
    print_result(REPORT)
    out = capsys.readouterr().out
    assert "went down" in out
    assert "0 of 1 passed" in out
    assert "1 of 2 assumptions of the theory hold" in out
    assert "not: curvature_rank" in out
    assert "holds up to 25.5 % removed" in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].index("dense") == lines[3].index("predicted")


@pytest.mark.parametrize("width", [60, 100])
def test_the_headline_is_that_of_the_page_and_no_line_is_cut(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    report = example(4)
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(result, "stdout", lambda: console)
    print_result(json.loads(report_json(report)))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text.getvalue()
    said = " ".join(text.getvalue().split())
    headline = [verdict.verdict(report), *verdict.beside(report)]
    for sentence in headline:
        assert sentence in said
    assert said.startswith("The limit was met as measured: accuracy fell by 0.60 points")


def test_the_command_line_claims_no_speed_that_the_page_leaves_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = example(4)
    report.latency.ratio, report.latency.ratio_low, report.latency.ratio_high = 2.26, 0.7, 5.0
    print_result(json.loads(report_json(report)))
    out = capsys.readouterr().out
    assert "times as long" not in out
    assert out.count("can't be told from this measurement") == 2


def test_a_report_of_another_version_is_shown_without_a_headline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = json.loads(report_json(example(4))) | {"schema_version": "9.0", "more": 1}
    print_result(values)
    assert "of the weights in scope removed" in capsys.readouterr().out.splitlines()[0]


def test_a_list_fits_80_columns_with_ids_and_names_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(output, "stdout", lambda: console)
    id, name = "job_" + "0" * 26, "a-long-name-of-a-job"
    row = [id, "succeeded", "magnitude 0.85", datetime(2026, 3, 1, 12, 0, tzinfo=UTC), name]
    output.print_table(["id", "state", "criterion", "created", "name"], [row], "")
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    shown = next(line for line in lines if id in line)
    assert "succeeded" in shown
    assert "magnitude 0.85" in shown
    assert "03-01" in shown
    assert "…" not in text.getvalue()


def test_operations_have_units() -> None:
    assert output.operations(5.9e11) == "590 GFLOP"
    assert output.operations(None) == ""


def test_hints_speak_to_who_types_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output.print_error(SecateurError("unauthenticated", "No key.", hint="Send the header"))
    said = capsys.readouterr().err
    assert "SECATEUR_API_KEY" in said
    assert "credentials.json" in said
    assert "header" not in said
    (tmp_path / "big.onnx").write_bytes(b"0" * 3072)
    said = r"big.onnx has 3.0 KiB, .* 2.0 KiB"
    with pytest.raises(SecateurError, match=said), naming(tmp_path / "big.onnx"):
        raise SecateurError("too_large", "The body", limit=2048)


def test_following_outlasts_a_restart_of_the_service(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("secateur.client.time.sleep", pauses.append)
    script.answers = [
        *[reply(503, problem("unavailable"))] * 12,
        reply(200, {"data": [DONE], "next_after": 4, "ended": True}),
    ]
    with Client(script.url, "k") as client:
        assert [e.seq for e in client.events("job_1")] == [4]


def test_giving_up_says_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("secateur.client.time.sleep", pauses.append)
    answers = iter([httpx.Response(200, json=job())])

    def answer(request: httpx.Request) -> httpx.Response:
        for found in answers:
            return found
        raise httpx.ConnectError("refused")

    transport = httpx.MockTransport(answer)
    with (
        Client("http://there", "k", transport=transport) as client,
        pytest.raises(SecateurError) as caught,
    ):
        follow(client, client.job("job_1"), Console(file=io.StringIO()))
    assert caught.value.code == "connection_failed"
    assert "goes on" in caught.value.message
    assert "secateur jobs wait job_1" in (caught.value.hint or "")
    assert sum(pauses) >= PATIENCE >= 60


def test_a_stream_is_followed_to_its_end(script: Script) -> None:
    script.answers = [reply(200, _frames(DONE), Content_Type=SSE), reply(200, job(state="failed"))]
    with Client(script.url, "k") as client:
        done = follow(client, Job.model_validate(job()), Console(file=io.StringIO()))
    assert done.state == "failed"


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([{"not_predicted": None}], "predicted 0.1000, measured 0.1000"),
        ([{"not_predicted": "Too much work."}], "not predicted, measured 0.1000"),
    ],
)
def test_a_loss_that_was_not_predicted_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], rounds: list[dict[str, Any]], said: str
) -> None:
    print_result(REPORT | {"rounds": rounds}, [], gates=True)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_list_is_cut_whatever_the_terminal_s_width(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.StringIO()
    shown = Console(file=text, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(output, "stdout", lambda: shown)
    columns = ["id", "state", "criterion", "created", "name"]
    at = datetime(2026, 12, 1, 6, 22).astimezone()
    row = ["job_01m8r4951nhms11y300gdar458", "succeeded", "layer_obs 0.75", at, "my first job"]
    output.print_table(columns, [row], "none")
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for part in (row[0], "succeeded", "layer_obs", "0.75", "06:22", "my", "first", "job"):
        assert part in words, (part, lines)

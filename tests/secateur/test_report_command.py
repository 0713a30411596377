"""`secateur report diff` and `secateur jobs report --open`."""

import hashlib
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.report_example import example
from pruning.report.schema import report_json
from secateur.cli import jobs, report, result
from tests.secateur.conftest import Script, reply
from tests.secateur.test_client import job


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of one result, and a report.json of another."""
    first, second = example(25), example(25, seed=1)
    second.seed = 9
    second.spec = second.spec.model_copy(update={"seed": 9})
    for number, layer in enumerate(second.layers):
        layer.sparsity *= 1 - 0.01 * number
    second.checks[0].status = "fail"
    second.metrics.recovered["accuracy"].value = 0.90
    drop = second.metrics.drops["accuracy"]
    drop.value, drop.low, drop.high = 0.042, 0.03, 0.054
    second.sizes.sparse_bytes += 20_000
    second.environment.torch = "2.99.0"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "report.json").write_bytes(report_json(first))
    (tmp_path / "two.json").write_bytes(report_json(second))
    return tmp_path / "one", tmp_path / "two.json"


def test_a_folder_and_a_file_are_compared(files):
    done = CliRunner().invoke(report.app, ["diff", *map(str, files)])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["seed", "7", "9"] in lines
    assert ["accuracy", "93.6", "%", "90.0", "%", "-3.60", "points", "beyond", "noise"] in lines
    (drops,) = [line for line in lines if line[:3] == ["drop", "from", "dense"]]
    assert drops.count("points") == 3
    assert ["max_drop.accuracy", "pass", "fail"] in lines
    assert ["torch", "2.13.0", "2.99.0"] in lines
    assert any(line[:2] == ["sparse", "file"] and line[-2:] == ["+19.5", "KiB"] for line in lines)
    assert "23 of 25 layers differ in sparsity; the 10 that differ most are shown." in done.stdout


def test_the_same_report_twice_is_said_to_be_the_same(files):
    done = CliRunner().invoke(report.app, ["diff", str(files[0]), str(files[0])])
    assert done.exit_code == 0
    assert "Spec, inputs and results are the same." in done.stdout
    assert "within noise" in done.stdout


def test_json_is_all_that_is_printed(files):
    done = CliRunner().invoke(report.app, ["diff", *map(str, files), "--json"])
    found = json.loads(done.stdout)
    assert found["same_model"] is True
    assert found["layers"]["changed"] == 23


def test_the_tables_fit_a_terminal_of_80_columns(files, monkeypatch):
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(report, "stdout", lambda: console)
    monkeypatch.setattr(result, "stdout", lambda: console)
    values = [report._read(str(path)) for path in files]
    values[1]["spec"]["scope"] = {"exclude": ["a.very.long.name.of.a.layer.*"] * 5}
    report.print_diff(("A", values[0]), ("B", values[1]), report.diff(*values))
    result.print_result(values[1])
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    for said in (
        "drop",
        "4.20 points (3.00 to 5.40)",
        "90.0 % accepted, 92.0 % refused, for at most 1 point of accuracy",
        "12 points, 30.0 % to 98.0 %; 12 with their model",
        "magnitude was as good with recovery (accuracy)",
    ):
        assert any(said in line for line in lines), said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("absent.json", None, "does not exist"), ("bad.json", "{", "can't be read"),
     ("other.json", "{}", "is no report")],
)  # fmt: skip
def test_what_is_no_report_is_a_usage_error(tmp_path, files, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(report.app, ["diff", str(path), str(files[1])])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


def test_the_page_is_downloaded_and_its_place_printed_where_no_browser_is(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<!doctype html><title>x</title>"
    entry = {
        "name": "report.html", "bytes": len(page), "format": "report.html",
        "sha256": hashlib.sha256(page).hexdigest(),
    }  # fmt: skip
    finished = job(state="succeeded", artifacts=[entry])
    script.answers = [reply(200, finished), reply(200, page)]
    opened = []
    monkeypatch.setattr(jobs.webbrowser, "open", lambda uri: opened.append(uri))
    monkeypatch.setenv("SECATEUR_URL", script.url)
    monkeypatch.setenv("SECATEUR_API_KEY", "k")
    out = tmp_path / "page"
    done = CliRunner().invoke(jobs.app, ["report", "job_1", "--open", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "report.html").read_bytes() == page
    assert str(out / "report.html") in done.stdout.replace("\n", "")
    assert opened == [(out / "report.html").resolve().as_uri()]
    assert "open the file yourself" in done.output.replace("\n", " ")


def test_a_job_without_a_report_says_so(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.answers = [reply(200, job(state="failed"))]
    monkeypatch.setenv("SECATEUR_URL", script.url)
    monkeypatch.setenv("SECATEUR_API_KEY", "k")
    done = CliRunner().invoke(jobs.app, ["report", "job_1", "--open"])
    assert done.exception.code == "not_found"
    assert "has no report: it is failed" in done.exception.message

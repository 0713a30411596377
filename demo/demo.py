"""Pruning jobs end to end: `make demo`.

Starts the service, trains a small network on real digits, sends it in over HTTP, prunes it by
three criteria to the same sparsity without retraining and then with, searches for the most sparsity
within one point of accuracy, downloads the results, checks them in onnxruntime against their
reports and prints a table. Exit 0 only if all of that held. The service runs two jobs at a time.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from verify import DemoError, check, delivered_accuracy, verify

from pruning import threads
from secateur import Client, SecateurError
from secateur.cli.follow import JobDisplay
from secateur.cli.output import print_error, size
from secateur.resources import Dataset, Job, Model

if TYPE_CHECKING:
    from network import Arrays

SEED = 0
WORKERS = 2
SPARSITY = 0.85
POINT = 0.01
OUT = Path("demo-out")
RETRAINING: dict[str, Any] = {
    "schedule": {"kind": "rounds", "rounds": 3},
    "recovery": {"kind": "fine_tune", "epochs": 5},
}
console = Console(highlight=False)


@dataclass(frozen=True)
class Result:
    """One job's outcome."""

    criterion: str
    retrained: bool
    folder: Path
    report: dict[str, Any]
    seconds: float


@contextmanager
def service(folder: Path) -> Iterator[Callable[[], Client]]:
    """`secateur up` on a free port with a data folder of its own.

    Yields:
        What waits until it is ready and gives its client.
    """
    os.environ["SECATEUR_CONFIG_DIR"] = str(folder / "config")
    for variable in ("SECATEUR_URL", "SECATEUR_API_KEY"):
        os.environ.pop(variable, None)
    command = [sys.executable, "-m", "secateur", "up", "--port", "0", "--workers", str(WORKERS)]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder / "data")], stdout=subprocess.PIPE, text=True
    )

    def ready() -> Client:
        assert process.stdout is not None
        check(any("is ready" in line for line in process.stdout), "the service did not start")
        return Client()  # finds address and key where `secateur up` wrote them

    try:
        yield ready
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def prepare(folder: Path) -> "tuple[Path, Path, Path, Arrays]":
    """Trains and exports the network; returns model, calibration, evaluation files and arrays."""
    threads.prepare(1)  # of this process, which trains on batches of 64 x 64 numbers
    # While the service starts.
    from network import accuracy, digits, export, save, train

    calibration, evaluation = digits(SEED)
    net = train(calibration, SEED)
    dense = accuracy(net, evaluation)
    weights = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    console.print(f"Trained 64-32-10 on 8x8 digits: {weights:,} weights, accuracy {dense:.2%}")
    check(dense >= 0.96, f"the dense network reaches {dense:.2%}, less than 96 %")
    paths = folder / "digits.onnx", folder / "calibration.npz", folder / "evaluation.npz"
    export(net, paths[0])
    save(calibration, paths[1])
    save(evaluation, paths[2])
    return *paths, evaluation


def submit(
    client: Client, model: Model, data: dict[str, Dataset]
) -> tuple[dict[tuple[str, bool], Job], Job]:
    """All jobs: by criterion and whether they retrain, and the search. What takes longest first."""
    jobs = {}
    for criterion in ("obs", "obd", "magnitude"):
        for retrained in (True, False):
            spec = {"criterion": {"kind": criterion}, "target": {"sparsity": SPARSITY}}
            spec |= {"seed": SEED, **(RETRAINING if retrained else {})}
            jobs[criterion, retrained] = client.submit(model, data, spec, name=_how(retrained))
    limit = {"max_drop": {"drop": POINT, "resolution": 0.1}}
    obd = {"criterion": {"kind": "obd"}, "target": limit, "seed": SEED}
    return jobs, client.submit(model, data, obd, name="within one point")


def _how(retrained: bool) -> str:
    return "with retraining" if retrained else "one shot"


def followed(client: Client, job: Job, name: str) -> tuple[Job, float]:
    """The job when it is over, and the seconds that it ran."""
    if console.is_terminal:
        with JobDisplay(console, job.spec) as display:
            display.say(name)
            for event in client.events(job):
                display.handle(event.event)
    job = client.wait(job)
    if job.failure is not None:
        raise job.failure
    check(job.state == "succeeded", f"job {job.id} ended {job.state}")
    assert job.started_at is not None
    assert job.finished_at is not None
    return job, (job.finished_at - job.started_at).total_seconds()


def pruned(client: Client, job: Job, criterion: str, retrained: bool) -> Result:
    """One job, followed and downloaded."""
    name = f"{criterion}, {_how(retrained)}"
    job, seconds = followed(client, job, name)
    folder = OUT / f"{criterion}-{'retrained' if retrained else 'one-shot'}"
    client.download(job, folder)
    result = Result(criterion, retrained, folder, client.report(job), seconds)
    dense = result.report["metrics"]["dense"]["accuracy"]["value"]
    console.print(
        f"  {name:<27} accuracy {dense:.2%} -> "
        f"{delivered_accuracy(result.report):.2%} in {result.seconds:.1f} s",
        soft_wrap=True,
    )
    return result


def found(client: Client, job: Job, model: Model, evaluation: "Arrays") -> Path:
    """The most sparsity within one point of accuracy; the folder of the answer and its curve."""
    job, seconds = followed(client, job, "within one point")
    folder = OUT / "within-one-point"
    client.download(job, folder)
    report = client.report(job)
    verify(folder / "digits.onnx", report, model, evaluation)
    drop, search = report["metrics"]["drops"]["accuracy"], report["search"]
    check(drop["value"] <= POINT + 1e-12, f"the search's answer drops by {drop['value']:.2%}")
    points = [point for point in report["curve"] if point["artifact"]]
    check(all((folder / point["artifact"]).is_file() for point in points), "a point is missing")
    console.print(
        f"Within one point of accuracy: {report['sparsity']['achieved']:.1%} can go. The drop is "
        f"{100 * drop['value']:.2f} points ({100 * drop['low']:.2f} to {100 * drop['high']:.2f}), "
        f"found with {search['probes']} probes in {seconds:.1f} s; "
        f"{len(points)} points of the curve are files too."
    )
    return folder


def check_results(results: list[Result], model: Model, evaluation: "Arrays") -> None:
    """Every file against its report, and the reports against each other."""
    for result in results:
        verify(result.folder / "digits.onnx", result.report, model, evaluation)
        sparsity = result.report["sparsity"]
        asked = round(SPARSITY * sparsity["total"])
        check(sparsity["removed"] == asked, f"{sparsity['removed']} removed instead of {asked}")
        failed = [c["name"] for c in result.report["checks"] if c["status"] == "fail"]
        check(not failed, f"{result.folder}: the report's own checks failed: {failed}")
        check((result.folder / "report.html").stat().st_size > 10_000, "report.html is empty")
    one_shot = {r.criterion: delivered_accuracy(r.report) for r in results if not r.retrained}
    margin = one_shot["obs"] - max(one_shot["obd"], one_shot["magnitude"])
    check(margin >= 0.08, f"OBS keeps only {margin:.2%} more accuracy than the next best")


def table(results: list[Result]) -> Table:
    """What it cost, as predicted and as measured."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    shown.add_column("criterion")
    shown.add_column("retraining")
    titles = ("dense", "pruned", "recovered", "predicted", "measured", "time")
    for name in titles:
        shown.add_column(name, justify="right")
    for result in results:
        metrics, loss = result.report["metrics"], result.report["loss"]
        values = [(metrics[s] or {}).get("accuracy") for s in ("dense", "pruned", "recovered")]
        shown.add_row(
            result.criterion,
            "rounds" if result.retrained else "none",
            *["" if v is None else f"{v['value']:.2%}" for v in values],
            *[f"{loss[k]:.3g}" for k in ("predicted_increase", "measured_increase")],
            f"{result.seconds:.1f} s",
        )
    return shown


def main() -> None:
    """The whole demo."""
    began = time.monotonic()
    # As Ctrl-C does: unwinds, so that the service is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    console.print("Starting the service (secateur up) ...")
    with service(OUT / "service") as ready:
        model_file, calibration_file, evaluation_file, evaluation = prepare(OUT)
        with ready() as client:
            console.print(f"Uploading to {client.url}")
            model = client.upload_model(model_file)
            data = {
                "calibration": client.upload_dataset(calibration_file),
                "evaluation": client.upload_dataset(evaluation_file),
            }
            model = client.wait_ready(model)
            data = {role: client.wait_ready(item) for role, item in data.items()}
            console.print(
                f"Pruning {SPARSITY:.0%} of the weights, six jobs, and a search; two at a time"
            )
            jobs, search = submit(client, model, data)
            results = [pruned(client, job, *what) for what, job in jobs.items()]
            results.sort(
                key=lambda r: (r.retrained, ("magnitude", "obd", "obs").index(r.criterion))
            )
            smallest = found(client, search, model, evaluation)
    check_results(results, model, evaluation)
    console.print(
        f"\n[bold]{SPARSITY:.0%} of the weights removed[/bold]; predicted and measured: increase "
        "of the calibration loss"
    )
    console.print(table(results))
    sizes = results[2].report["sizes"]
    console.print(
        f"Zeros alone do not make an "
        f"ONNX file smaller: uploaded {size(sizes['uploaded_bytes'])}, pruned "
        f"{size(sizes['pruned_bytes'])} (gzip {size(sizes['pruned_gzip_bytes'])}), all weights "
        f"sparse {size(sizes['sparse_bytes'])}."
    )
    console.print("Checked in onnxruntime: accuracy and exact zeros agree with every report.")
    best = next(r for r in results if r.criterion == "obs" and not r.retrained)
    for folder in (best.folder, smallest):
        console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)
    console.print(f"Done in {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    try:
        main()
    except DemoError as error:
        sys.exit(f"demo failed: {error}")
    except SecateurError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

"""A job on the service, followed to its end: what `prune` and `jobs wait` have in common."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from pruning.report.schema import ArtifactEntry
from pruning.request import Role
from secateur.cli.follow import JobDisplay, Uploading
from secateur.cli.inputs import Inputs
from secateur.client import Client
from secateur.errors import SecateurError
from secateur.resources import Artifact, Dataset, Job, Model


def upload(service: Client, inputs: Inputs, console: Console) -> tuple[Model, dict[Role, Dataset]]:
    """Uploads what the service does not have yet and waits until intake has read it."""
    with Uploading(console) as shown:
        model = service.upload_model(inputs.model, progress=shown.reporter(inputs.model))
        data = {
            role: service.upload_dataset(path, progress=shown.reporter(path))
            for role, path in inputs.data.items()
        }
    with JobDisplay(console) as display:
        display.say("Checking the uploads")
        model = service.wait_ready(model)
        return model, {role: service.wait_ready(item) for role, item in data.items()}


def follow(service: Client, job: Job, console: Console) -> Job:
    """Shows the job until it is over."""
    with JobDisplay(console) as display:
        for event in service.events(job):
            display.handle(event.event)
    return service.job(job.id)


def follow_or_cancel(service: Client, job: Job, console: Console) -> Job:
    """As `follow`; Ctrl-C asks the service to cancel and waits, a second one leaves at once."""
    try:
        return follow(service, job, console)
    except KeyboardInterrupt:
        console.print(
            Text.assemble(("Cancelling", "yellow"), f" {job.id} (Ctrl-C again leaves at once)"),
            soft_wrap=True,
        )
        try:
            service.cancel(job)
        except SecateurError as error:
            if error.status != 409:  # it has just ended by itself
                raise
        return service.wait(job, timeout=30)


def delivery_order(artifact: Artifact | ArtifactEntry) -> tuple[bool, str]:
    """The model and what belongs to it first, reports last."""
    return artifact.format.startswith("report"), artifact.name if artifact.format != "onnx" else ""


def download(service: Client, job: Job, out: Path, console: Console) -> list[Path]:
    """The job's artifacts, into `out`."""
    with Uploading(console, "Downloading") as shown:
        return [
            service.fetch(job, artifact, out, progress=shown.reporter(artifact.name))
            for artifact in sorted(job.artifacts, key=delivery_order)
        ]

"""A job on the service, followed to its end: what `prune` and `jobs wait` have in common."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.text import Text

from pruning.formats.magic import MODELS
from secateur._files import packed_name
from secateur._tar import tar_of, unpack, weights_beside
from secateur.cli.follow import JobDisplay, Uploading
from secateur.cli.inputs import Inputs
from secateur.cli.interrupt import be_deaf, leave_at_the_next
from secateur.cli.output import size
from secateur.client import Client
from secateur.errors import SecateurError
from secateur.resources import Artifact, Dataset, Job, Model

if TYPE_CHECKING:
    from pruning.report.schema import ArtifactEntry
    from pruning.request import Role

A = TypeVar("A", Artifact, "ArtifactEntry")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around an upload: says which file the service found too large."""
    try:
        yield
    except SecateurError as error:
        if error.code != "too_large":
            raise
        limit = error.details.get("limit")
        taken = f"the {size(limit)} that" if isinstance(limit, int) else "what"
        raise SecateurError(
            "too_large",
            f"{path} has {size(_bytes(path))}, more than {taken} the service takes.",
            where=str(path),
            hint="Who runs the service can raise SECATEUR_MODEL_BYTES_LIMIT or "
            "SECATEUR_DATASET_BYTES_LIMIT; `prune --local` has no limit.",
        ) from None


def _bytes(path: Path) -> int:
    tar = tar_of(path)
    return path.stat().st_size if tar is None else tar.size


def upload(
    service: Client, inputs: Inputs, console: Console
) -> tuple[Model, dict["Role", Dataset], Model | None]:
    """Uploads what the service does not have yet and waits until intake has read it.

    Returns:
        The model, the data by role, and the earlier checkpoint of the model, where one was given.
    """
    earlier = None
    with Uploading(console) as shown:
        with naming(inputs.model):
            model = service.upload_model(inputs.model, progress=shown.reporter(inputs.model))
        if inputs.rewind_to is not None:
            with naming(inputs.rewind_to):
                progress = shown.reporter(inputs.rewind_to)
                earlier = service.upload_model(inputs.rewind_to, progress=progress)
        data = {}
        for role, path in inputs.data.items():
            with naming(path):
                data[role] = service.upload_dataset(path, progress=shown.reporter(path))
    with JobDisplay(console) as display:
        display.say("Checking the uploads")
        model = service.wait_ready(model)
        earlier = earlier and service.wait_ready(earlier)
        return model, {role: service.wait_ready(item) for role, item in data.items()}, earlier


def follow(service: Client, job: Job, console: Console) -> Job:
    """Shows the job until it is over.

    Raises:
        SecateurError: Where the service stays away: the job goes on, and how to follow it.
    """
    try:
        with JobDisplay(console, job.spec) as display:
            for event in service.events(job):
                display.handle(event.event)
        return service.wait(job)
    except SecateurError as error:
        if error.code not in ("connection_failed", "unavailable"):
            raise
        raise SecateurError(
            error.code,
            f"{error.message} The job goes on.",
            where=error.where,
            hint=f"`secateur jobs wait {job.id}` follows it, once the service answers again.",
            **error.details,
        ) from None


def follow_or_cancel(service: Client, job: Job, console: Console) -> Job:
    """As `follow`; Ctrl-C asks the service to cancel and waits, a second one leaves at once."""
    try:
        return follow(service, job, console)
    except KeyboardInterrupt:
        be_deaf()  # until the service knows: a second Ctrl-C would leave the job running
        try:
            service.cancel(job)
        except SecateurError as error:
            if error.status != 409:  # it has just ended by itself
                raise
        finally:
            leave_at_the_next()
        console.print(
            Text.assemble(("Cancelling", "yellow"), f" {job.id} (Ctrl-C again leaves at once)"),
            soft_wrap=True,
        )
        return service.wait(job, timeout=30)


def delivery_order(artifact: "Artifact | ArtifactEntry") -> tuple[bool, str]:
    """The model and what belongs to it first, reports last."""
    last = artifact.format.startswith(("report", "manifest"))
    return last, "" if is_model(artifact) else artifact.name


def is_model(artifact: "Artifact | ArtifactEntry") -> bool:
    """Whether the artifact is the pruned model, or one of its files."""
    return artifact.format in MODELS


def under_name(artifacts: Iterable[A], model: Path | None) -> list[tuple[A, str]]:
    """Artifacts in the order of delivery, each with the name of the file to write.

    The model gets the name of `model`, and what is named after it follows, whatever the service
    knows the model as.
    """
    ordered = sorted(artifacts, key=delivery_order)
    models = [a for a in ordered if is_model(a)]
    # A model of several files keeps their names, by which they know each other.
    alone = models[0] if len(models) == 1 else None
    theirs = Path(alone.name).stem if alone else None
    own = "" if model is None else model.resolve().name if model.is_dir() else model.stem

    def named(artifact: A) -> str:
        if model is None:
            return artifact.name
        if artifact is alone:
            return model.name if tar_of(model) is None else packed_name(model)
        if theirs is not None and artifact.name.startswith(f"{theirs}."):
            return own + artifact.name.removeprefix(theirs)
        return artifact.name

    return [(artifact, named(artifact)) for artifact in ordered]


def unfolded(written: list[Path], model: Path) -> list[Path]:
    """The files, with the tar of a model given as several files as these files again.

    Those of a folder lie in a folder, those of an ONNX model beside each other.
    """
    if tar_of(model) is None:
        return written
    found = []
    for path in written:
        if path.name != packed_name(model):
            found.append(path)
        elif model.is_dir():
            unpack(path, path.with_suffix(""))
            found.append(path.with_suffix(""))
        else:
            unpack(path, path.parent)
            names = (p.relative_to(model.parent) for p in (model, *weights_beside(model)))
            found += [path.parent / name for name in names]
    return found


def download(
    service: Client, job: Job, names: Iterable[tuple[Artifact, str]], out: Path, console: Console
) -> list[Path]:
    """The artifacts, under these names, into `out`."""
    with Uploading(console, "Downloading") as shown:
        return [
            service.fetch(job, artifact, out, name=name, progress=shown.reporter(name))
            for artifact, name in names
        ]

"""`secateur prune --local`: the same run in this process, without a service."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pruning.events import Event
from pruning.threads import prepare, share
from secateur._files import file_sha256, packed_name
from secateur._tar import tar_of
from secateur.cli.follow import JobDisplay
from secateur.cli.inputs import Inputs, check_names
from secateur.cli.remote import under_name, unfolded
from secateur.errors import SecateurError, from_fields, require


def run_local(
    inputs: Inputs, out: Path, force: bool, console: Console
) -> tuple[list[Path], SecateurError | None]:
    """Runs the job and puts its files into `out`.

    Returns:
        The files, and the gate that was missed, if one was.
    """
    require("pruning", "torch", "numpy", "onnx", "onnxruntime", "safetensors", "jinja2")
    threads = share()
    prepare(threads)
    with JobDisplay(console, inputs.spec) as display, _ticking(display):
        display.say("Starting")
        from pruning.request import FileRef, RunRequest
        from pruning.run import run

        def emit(event: Event) -> None:
            display.handle(event)

        def reference(path: Path) -> FileRef:
            return FileRef(path=str(path.resolve()), name=path.name, sha256=file_sha256(path))

        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that files move into place by renaming.
        folder = Path(tempfile.mkdtemp(prefix=".secateur-", dir=out.parent))
        try:
            earlier = None
            if inputs.rewind_to is not None:
                earlier = reference(_packed(inputs.rewind_to, folder / "earlier"))
            request = RunRequest(
                model=reference(_packed(inputs.model, folder / "model")),
                rewind_to=earlier,
                data={role: reference(path) for role, path in inputs.data.items()},
                spec=inputs.spec,
                threads=threads,
                device="auto",
            )
            result = run(request, folder, emit)
            names = under_name(result.artifacts, inputs.model)
            check_names(inputs, out, [name for _, name in names], force)
            out.mkdir(exist_ok=True)
            written = []
            for artifact, name in names:
                os.replace(folder / "out" / artifact.name, out / name)
                written.append(out / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    missed = from_fields(result.rejected.model_dump()) if result.rejected else None
    return unfolded(written, inputs.model), missed


@contextmanager
def _ticking(display: JobDisplay) -> Iterator[None]:
    """Lets the display speak every second: nobody else does while one long operation runs."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            display.tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _packed(model: Path, folder: Path) -> Path:
    """The model as one file, several files as the tar that would be uploaded."""
    tar = tar_of(model)
    if tar is None:
        return model
    folder.mkdir()
    path = folder / packed_name(model)
    with path.open("wb") as file:
        file.writelines(tar.chunks())
    return path

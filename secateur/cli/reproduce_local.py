"""`secateur reproduce --local`: the job of a manifest in this process, with files at hand."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.console import Console

from pruning.manifest import NAME, Input, Manifest
from pruning.threads import prepare
from secateur._files import file_sha256
from secateur._tar import tar_of, weights_beside
from secateur.cli.follow import JobDisplay
from secateur.errors import SecateurError, require

_OPTIONS = {"calibration": "--data", "rewind_to": "--rewind-to"}


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file.

    Raises:
        SecateurError: `usage`.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no manifest"
        raise SecateurError(
            "usage",
            f"{path} can't be read: {reason}.",
            where=str(path),
            hint="With --local, give the manifest.json that the job delivered.",
        ) from None


def check_given(manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Refuses files that are not those of the manifest.

    Raises:
        typer.BadParameter: Exit code 2, with the option.
    """
    for part in manifest.inputs:
        option = _OPTIONS.get(part.role, f"--{part.role}")
        if part.role not in files:
            raise typer.BadParameter(f"the job had {part.name} as {part.role}", param_hint=option)
        path = files[part.role]
        if part.sha256 is not None and part.sha256 not in (found := _digests(path)):
            raise typer.BadParameter(
                f"{path} has the digest {found[0]}; the manifest says {part.sha256}",
                param_hint=option,
            )
    known = {part.role for part in manifest.inputs}
    for role in files:
        if role not in known:
            option = _OPTIONS.get(role, f"--{role}")
            raise typer.BadParameter(f"the job had no {role}", param_hint=option)


def again(
    manifest: Manifest, files: Mapping[str, Path], out: Path | None, console: Console
) -> Manifest:
    """Runs the job and gives its new manifest.

    Threads are those of the manifest, since sums depend on them, and the device where it is there.

    Args:
        manifest: Of the first run.
        files: Inputs by role.
        out: Where the files go; None for nowhere.
        console: For progress.
    """
    require("pruning", "torch", "numpy", "onnx", "onnxruntime", "safetensors", "jinja2")
    prepare(manifest.threads)
    with JobDisplay(console, manifest.spec) as display:
        display.say("Starting")
        from pruning.request import FileRef, RunRequest
        from pruning.run import run

        # Beside the target, so that files move into place by renaming.
        beside = None if out is None else out.resolve().parent
        if beside is not None:
            beside.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".secateur-", dir=beside))
        try:

            def reference(part: Input) -> FileRef:
                path = _as_uploaded(files[part.role], part, folder / "inputs")
                return FileRef(path=str(path.resolve()), name=part.name, sha256=part.sha256)

            parts = {part.role: reference(part) for part in manifest.inputs}
            request = {
                "model": parts.pop("model"),
                "rewind_to": parts.pop("rewind_to", None),
                "data": parts,
                "spec": manifest.spec,
                "threads": manifest.threads,
                "device": "auto" if manifest.device.startswith("cuda") else "cpu",
            }
            run(RunRequest.model_validate(request), folder, display.handle)
            after = read_manifest(folder / "out" / NAME)
            if out is not None:
                out.mkdir(exist_ok=True)
                for path in (folder / "out").iterdir():
                    path.replace(out / path.name)
            return after
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _digests(path: Path) -> list[str]:
    """What an upload of the path would be known by: several files as a tar, or one by one."""
    packed = tar_of(path)
    if packed is None:
        return [file_sha256(path)]
    tar = hashlib.sha256()
    for chunk in packed.chunks():
        tar.update(chunk)
    return [tar.hexdigest(), _listed(path)]


def _together(path: Path) -> list[Path]:
    """The files of a model of several: of a folder, or those that an ONNX model names."""
    if path.is_dir():
        return [inside for inside in path.iterdir() if inside.is_file()]
    return [path, *weights_beside(path)]


def _listed(path: Path) -> str:
    """The digest of several files sent as one model; see POST /v1/models."""
    files = sorted(_together(path))
    entries = [
        {"bytes": path.stat().st_size, "path": path.name, "sha256": file_sha256(path)}
        for path in files
        if not path.name.startswith(".")
    ]
    return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()


def _as_uploaded(path: Path, part: Input, folder: Path) -> Path:
    """The path as the first run had it, several files as a tar unless they were sent one by one."""
    tar = tar_of(path)
    if tar is None:
        return path
    folder.mkdir(exist_ok=True)
    if part.sha256 == _listed(path):
        if path.is_dir():
            return path
        beside = folder / part.role
        beside.mkdir()
        for file in _together(path):
            shutil.copyfile(file, beside / file.name)
        return beside
    packed = folder / f"{part.role}.tar"
    with packed.open("wb") as sink:
        sink.writelines(tar.chunks())
    return packed

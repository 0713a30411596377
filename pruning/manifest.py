"""manifest.json: what a job was made of and what came out, by digest. Torch-free.

With it the job can be run again, here or elsewhere, and the two be compared (docs/reproduce.md).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pruning.report.schema import ArtifactEntry, Report, results_json
from pruning.request import FileRef, RunRequest

NAME, FORMAT = "manifest.json", "manifest"
"""Of the artifact."""

VERSION = "1.0"


class _Part(BaseModel):
    # Fields of a later version are passed over: what is here keeps its meaning.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Input(_Part):
    """One file, or one folder of files, that the job was given."""

    role: Literal["model", "rewind_to", "calibration", "training", "evaluation"]
    name: str = Field(description="Display name; outputs are named after the model's.")
    sha256: str | None = Field(
        default=None,
        description="Digest; of a model uploaded as several files that of their list, see POST "
        "/v1/models. Null where the caller did not say.",
    )
    bytes: int | None = Field(default=None, description="Size; null where the file was not there.")


class Output(_Part):
    """One file that the job delivered."""

    name: str
    bytes: int
    sha256: str
    format: str = Field(description="As the job lists it: onnx, masks, sparse, point, ...")
    reproduced: bool = Field(
        description="Whether the same job gives the same digest again on the same versions, "
        "threads and device; the reports hold timings and do not."
    )


class Versions(_Part):
    """What the job ran on, as far as it can decide about digests."""

    secateur: str
    python: str
    torch: str
    numpy: str
    onnx: str | None = Field(default=None, description="Null where the model is no ONNX file.")
    onnxruntime: str | None = None
    platform: str = Field(description="Operating system and machine.")


class Manifest(_Part):
    """The whole file."""

    schema_version: str = Field(default=VERSION, description="Of this file's layout.")
    inputs: list[Input]
    spec: dict[str, Any] = Field(description="The complete spec, defaults filled in.")
    seeds: list[int] = Field(
        description="The job's seed, then those of further runs of a comparison."
    )
    outputs: list[Output] = Field(description="All that was delivered but this file, by name.")
    results_sha256: str = Field(
        description="Digest of the report without timings, environment and latency."
    )
    versions: Versions
    threads: int = Field(description="Threads of one operation.")
    device: str = Field(description="cpu or cuda, with the device's name.")

    def input(self, role: str) -> Input | None:
        """The input in a role."""
        return next((found for found in self.inputs if found.role == role), None)


def make_manifest(
    report: Report,
    request: RunRequest,
    artifacts: Sequence[ArtifactEntry],
    folder: Path | None = None,
) -> Manifest:
    """The manifest of a job that is over.

    Args:
        report: Complete.
        request: What was asked for.
        artifacts: All files delivered.
        folder: What the request's paths are relative to; sizes of inputs are taken there.
    """
    named: dict[str, FileRef | None] = {"model": request.model, "rewind_to": request.rewind_to}
    named |= {str(role): ref for role, ref in request.data.items()}
    inputs = []
    for role, ref in named.items():
        if ref is not None:
            size = None if folder is None else _size(folder / ref.path)
            entry = {"role": role, "name": ref.name, "sha256": ref.sha256, "bytes": size}
            inputs.append(Input.model_validate(entry))
    seen, compared = report.environment, report.spec.comparison
    runs = compared.seeds if compared.criteria else 1
    return Manifest(
        inputs=inputs,
        spec=report.spec.model_dump(mode="json"),
        seeds=list(range(report.seed, report.seed + runs)),
        outputs=[
            Output(**entry.model_dump(), reproduced=not entry.format.startswith("report"))
            for entry in sorted(artifacts, key=lambda entry: entry.name)
            if entry.name != NAME
        ],
        results_sha256=hashlib.sha256(results_json(report)).hexdigest(),
        versions=Versions.model_validate(seen.model_dump(include=set(Versions.model_fields))),
        threads=seen.threads,
        device=seen.device,
    )


def manifest_json(manifest: Manifest) -> bytes:
    """The bytes of manifest.json."""
    values = manifest.model_dump(mode="json")
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _size(path: Path) -> int | None:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.exists() else None


class Compared(_Part):
    """One output of two runs."""

    name: str
    result: Literal["same", "differs", "missing", "not compared"] = Field(
        description="`not compared`: its bytes hold timings and are never the same."
    )
    before: str | None = Field(description="Digest; null where the first run lacks it.")
    after: str | None = Field(description="Digest; null where the second run lacks it.")


class Comparison(_Part):
    """What two manifests of the same job have in common."""

    outputs: list[Compared] = Field(description="By name; the report's results are the last.")
    changed: dict[str, tuple[str | None, str | None]] = Field(
        description="Versions, threads, device, and inputs that differ: before and after."
    )

    @property
    def same(self) -> bool:
        """Whether everything that should be the same is."""
        return all(output.result in ("same", "not compared") for output in self.outputs)


RESULTS = "results"
"""What the report's results are called among the outputs of a comparison."""


def compare(before: Manifest, after: Manifest) -> Comparison:
    """Digests output by output, and what of the circumstances is not the same."""
    first = {output.name: output for output in before.outputs}
    second = {output.name: output for output in after.outputs}
    outputs = []
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        was, now = one.sha256 if one else None, other.sha256 if other else None
        result = "same" if was == now else "differs"
        if one is None or other is None:
            result = "missing"
        elif not one.reproduced:
            result = "not compared"
        outputs.append(_compared(name, result, was, now))
    results = (before.results_sha256, after.results_sha256)
    same = "same" if results[0] == results[1] else "differs"
    outputs.append(_compared(RESULTS, same, *results))
    old, new = _circumstances(before), _circumstances(after)
    changed = {
        name: (old.get(name), new.get(name)) for name in old | new if old.get(name) != new.get(name)
    }
    return Comparison(outputs=outputs, changed=changed)


def _compared(name: str, result: str, before: str | None, after: str | None) -> Compared:
    values = {"name": name, "result": result, "before": before, "after": after}
    return Compared.model_validate(values)


def _circumstances(manifest: Manifest) -> dict[str, str | None]:
    """All that could make outputs differ, by name."""
    found = dict(manifest.versions.model_dump())
    found |= {"threads": str(manifest.threads), "device": manifest.device}
    found |= {f"input {part.role}": part.sha256 for part in manifest.inputs}
    return found | {"spec": json.dumps(manifest.spec, sort_keys=True)}

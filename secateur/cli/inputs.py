"""From the options of `secateur prune` to a spec and files, refused before anything is sent."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from pruning.axes import as_inputs, parse_declared
from pruning.schedule.earlier import check_use
from pruning.spec import default_spec, parse_spec
from secateur._tar import weights_beside
from secateur.cli.labels import labelled
from secateur.errors import SecateurError

if TYPE_CHECKING:
    from pruning.request import Role


@dataclass(frozen=True)
class Inputs:
    """What shall be pruned, with what, how."""

    model: Path
    data: dict["Role", Path]
    spec: dict[str, Any]
    rewind_to: Path | None = None


@dataclass(frozen=True)
class Wanted:
    """Options on the target other than a sparsity, and on the inputs.

    Args:
        max_drop: The largest drop.
        metric: Of what; else what the objective measures.
        points: Further sparsities, between commas.
        samples: Axes of the samples as INPUT=AXIS, where the model does not tell.
    """

    max_drop: float | None = None
    metric: str | None = None
    points: str | None = None
    samples: Sequence[str] | None = None

    def into(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The spec with these in the place of its own.

        Raises:
            typer.BadParameter: `--metric` alone, or points that are no numbers.
            SecateurError: What is wrong with `--samples`.
        """
        found = dict(spec)
        if self.samples:
            declared = as_inputs(parse_declared(self.samples, "--samples"))
            found["inputs"] = dict(found.get("inputs") or {}) | declared
        if self.metric is not None and self.max_drop is None:
            raise typer.BadParameter("--metric goes with --max-drop")
        if self.max_drop is not None:
            objective = dict(found.get("objective") or {})
            unlabelled = objective.get("loss") == "match_dense"
            listed = list(objective.get("metrics") or ([] if unlabelled else ["accuracy"]))
            fitting = (m for m in listed if _fits(m, unlabelled))
            metric = self.metric or next(fitting, "agreement" if unlabelled else "accuracy")
            if metric not in listed:
                found["objective"] = objective | {"metrics": [*listed, metric]}
            found["target"] = {"max_drop": {"metric": metric, "drop": self.max_drop}}
        if self.points is not None:
            try:
                points = sorted({float(part) for part in self.points.split(",") if part.strip()})
            except ValueError:
                raise typer.BadParameter(
                    f"{self.points} is no list of sparsities, as in 0.5,0.7,0.9",
                    param_hint="--points",
                ) from None
            found["curve"] = dict(found.get("curve") or {}) | {"points": points}
        return found


def _fits(metric: str, unlabelled: bool) -> bool:
    return (metric != "accuracy") == unlabelled


def inputs(
    model: Path,
    calibration: Path,
    training: Path | None,
    evaluation: Path | None,
    spec_file: Path | None,
    sparsity: float | None,
    criterion: str | None,
    rewind_to: Path | None = None,
    wanted: Wanted | None = None,
) -> Inputs:
    """Checked inputs.

    Raises:
        typer.BadParameter: For options that exclude each other; exit code 2.
        SecateurError: What is wrong with the spec, or that it does not go with `rewind_to`.
    """
    given: dict[Role, Path | None] = {
        "calibration": calibration,
        "training": training,
        "evaluation": evaluation,
    }
    data = {role: path for role, path in given.items() if path is not None}
    spec = read_spec(spec_file) if spec_file else {}
    if criterion is not None:
        same = (
            isinstance(spec.get("criterion"), dict) and spec["criterion"].get("kind") == criterion
        )
        if not same:
            # Parameters and update belong to the criterion that was replaced.
            spec["criterion"] = {"kind": criterion}
            spec.pop("compensation", None)
    wanted = wanted or Wanted()
    if sparsity is not None:
        if wanted.max_drop is not None:
            raise typer.BadParameter("--sparsity and --max-drop exclude each other")
        spec["target"] = {"sparsity": sparsity}
    if spec_file is None and criterion is None:
        spec = default_spec(labelled(calibration)) | spec
    spec = wanted.into(spec)
    check_use(parse_spec(spec), rewind_to is not None)
    return Inputs(model, data, spec, rewind_to)


def read_spec(path: Path) -> dict[str, Any]:
    """A spec in YAML or JSON.

    Raises:
        SecateurError: `spec_invalid` with the line for a file that is neither.
    """
    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise SecateurError(
            "spec_invalid",
            f"{path} is not {'JSON' if path.suffix == '.json' else 'YAML'}: "
            + " ".join(str(error).split()),
            where=str(path),
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SecateurError(
            "spec_invalid", f"A spec is a mapping, not {type(values).__name__}.", where=str(path)
        )
    return values


def check_target(inputs: Inputs, out: Path, force: bool) -> None:
    """Refuses to overwrite anything that was not made by an earlier run and given up by --force.

    Raises:
        typer.BadParameter: Exit code 2.
    """
    names = (
        inputs.model.name,
        *(p.relative_to(inputs.model.parent).as_posix() for p in weights_beside(inputs.model)),
        f"{inputs.model.stem}.masks.safetensors",
        f"{inputs.model.stem}.sparse.safetensors",
        "report.json",
        "report.html",
        "manifest.json",
    )
    check_names(inputs, out, names, force)


def check_names(inputs: Inputs, out: Path, names: Iterable[str], force: bool) -> None:
    """Refuses, as `check_target` does, for these files.

    Raises:
        typer.BadParameter: Exit code 2.
    """
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{out} is a file", param_hint="--out")
    files = (inputs.model, *weights_beside(inputs.model), inputs.rewind_to, *inputs.data.values())
    given = {path.resolve() for path in files if path is not None}
    for path in (out / name for name in names):
        if path.resolve() in given:
            raise typer.BadParameter(
                f"{path} is an input; choose another folder", param_hint="--out"
            )
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} exists; --force overwrites it", param_hint="--out")

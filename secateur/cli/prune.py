"""`secateur prune` and `secateur plan`: their options.

What they do is in `prune_run`, which costs imports that their help does without.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from secateur.cli.samples import SAMPLES


def _file(help: str, *names: str) -> Any:
    return typer.Option(*names, exists=True, dir_okay=False, readable=True, help=help)


ModelFile = Annotated[
    Path,
    typer.Argument(
        exists=True,
        metavar="MODEL",
        help="ONNX file, .pt2, or a folder: Hugging Face, or architecture.json and its weights.",
    ),
]
Data = Annotated[
    Path,
    _file(
        "Calibration data: .npz, .safetensors or .parquet of the model's inputs, .jsonl of texts, "
        "or a .zip of images.",
        "--data",
    ),
]
Training = Annotated[Path | None, _file("Data to recover on; else the calibration data.")]
Evaluation = Annotated[Path | None, _file("Data to measure on; else a held-out share.")]
RewindTo = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        metavar="MODEL",
        help="Earlier checkpoint of MODEL, for schedules that rewind to one or start from it.",
    ),
]
SpecFile = Annotated[Path | None, _file("Spec in YAML or JSON; options override it.", "--spec")]
Sparsity = Annotated[
    float | None, typer.Option(help="Share of the weights to remove (default 0.5).")
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Instead of a sparsity: remove as much as this drop of the metric allows.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="The metric of --max-drop: accuracy (default); without labels, agreement or cosine."
    ),
]
Points = Annotated[
    str | None,
    typer.Option(help="Further sparsities of the trade-off curve, for example 0.5,0.7,0.9."),
]
Criterion = Annotated[
    str | None,
    typer.Option(
        help="What decides which weights go (default obs); `secateur criteria` lists them."
    ),
]

Samples = Annotated[list[str] | None, SAMPLES]


def prune(
    model: ModelFile,
    data: Data,
    training: Training = None,
    evaluation: Evaluation = None,
    spec: SpecFile = None,
    sparsity: Sparsity = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    points: Points = None,
    criterion: Criterion = None,
    rewind_to: RewindTo = None,
    samples: Samples = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the result (default MODEL-pruned).")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run in this process, without a service.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the job in lists.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier result.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the report in a browser.")] = False,
) -> None:
    """Prune MODEL and put the result, with its report, into a folder.

    Exit code: 0 done, 1 failed, 2 usage, 3 done but a gate of the spec was missed, 130 cancelled.
    """
    from secateur.cli.inputs import Wanted, inputs
    from secateur.cli.prune_run import run

    wanted = Wanted(max_drop, metric, points, samples)
    given = inputs(model, data, training, evaluation, spec, sparsity, criterion, rewind_to, wanted)
    target = out or Path(f"{model.resolve().name if model.is_dir() else model.stem}-pruned")
    run(given, target, local=local, name=name, force=force, show=open_)


def plan(
    model: ModelFile,
    data: Data,
    training: Training = None,
    evaluation: Evaluation = None,
    spec: SpecFile = None,
    sparsity: Sparsity = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    points: Points = None,
    criterion: Criterion = None,
    rewind_to: RewindTo = None,
    samples: Samples = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Say what `prune` would do and cost, or why it can't, without running it."""
    from secateur.cli.inputs import Wanted, inputs
    from secateur.cli.prune_run import print_plan

    wanted = Wanted(max_drop, metric, points, samples)
    given = inputs(model, data, training, evaluation, spec, sparsity, criterion, rewind_to, wanted)
    print_plan(given, json=json)

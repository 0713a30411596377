"""The option of `prune`, `plan`, `export` and `models upload` that declares axes of inputs."""

import typer

SAMPLES = typer.Option(
    metavar="INPUT=AXIS",
    help="Axis of a model's input that holds the samples, counted from 0, or `shared`, where the "
    "file does not tell; may be repeated.",
)

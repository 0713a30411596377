"""`secateur models` and `secateur datasets`: the same verbs on two kinds of upload.

A list shall be there at once, so that what only an upload needs is imported by that.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from secateur.cli.lazy import Group
from secateur.cli.output import (
    client,
    print_fields,
    print_json,
    print_table,
    size,
    stderr,
    stdout,
)
from secateur.cli.samples import SAMPLES

if TYPE_CHECKING:
    from secateur.client import Client
    from secateur.resources import Dataset, Model

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


def _details(item: "Model | Dataset") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": item.id,
        "name": item.name,
        "state": item.state,
        "size": size(item.bytes),
        "sha256": item.sha256,
        "created": item.created_at,
    }
    facts = item.facts or {}
    if item.object == "model":
        fields |= {
            "format": " ".join(filter(None, [facts.get("format"), facts.get("version")])),
            "parameters": facts.get("parameters"),
            "prunable": facts.get("prunable_parameters"),
            "inputs": _tensors(facts.get("inputs", [])),
            "layers": ", ".join(
                f"{layer['name']} {layer['kind']} {layer['shape']}"
                for layer in facts.get("layers", [])
            ),
        }
    else:
        target = facts.get("target")
        fields |= {
            "samples": facts.get("samples"),
            "arrays": _tensors(facts.get("arrays", [])),
            "target": target and f"{target['dtype']} {target['shape']}",
            "classes": target and target.get("classes"),
        }
    if item.failure is not None:
        fields["error"] = str(item.failure)
    return fields


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{t['name']} {t['dtype']} {t['shape']}" for t in tensors)


def _app(noun: Literal["model", "dataset"]) -> typer.Typer:
    app = typer.Typer(cls=Group, help=f"Uploaded {noun}s.", no_args_is_help=True)

    is_model = noun == "model"

    def listed(service: "Client") -> "Iterator[Model] | Iterator[Dataset]":
        return service.models() if is_model else service.datasets()

    def one(service: "Client", id: str) -> "Model | Dataset":
        return service.model(id) if is_model else service.dataset(id)

    @app.command("list", help=f"List the {noun}s, newest first.")
    def list_(json: Json = False) -> None:
        with client() as service:
            items = list(listed(service))
        if json:
            print_json(items)
            return
        print_table(
            ["id", "state", "size", "created", "name"],
            [[i.id, i.state, size(i.bytes), i.created_at, i.name] for i in items],
            f"No {noun}s yet.",
        )

    @app.command(help=f"Show one {noun} and what intake learned of it.")
    def show(id: str, json: Json = False) -> None:
        with client() as service:
            item = one(service, id)
        if json:
            print_json(item)
        else:
            print_fields(_details(item))

    @app.command(help=f"Upload a {noun} and wait until it has been read.")
    def upload(
        file: Annotated[Path, typer.Argument(exists=True, dir_okay=is_model, readable=True)],
        name: Annotated[str | None, typer.Option(help="Shown instead of the file name.")] = None,
        samples: Annotated[list[str] | None, SAMPLES] = None,
        json: Json = False,
    ) -> None:
        from pruning.axes import parse_declared
        from secateur.cli.follow import Uploading
        from secateur.cli.remote import naming

        declared = parse_declared(samples or [], "--samples")
        if declared and not is_model:
            raise typer.BadParameter("data have the samples first", param_hint="--samples")

        with client() as service, Uploading(stderr()) as shown, naming(file):
            report = shown.reporter(file)
            item: Model | Dataset
            if is_model:
                item = service.wait_ready(
                    service.upload_model(file, name, samples=declared, progress=report)
                )
            else:
                item = service.wait_ready(service.upload_dataset(file, name, progress=report))
        if json:
            print_json(item)
        else:
            print_fields(_details(item))

    @app.command(help=f"Delete {noun}s that no job uses.")
    def delete(ids: list[str]) -> None:
        with client() as service:
            for id in ids:
                (service.delete_model if is_model else service.delete_dataset)(id)
                stdout().print(f"Deleted {noun} {id}.", soft_wrap=True)

    return app


models = _app("model")
datasets = _app("dataset")

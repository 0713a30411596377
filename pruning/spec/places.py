"""Every mapping that a spec may hold, by its place: read off the models, so that it is complete."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pruning.spec.spec import Spec

Variants = dict[str, type[BaseModel]]


@cache
def places() -> dict[str, Variants]:
    """The models by dotted place (`spec.recovery.optimizer`).

    Where `kind` tells them apart they are listed by kind, in the order of the union; else there is
    one model under the empty string.
    """
    found: dict[str, Variants] = {"spec": {"": Spec}}
    found.update(_below("spec", Spec))
    return found


@cache
def unions() -> frozenset[str]:
    """Places where `kind` decides between models: pydantic puts its value into error paths."""
    return frozenset(
        place
        for place, _, field in _fields("spec", Spec)
        if field.discriminator or _discriminates(field.annotation)
    )


@cache
def mappings() -> frozenset[str]:
    """Places that hold values by names which the user chooses, such as patterns of layers."""
    return frozenset(
        place for place, _, field in _fields("spec", Spec) if get_origin(field.annotation) is dict
    )


def _discriminates(annotation: Any) -> bool:
    """Whether `kind` decides somewhere inside: in a list, or beside null."""
    marks = getattr(annotation, "__metadata__", ())
    return any(getattr(mark, "discriminator", None) for mark in marks) or any(
        _discriminates(part) for part in get_args(annotation)
    )


def _below(place: str, model: type[BaseModel]) -> dict[str, Variants]:
    found: dict[str, Variants] = {}
    for inner, _, field in _fields(place, model):
        variants = {_kind(m): m for m in _models(field.annotation)}
        if variants:
            found.setdefault(inner, {}).update(variants)
    return found


def _fields(place: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel], FieldInfo]]:
    """All fields of a model and of the models within it, with their places."""
    for name, field in model.model_fields.items():
        yield f"{place}.{name}", model, field
        for inner in _models(field.annotation):
            yield from _fields(f"{place}.{name}", inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    return "" if field is None else str(field.default)

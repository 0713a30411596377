"""Commands whose modules are imported when they run: a list of them costs none of their imports."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption


@dataclass(frozen=True)
class Place:
    """Where a command is.

    Args:
        module: Its module under `secateur.cli`.
        name: A function there, or a `typer.Typer` with commands of its own.
        help: First line of its help, for the list of commands.
    """

    module: str
    name: str
    help: str

    def command(self, name: str) -> Any:
        """The command itself, under a name; imports its module."""
        found = getattr(import_module(f"secateur.cli.{self.module}"), self.name)
        holder = typer.Typer(add_completion=False)
        holder.callback()(_nothing)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
        made: Any = typer.main.get_command(holder)
        return made.commands[name]


def _nothing() -> None:
    """Makes a group also of a single command."""


class _Option(TyperOption):
    """An option that imports what converts its value, for typer pydantic, once it has one."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        if value is not None or self.multiple:
            return super().process_value(ctx, value)
        return None if self.callback is None else self.callback(ctx, self, None)


class Group(TyperGroup):
    """A group that imports nothing, on the way to a command, that its help does without."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options."""
        # Here and not before, as typer adds options of its own to a group that is made.
        found = super().get_params(ctx)
        for option in found:
            if isinstance(option, TyperOption) and not option.required:
                option.__class__ = _Option
        return found


def lazy_group(places: dict[str, Place]) -> type[TyperGroup]:
    """A class of groups that have these commands too.

    Args:
        places: By the names of the commands.
    """

    class LazyGroup(Group):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, place in places.items():
                self.commands[name] = TyperCommand(name, help=place.help)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            if name in places:
                command = places[name].command(name)
            return name, command, rest

    return LazyGroup

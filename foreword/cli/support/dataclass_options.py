"""Dataclasses as options: a parameter whose type is a dataclass becomes one option per field, with the field's help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

Command = Callable[..., None]


def expand(**panels: str) -> Callable[[Command], Command]:
    """Expand the named parameters, each under its heading in the help; a field's `metadata["help"]` is the one source of its help."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        groups = {name: signature.parameters[name].annotation for name in panels}

        def run(**given: Any) -> None:
            for name, cls in groups.items():
                given[name] = cls(**{field.name: given.pop(field.name) for field in fields(cls)})
            command(**given)

        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values() if p.name not in groups]
        hints = {cls: get_type_hints(cls) for cls in groups.values()}  # once for each class: every start of the command line waits for it
        made = [_option(field, hints[cls][field.name], panels[name]) for name, cls in groups.items() for field in fields(cls)]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        run.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]  # what inspect reads of a function
        return run

    return decorate


def _option(field: Field[Any], kind: Any, panel: str) -> inspect.Parameter:
    """One keyword of the command: `--field-name`."""
    flag = "--" + field.name.replace("_", "-")
    option = typer.Option(flag, help=field.metadata["help"], rich_help_panel=panel, autocompletion=field.metadata.get("complete"))
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option])

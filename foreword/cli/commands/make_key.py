"""`foreword make-key`: an API key, of which the server only ever sees a hash."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.support import output


def make_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who gets the key; logs say this name.")],
    tasks: Annotated[str | None, typer.Option("--tasks", metavar="A,B,…", help="Tasks the key sees; by default all.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", min=1, metavar="N", help="Answers a minute; by default without limit.")] = None,
) -> None:
    """Make an API key for a server.

    The key itself goes to standard error, this once; its line for the server's file of keys, with a hash of it, to standard output.

    [bold]Example:[/bold] foreword make-key alice --rate 600 >> keys.txt
    """
    from foreword.cli.support.serve_options import needed

    with needed():
        from foreword.server.auth import make_key as made
    key, line = made(name, None if tasks is None else [task.strip() for task in tasks.split(",") if task.strip()], rate)
    output.say(f"the key of {name}, shown this once: {key}")
    print(line, flush=True)

"""`foreword make-key`: an API key, of which the server only ever sees a hash."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.support import output


def make_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's owner; it appears in the logs.")],
    tasks: Annotated[str | None, typer.Option("--tasks", metavar="A,B,…", help="Tasks that the key may use; by default all.")] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, metavar="N", help="Maximum number of answers per minute; by default unlimited.")
    ] = None,
) -> None:
    """Create an API key for a server.

    Prints the key once, on standard error. Prints its line for the server's key file, with a hash of the key, on standard output.

    [bold]Example:[/bold] foreword make-key alice --rate 600 >> keys.txt
    """
    from foreword.cli.support.serve_options import needed

    with needed():
        from foreword.server.auth import make_key as made
    key, line = made(name, None if tasks is None else [task.strip() for task in tasks.split(",") if task.strip()], rate)
    output.say(f"the key of {name}, shown this once: {key}")
    print(line, flush=True)
